"""Whether memory stays flat: resident size over many calls of random shapes, and over many cycles of load, run and close.

python bench/shapes_memory.py                       MiniLM, 20,000 calls, 500 cycles
"""

import argparse
import os
from pathlib import Path

import hardware
import numpy as np
import zoo
from shapes_static import FOLDER, feed, open_engine

import redline

EARLY_CALLS = 200
EARLY_CYCLES = 20
MOST_BATCH, MOST_LENGTH = 2, 32  # of a random call, so that many of them end soon


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def over_calls(file: Path, name: str, calls: int) -> tuple[float, float]:
    """Resident MiB after 200 calls of random shapes, the largest among them, and after ``calls``."""
    rng, early = np.random.default_rng(1), 0.0
    with redline.load(file, preload=True) as engine:
        engine.run(feed(name, MOST_BATCH, MOST_LENGTH, rng))
        for call in range(calls):
            engine.run(feed(name, int(rng.integers(1, MOST_BATCH + 1)), int(rng.integers(1, MOST_LENGTH + 1)), rng))
            early = resident_mib() if call == EARLY_CALLS - 1 else early
        return early, resident_mib()


def over_cycles(file: Path, name: str, cycles: int) -> tuple[float, float]:
    """Resident MiB after 20 cycles of load, run and close, and after ``cycles``."""
    rng, early = np.random.default_rng(2), 0.0
    for cycle in range(cycles):
        with redline.load(file) as engine:
            engine.run(feed(name, 1, 3, rng))
        early = resident_mib() if cycle == EARLY_CYCLES - 1 else early
    return early, resident_mib()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--opt-level", type=int, default=3)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = open_engine(options.model, options)
    print(f"{zoo.MODELS[options.model].title}\n{hardware.machine()}\n{hardware.versions()}\n")
    print("| | early (MiB) | at the end (MiB) | growth |\n|---|---|---|---|")
    for what, first, (early, late) in (
        (f"{options.calls} calls", EARLY_CALLS, over_calls(file, options.model, options.calls)),
        (f"{options.cycles} cycles of load, run, close", EARLY_CYCLES, over_cycles(file, options.model, options.cycles)),
    ):
        print(f"| {what}, against {first} | {early:.1f} | {late:.1f} | {late / early - 1:+.2%} |", flush=True)


if __name__ == "__main__":
    main()
