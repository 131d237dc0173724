"""What is left of the speed when cores are short: a process pinned to one core, and two engines at once in one process?

Pinned: an engine tuned for all cores is loaded, then its process is pinned to one core; the ideal is an engine tuned for one
thread in the same process. At once: two threads call an engine each; the ideal is that the shares of the two, each counted
as calls in the time over calls alone in that time, add up to 1.

    python bench/oversubscription.py                      ResNet-50, MobileNetV2 and MiniLM
    python bench/oversubscription.py --models minilm --seconds 0.5
"""

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import hardware
import numpy as np
import zoo

import redline
from redline.runtime import Engine

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"
MODELS = ("resnet50", "mobilenetv2", "minilm")


def engine(model: str, threads: int) -> Engine:
    """The engine of ``model`` tuned for ``threads``, built where it is missing."""
    path = FOLDER / f"{model}-t{threads}.engine"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        redline.build(str(zoo.path(model)), shapes=zoo.shapes(model, 1), output=path, num_threads=threads).close()
    return redline.load(path, num_threads=threads, preload=True)


def calls(run: Callable[[], object], seconds: float) -> float:
    """Calls a second, over a block of about ``seconds``."""
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        run()
        count += 1
    return count / passed


def rivals(first: Callable[[], object], second: Callable[[], object], seconds: float, blocks: int) -> float:
    """The rate of the first over that of the second, the median of neighbouring blocks: short ones, for a shared host has
    states of its own that last from tenths of seconds to minutes."""
    ratios = []
    for _ in range(blocks):
        rates = []
        for run in (first, second):
            run()
            rates.append(calls(run, seconds))
            time.sleep(seconds)
        ratios.append(rates[0] / rates[1])
    return float(np.median(ratios))


def pinned(model: str, seconds: float, blocks: int) -> float:
    """Rate of the engine for all cores over that of the engine for one, both on one core."""
    cores = os.sched_getaffinity(0)
    feed = zoo.inputs(model, 1)
    wide, narrow = engine(model, len(cores)), engine(model, 1)
    wide.run(feed)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return rivals(lambda: wide.run(feed), lambda: narrow.run(feed), seconds, blocks)
    finally:
        os.sched_setaffinity(0, cores)
        wide.close()
        narrow.close()


def together(first: str, second: str, seconds: float, blocks: int) -> float:
    """The sum of the shares of two engines that run at once."""
    cores = len(os.sched_getaffinity(0))
    engines = [engine(model, cores) for model in (first, second)]
    feeds = [zoo.inputs(model, 1) for model in (first, second)]
    sums = []
    for _ in range(blocks):
        alone = [calls(lambda e=e, f=f: e.run(f), seconds / 2) for e, f in zip(engines, feeds, strict=True)]
        found = [0.0, 0.0]

        def work(which: int, found: list[float] = found) -> None:
            found[which] = calls(lambda: engines[which].run(feeds[which]), seconds)

        threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alone_after = [calls(lambda e=e, f=f: e.run(f), seconds / 2) for e, f in zip(engines, feeds, strict=True)]
        sums.append(sum(f * 2 / (a + b) for f, a, b in zip(found, alone, alone_after, strict=True)))
    for one in engines:
        one.close()
    return float(np.median(sums))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one block")
    parser.add_argument("--blocks", type=int, default=31)
    arguments = parser.parse_args()
    print(f"{hardware.machine()}\n{hardware.versions()}\n")
    for model in arguments.models:
        print(
            f"{model} pinned to one core: {pinned(model, arguments.seconds, arguments.blocks):.3f} of an engine for one thread"
        )
    models = arguments.models
    for first, second in zip(models, [*models[1:], models[0]], strict=True):
        share = together(first, second, arguments.seconds, arguments.blocks)
        print(f"{first} and {second} at once: their shares add up to {share:.3f}")


if __name__ == "__main__":
    main()
