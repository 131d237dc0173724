"""How long this process's threads have waited for a core that was busy with others: what makes a measured time worthless.

In: nothing but the system's own count, which Linux keeps for every thread. Out: seconds, of which only differences mean
something; always 0 where the system does not count.
"""

import contextlib
import os
from pathlib import Path

TASKS = Path("/proc/self/task")


def waited_seconds() -> float:
    """The sum over the threads that live."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(TASKS):
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
                total += int((TASKS / thread / "schedstat").read_text().split()[1])
    return total * 1e-9
