"""One engine of a profile and three buckets: its bytes, its time at a bucket's shape, and what finding the plan costs.

Three kinds of engines of the same model: one open plan; the same with three buckets; one for each bucket's shape alone. At each
bucket's shape the three take turns in short blocks. Then the nanoseconds that a call spends on finding its plan.

    python bench/shapes_plans.py --only build
    python bench/shapes_plans.py --only time
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import hardware
import numpy as np
import onnxruntime
import zoo
from shapes_static import FOLDER, RANGE, Feed, compare, error, feed, fixed_engine, open_engine
from undisturbed import undisturbed

import redline
from redline.engine import read_header
from redline.runtime.dispatch import Dispatch, Given
from redline.runtime.profile import Bound

BUCKETS = {"word": (1, 16), "sentence": (1, 64), "batch": (8, 128)}
LOOPS = 20_000


def plans_engine(name: str, options: argparse.Namespace) -> Path:
    """The engine of the whole range and the buckets; built if it is not there."""
    path = FOLDER / f"{name}_plans{options.opt_level}.engine"
    if not path.exists():
        inputs = zoo.MODELS[name].inputs
        buckets = {bucket: dict.fromkeys(inputs, shape) for bucket, shape in BUCKETS.items()}
        ranges = dict.fromkeys(inputs, RANGE)
        redline.build(zoo.path(name), shapes=ranges, buckets=buckets, output=path, opt_level=options.opt_level).close()
    return path


def sizes(path: Path) -> dict[str, int]:
    return {blob.name: blob.num_bytes for blob in read_header(path).blobs} | {"file": path.stat().st_size}


def print_sizes(files: dict[str, Path]) -> None:
    print("| engine | file (MB) | weights (MB) | code (MB) | further plans (MB) |\n|---|---|---|---|---|")
    for title, path in files.items():
        found = sizes(path)
        plans = sum(size for name, size in found.items() if name.startswith("plan."))
        texts = (f"{size / 1e6:.2f}" for size in (found["file"], found["weights"], found["code"], plans))
        print(f"| {title} | {' | '.join(texts)} |")


def print_times(name: str, session: onnxruntime.InferenceSession, options: argparse.Namespace) -> None:
    print("\n| batch x length | plan of the bucket (ms) | made for the shape | open plan | bucket over made | error |")
    print("|---|---|---|---|---|---|")
    plans, opened = (redline.load(f(name, options), preload=True) for f in (plans_engine, open_engine))
    for shape in BUCKETS.values():
        inputs = feed(name, *shape, np.random.default_rng(sum(shape)))
        with redline.load(fixed_engine(name, shape, options), preload=True) as fixed:
            calls = [partial(engine.run, inputs) for engine in (plans, fixed, opened)]
            (mine, its, slow), others = undisturbed(partial(compare, calls), 3)
        wrong = error(plans.run(inputs), session.run(None, inputs))
        times = " | ".join(f"{1e3 * seconds:.3f}" for seconds in (mine, its, slow))
        print(f"| {shape[0]} x {shape[1]} | {times} | {mine / its:.3f} | {wrong:.1e} |", flush=True)
    print(f"\nothers took {others:.0%} of the cores in the last row")


def nanoseconds(call: Callable[[int], object]) -> float:
    """The least time of a call, over several rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter_ns()
        for i in range(LOOPS):
            call(i)
        best = min(best, (time.perf_counter_ns() - began) / LOOPS)
    return best


def dispatch_times(dispatch: Dispatch, feeds: Sequence[Feed]) -> list[float]:
    """Of calls of one shape; of shapes that take turns; of the same where nothing is remembered."""
    known: dict[Given, Bound] = {}
    last = dispatch.bind(feeds[0], None, known)
    if dispatch.closed is not None:
        return [nanoseconds(lambda i: dispatch.bind(feeds[i % 3], last, known))]
    return [
        nanoseconds(lambda i: dispatch.bind(feeds[i % 3 // 3], last, known)),
        nanoseconds(lambda i: dispatch.bind(feeds[i % 3], None, known)),
        nanoseconds(lambda i: dispatch.bind(feeds[i % 3], None, {})),
    ]


def print_dispatch(files: dict[str, Path], name: str) -> None:
    """What finding the plan costs: in an engine of one fixed shape, of one profile, of a profile and buckets."""
    print("\n| finding the plan of a call (ns) | shapes of the last call | shapes seen before | seen for the first time |")
    print("|---|---|---|---|")
    rng = np.random.default_rng(0)
    feeds: list[Feed] = [feed(name, *shape, rng) for shape in BUCKETS.values()]
    empty = nanoseconds(lambda i: feeds[i % 3])
    for title, path in files.items():
        texts = [f"{seconds - empty:.0f}" for seconds in dispatch_times(Dispatch(read_header(path)), feeds)]
        print(f"| {title} | {' | '.join(texts)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--only", choices=("build", "time"), help="half of the work; time: of those built")
    parser.add_argument("--opt-level", type=int, default=2)
    options = parser.parse_args()
    name = options.model
    FOLDER.mkdir(parents=True, exist_ok=True)
    fixed = {f"one shape, {b} x {n}": fixed_engine(name, (b, n), options) for b, n in BUCKETS.values()}
    files = {"a profile": open_engine(name, options), "a profile and three buckets": plans_engine(name, options)}
    if options.only == "build":
        return
    print(f"{zoo.MODELS[name].title}, {RANGE}, buckets {BUCKETS}\n{hardware.machine()}\n{hardware.versions('onnxruntime')}\n")
    print_sizes({**fixed, **files})
    session = onnxruntime.InferenceSession(zoo.path(name), providers=["CPUExecutionProvider"])
    print_times(name, session, options)
    print_dispatch({next(iter(fixed)): next(iter(fixed.values())), **files}, name)


if __name__ == "__main__":
    main()
