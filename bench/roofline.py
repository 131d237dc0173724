"""What every kernel of a model reaches: time, GFLOP/s, GB/s and the share of its own limit, equal kernels together.

    python bench/roofline.py bert_base --precision bf16 --threads 2

A kernel's limit is the larger of its arithmetic at the peak of the instruction it may use (measured here, on registers
alone) and its bytes: weights at the speed of memory, activations at that of the shared cache. ``loss`` is its time above that
limit, for all kernels of the kind together: the largest stands first. At the end the sum of the kernels' times, each of which
waits for the one before, beside that of whole calls.
"""

import argparse
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import contest
import hardware
import kernels
import numpy as np
import zoo

import redline
from redline.base import dtypes
from redline.codegen.c import isa
from redline.engine.header import Access, KernelRecord
from redline.runtime import Engine

MEMORY, CACHE = 17e9, 55e9  # bytes a second and thread: docs/measured-facts.md
PRODUCTS = ("matmul", "conv", "attention")


@dataclass
class Kind:
    """Kernels of one C text: how many, and the seconds of all of them in one call."""

    record: KernelRecord
    count: int = 0
    seconds: float = 0.0


def limit(record: KernelRecord, fp32: float, threads: int) -> float:
    """Seconds below which the kernel cannot go; ``fp32`` is the peak of a thread in operations a second."""
    types = {access.dtype for access in record.reads[:2]} if record.family in PRODUCTS else set()
    rate = 2 if types == {"bfloat16"} else 4 if types and types <= {"uint8", "int8"} else 1
    # What is no product reads a part of a table: no more than it writes.
    largest = math.inf if record.family in PRODUCTS else 4 * max(math.prod(access.shape) for access in record.writes)
    weights = sum(
        min(largest, access_bytes(access)) for access in record.reads if access.space == "weights"
    )  # a gather reads a part
    others = sum(access_bytes(access) for access in (*record.reads, *record.writes) if access.space != "weights")
    moved = weights / MEMORY + others / CACHE
    return max(record.flops / (fp32 * rate), moved) / threads


def access_bytes(access: Access) -> int:
    elements = math.prod(extent for extent, stride in zip(access.shape, access.strides, strict=True) if stride)
    return elements * dtypes.from_name(access.dtype).size


def measure(engine: Engine, feed: zoo.Inputs, repeats: int) -> tuple[list[float], float]:
    """The median time of every step, and of a call."""
    context, calls = engine.context(), []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        context.run(feed)
        calls.append(time.perf_counter() - start)
    print(f"calls: least {min(calls) * 1e3:.3f} ms, median {statistics.median(calls[3:]) * 1e3:.3f} ms of {repeats}")
    return [float(each) for each in np.median(engine.profile(feed, repeats), axis=0)], statistics.median(calls[3:])


def main(options: argparse.Namespace) -> None:
    arguments = (options.model, options.batch, options.threads, options.precision)
    file = Path(options.engine) if options.engine else contest.engine_file(*arguments)
    if not options.built and not options.engine:
        contest.build(*arguments, options.opt_level)
    engine, feed = redline.load(file, num_threads=options.threads), zoo.inputs(options.model, options.batch)
    peak = kernels.peak_gflops(isa.host_target(1)) * 1e9
    print(hardware.machine(), f"; peak of a thread {peak / 1e9:.1f} GFLOP/s in FP32, twice that in BF16, four times in INT8")
    seconds, whole = measure(engine, feed, options.repeats)
    kinds: dict[str, Kind] = {}
    for record, taken in zip(engine.header.kernels, seconds, strict=True):
        kind = kinds.setdefault(record.symbol, Kind(record))
        kind.count += 1
        kind.seconds += taken
    lost: dict[str, float] = defaultdict(float)
    print(f"{'kernel':10s} {'count':>5s} {'us each':>9s} {'GFLOP/s':>8s} {'GB/s':>6s} {'limit':>6s} {'loss us':>8s}")
    rows = {s: limit(k.record, peak, options.threads) * k.count for s, k in kinds.items()}
    for symbol, kind in sorted(kinds.items(), key=lambda item: rows[item[0]] - item[1].seconds):
        record, each = kind.record, kind.seconds / kind.count
        shapes = " ".join("x".join(map(str, a.shape)) for a in (*record.reads[:2], *record.writes[:1]))
        lost[record.family] += kind.seconds - rows[symbol]
        rates = f"{record.flops / each / 1e9:8.1f} {record.num_bytes / each / 1e9:6.1f} {rows[symbol] / kind.seconds:6.1%}"
        loss = (kind.seconds - rows[symbol]) * 1e6
        print(f"{record.family:10s} {kind.count:5d} {each * 1e6:9.1f} {rates} {loss:8.0f}  {shapes} {record.schedule}")
    total, best = sum(seconds), sum(rows.values())
    flops = sum(record.flops for record in engine.header.kernels)
    rate = flops / total / 1e9
    print(f"kernels {total * 1e3:.3f} ms, {rate:.1f} GFLOP/s; limits {best * 1e3:.3f} ms; calls {whole * 1e3:.3f} ms")
    print("lost, ms:", ", ".join(f"{family} {value * 1e3:.3f}" for family, value in lost.items()))


if __name__ == "__main__":
    parser = contest.arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("model", choices=zoo.NAMES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--built", action="store_true", help="take the engine of the last build")
    parser.add_argument("--engine", help="an engine of the model that lies there already, such as an INT8 one")
    parser.add_argument("--repeats", type=int, default=30)
    main(parser.parse_args())
