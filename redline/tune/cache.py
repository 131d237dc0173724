"""The timing cache: how long each schedule of each problem took on one processor with one compiler.

A JSON file, written whole and renamed, so a build that is cut off leaves the old one. It says which processor it was
measured on and is refused on any other: times do not travel.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from redline.base.errors import BuildError
from redline.base.files import appearing

FORMAT = 1
MAX_BYTES = 256 << 20


@dataclass
class TimingCache:
    """``entries[problem key][schedule]`` in seconds. ``machine`` names processor, threads and compiler."""

    machine: str
    path: Path | None = None
    entries: dict[str, dict[str, float]] = field(default_factory=dict)

    @staticmethod
    def open(path: Path | None, machine: str) -> "TimingCache":
        """The cache in ``path``, empty when there is no file; raises BuildError for one that cannot be used here."""
        cache = TimingCache(machine, path)
        if path is None or not path.exists():
            return cache
        remedy = "name another file with --timing-cache, or delete this one"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            data = json.loads(path.read_bytes())
            found = (data["format"], data["machine"])
            entries = {str(k): {str(s): _seconds(t) for s, t in v.items()} for k, v in data["entries"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BuildError(f"timing cache {path}", f"it is no timing cache ({error})", "", remedy) from error
        if found[0] != FORMAT:
            raise BuildError(f"timing cache {path}", f"its format is {found[0]}", f"this version reads {FORMAT}", remedy)
        if found[1] != machine:
            raise BuildError(f"timing cache {path}", f"it was measured on {found[1]}", f"this machine is {machine}", remedy)
        cache.entries = entries
        return cache

    def seconds(self, problem: str, schedule: str) -> float | None:
        return self.entries.get(problem, {}).get(schedule)

    def record(self, problem: str, schedule: str, seconds: float) -> None:
        self.entries.setdefault(problem, {})[schedule] = seconds

    def save(self) -> None:
        """Writes the file beside its place and renames it; does nothing for a cache without a path.

        What another build has added meanwhile is kept, and where both have timed the same, theirs, which came first.
        """
        if self.path is None:
            return
        for problem, times in TimingCache.open(self.path, self.machine).entries.items():
            self.entries[problem] = self.entries.get(problem, {}) | times
        text = json.dumps({"format": FORMAT, "machine": self.machine, "entries": self.entries}, indent=1, sort_keys=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(self.path) as file:
            file.write(text.encode())


def _seconds(value: object) -> float:
    if not isinstance(value, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no time")
    return value
