"""Many threads on one engine: are all answers right, how many a second, and does everything end?

Every thread calls with inputs of its own, half of them through futures, and compares every answer with the one computed
beforehand, bit for bit. The process computes on as many cores as it has, however many threads call.

    python bench/shapes_callers.py                       16 threads for 60 s on MiniLM
    python bench/shapes_callers.py --threads 4 --seconds 5
"""

import argparse
import threading
import time
from pathlib import Path

import hardware
import numpy as np
import zoo

import redline
from redline.runtime import Engine

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"


class Caller(threading.Thread):
    """Calls until told to stop; counts answers, and those that differ."""

    def __init__(self, engine: Engine, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self.engine, self.stop, self.ahead = engine, stop, seed % 2 == 1
        self.feed = zoo.inputs("minilm", seed=seed)
        self.expected = engine.run(self.feed)
        self.answers = self.wrong = 0
        self.slowest_s = 0.0

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.perf_counter()
            results = self.engine.run_async(self.feed).result() if self.ahead else self.engine.run(self.feed)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
            self.answers += 1
            self.wrong += not all(np.array_equal(results[name], array) for name, array in self.expected.items())


def rate(engine: Engine, threads: int, seconds: float) -> list[Caller]:
    stop = threading.Event()
    callers = [Caller(engine, seed, stop) for seed in range(threads)]
    for caller in callers:
        caller.start()
    time.sleep(seconds)
    stop.set()
    for caller in callers:
        caller.join(30)
    if any(caller.is_alive() for caller in callers):
        raise SystemExit("a caller is stuck")
    return callers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "minilm.engine"
    engine = redline.build(zoo.path("minilm"), shapes=zoo.shapes("minilm"), output=path, opt_level=1)
    print(f"{zoo.MODELS['minilm'].title}\n{hardware.machine()}\n{hardware.versions()}\n")
    print("| threads | answers | wrong | a second | slowest answer (ms) |\n|---|---|---|---|---|")
    for threads, seconds in (
        (1, min(5.0, options.seconds)),
        (2, min(5.0, options.seconds)),
        (options.threads, options.seconds),
    ):
        callers = rate(engine, threads, seconds)
        answers, wrong = sum(c.answers for c in callers), sum(c.wrong for c in callers)
        slowest = 1e3 * max(c.slowest_s for c in callers)
        print(f"| {threads} | {answers} | {wrong} | {answers / seconds:.0f} | {slowest:.1f} |", flush=True)
    left = [engine.run_async(callers[0].feed) for _ in range(200)]
    engine.close()
    print(f"\nclosed with 200 calls ahead: {sum(f.cancelled() for f in left)} cancelled, "
          f"{sum(f.exception(30) is None for f in left if not f.cancelled())} answered")  # fmt: skip


if __name__ == "__main__":
    main()
