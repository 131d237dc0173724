"""What a process that serves one engine takes: its resident memory above that of a process that only imported numpy.

Runs in a process of its own and prints JSON. The allowance is the sum of weights and arena and 80 MiB for code, stacks and
the interpreter's objects.

    python bench/memory.py model.engine
"""

import json
import sys
from pathlib import Path

import numpy as np

import redline

PAGE = 4096
ALLOWANCE = 80 * 2**20
CALLS = 3


def resident_bytes() -> int:
    """Resident memory of this process, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def main(engine_file: str) -> None:
    bare = resident_bytes()  # redline.load is the first use of redline, and loads the runtime
    engine = redline.load(engine_file)
    rng = np.random.default_rng(0)
    feed = {port.name: _array(rng, port.shape, port.dtype) for port in engine.inputs}
    for _ in range(CALLS):
        engine.run(feed)
    taken = resident_bytes() - bare - sum(array.nbytes for array in feed.values())
    weights = sum(blob.num_bytes for blob in engine.header.blobs if blob.name == "weights")
    arena = engine.header.arena_bytes
    print(json.dumps({"taken": taken, "weights": weights, "arena": arena, "allowed": weights + arena + ALLOWANCE}))


def _array(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Normal floats; ones for everything else, which is a valid token, index and mask."""
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)


if __name__ == "__main__":
    main(sys.argv[1])
