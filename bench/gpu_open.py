"""A CUDA engine of open shapes against engines of one shape: right, how fast, and how much memory calls take.

    python bench/gpu_open.py --out DIR minilm bert_base [--opt 2] [--at 1x16 8x128 ...] [--static 1x16 ...] [--calls 200]
    python bench/gpu_open.py --out DIR resnet50 --at 1 5 32 --static 1 8 32 --calls 0

Builds one engine for batches of 1 to 32 (tuned at 8), for encoders also lengths of 1 to 512 (tuned at 128), and for each shape
of ``--static`` an engine for it alone. Answers are compared with ONNX Runtime in float32 on random inputs. Times are medians of
replays of a CUDA graph on the same inputs, which lie on the device. Then ``--calls`` calls of random shapes from host arrays,
and as many of batch 1 and of shapes that come again: their time on the host's clock, that of making a graph for a new shape,
and the device memory that is free meanwhile. The models are the committed skeletons with their weights filled again.
"""

import argparse
import json
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import zoo  # noqa: E402
from gpu_models import reference, relative, skeletons  # noqa: E402

from redline.base.shapes import ShapeRange  # noqa: E402
from redline.builder.cuda import build_cuda  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402

SPAN = ShapeRange((1, 1), (8, 128), (32, 512))
NAMES = ("input_ids", "attention_mask", "token_type_ids")
REPLAYS = 40


def feed(name: str, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    return tokens(*shape, seed) if len(shape) == 2 else zoo.inputs(name, shape[0], seed)


def shapes_of(name: str, shape: tuple[int, ...] | None) -> dict:
    """``shape``: of one engine; None: the range."""
    if name in ("minilm", "bert_base"):
        return dict.fromkeys(NAMES, SPAN if shape is None else shape)
    ends = [zoo.shapes(name, batch) for batch in ((1, 8, 32) if shape is None else shape)]
    return {n: ShapeRange(*(end[n] for end in ends)) if shape is None else ends[0][n] for n in ends[0]}


def tokens(batch: int, length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (np.arange(length) < rng.integers(max(1, length // 2), length + 1, (batch, 1))).astype(np.int64)
    ids = rng.integers(1000, 30522, (batch, length)) * mask
    return dict(zip(NAMES, (ids, mask, np.zeros_like(ids)), strict=True))


def replay_seconds(engine, context, inputs) -> float:
    """Of the graph for these inputs, which are in the context's own memory since ``context.run``."""
    shapes = {name: array.shape for name, array in inputs.items()}
    graph = context.prepare(context.device_inputs(shapes), context.device_outputs(shapes))
    loaded, driver, times = engine._open(), engine._open().driver, []
    with loaded.current():
        begin, end = driver.event(), driver.event()
        for _ in range(REPLAYS + 5):
            driver.record(begin, context.stream)
            context.replay(graph)
            driver.record(end, context.stream)
            times.append(driver.seconds(begin, end))
    return float(np.median(times[5:]))


def free_bytes(engine) -> int:
    loaded = engine._open()
    with loaded.current():
        return int(loaded.driver._call("cuMemGetInfo", what="memory")[0])


def at(name: str, engine, context, model: bytes, shape, check: bool) -> dict:
    inputs = feed(name, shape, int(time.time()) % 100000)
    context.run(inputs)
    row = {"shape": "x".join(map(str, shape))}
    if check:
        context.poison()
        found = context.run(inputs)
        wanted = reference(model, inputs)
        row["error"] = [round(relative(got, want), 6) for got, want in zip(found.values(), wanted, strict=True)]
        again = context.run(inputs)
        row["repeatable"] = all(np.array_equal(found[name], again[name]) for name in found)
    row["us"] = round(1e6 * replay_seconds(engine, context, inputs), 1)
    return row


def capture_seconds(context, shape) -> float:
    """The host's time to make the graph of a shape."""
    shapes = dict.fromkeys(NAMES, shape)
    arrays = context.device_inputs(shapes), context.device_outputs(shapes)
    started = time.perf_counter()
    context.prepare(*arrays)
    return time.perf_counter() - started


def random_calls(engine, context, count: int) -> dict:
    """Calls of shapes that rarely come twice, then of few shapes."""
    rng, times, free = np.random.default_rng(1), {"new": [], "new of batch 1": [], "again": []}, []
    few = [tokens(int(b), int(s), 5) for b, s in ((1, 16), (4, 50), (8, 128), (2, 300))]
    for number in range(count):
        for kind, inputs in (
            ("new", tokens(int(rng.integers(1, 33)), int(rng.integers(1, 513)), number)),
            ("new of batch 1", tokens(1, 200 + number, number)),
            ("again", few[number % 4]),
        ):
            started = time.perf_counter()
            context.run(inputs)
            times[kind].append(time.perf_counter() - started)
        if number % 20 == 10 or number == count - 1:
            free.append(free_bytes(engine) >> 20)
    times["graph"] = [capture_seconds(context, (2, 10 + number)) for number in range(40)]
    tail = {kind: [round(1e6 * t) for t in np.percentile(v[8:], (50, 90, 100))] for kind, v in times.items()}
    return {"call_us_50_90_100": tail, "free_mib": free}


def build(name: str, model: bytes, shape, args, label: str):
    path = Path(args.out) / f"{name}_{label}.engine"
    started = time.perf_counter()
    cache = Path(args.out) / "timings.json"
    build_cuda(
        model, output=path, shapes=shapes_of(name, shape), precision=args.precision, opt_level=args.opt,
        timing_cache=cache, target="cuda",
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return load(path), round(seconds, 1), path.stat().st_size


def one(name: str, args) -> None:
    model = skeletons.load(name).SerializeToString()
    engine, seconds, size = build(name, model, None, args, "open")
    say(
        args,
        {"model": name, "engine": "open", "build_s": seconds, "mib": size >> 20, "launches": engine.report.get("launches")},
    )
    context = engine.context()
    for shape in args.at:
        say(args, {"model": name, "engine": "open", **at(name, engine, context, model, shape, np.prod(shape) <= 4096)})
    if args.calls:
        say(args, {"model": name, **random_calls(engine, context, args.calls)})
    if args.top:
        inputs = feed(name, args.at[0], 0)
        seconds = context.profile(inputs, 3).min(0)
        steps = engine.header_at(inputs).kernels
        for i in np.argsort(-seconds)[: args.top]:
            say(args, {"us": round(1e6 * float(seconds[i]), 2), "family": steps[i].family, "schedule": steps[i].schedule})
    context.close()
    for shape in args.static:
        alone, seconds, _ = build(name, model, shape, args, "_".join(map(str, shape)))
        with closing(alone.context()) as own:
            row = at(name, alone, own, model, shape, False)
        say(args, {"model": name, "engine": "static", "build_s": seconds, **row})
        alone.close()


def say(args, row: dict) -> None:
    text = json.dumps(row)
    print(text, flush=True)
    with (Path(args.out) / "open.jsonl").open("a") as file:
        file.write(text + "\n")


def extents(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--opt", type=int, default=2)
    parser.add_argument("--at", type=extents, nargs="*", default=[(1, 1), (1, 16), (1, 128), (8, 128), (3, 77), (32, 512)])
    parser.add_argument("--static", type=extents, nargs="*", default=[])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--top", type=int, default=0)
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for name in args.models:
        one(name, args)


if __name__ == "__main__":
    main()
