"""What every kernel of a model reaches: time, GFLOP/s, GB/s and the share of its own limit, equal kernels together.

    python bench/roofline.py bert_base --precision bf16 --threads 2

A kernel's limit is the larger of its arithmetic at the peak of the instruction it may use and its bytes: weights at the speed
of memory, activations at that of the shared cache, all of them measured first. ``loss`` is its time above that limit, for all
kernels of the kind together: the largest stands first. At the end the sum of the kernels' times, each of which
waits for the one before, beside that of whole calls.
"""

import argparse
import statistics
import time
from collections import defaultdict

import contest
import hardware
import numpy as np
import zoo

import redline
from redline.codegen.c import isa, toolchain
from redline.runtime import Engine
from redline.tune import ceilings
from redline.viz import work


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
    file = contest.engine_file(*arguments)
    if not options.built:
        contest.build(*arguments, options.opt_level)
    engine, feed = redline.load(file, num_threads=options.threads), zoo.inputs(options.model, options.batch)
    limits = ceilings.measure(isa.host_target(options.threads), toolchain.find())
    print(hardware.machine(), "; together", ", ".join(f"{n} {p / 1e9:.0f} GFLOP/s" for n, p in limits.operations.items()),
          f"; memory {limits.memory / 1e9:.1f} GB/s, cache {limits.cache / 1e9:.1f} GB/s")  # fmt: skip
    seconds, whole = measure(engine, feed, options.repeats)
    kinds, lost = work.kinds(engine.header.kernels, seconds, limits), defaultdict[str, float](float)
    print(f"{'kernel':10s} {'count':>5s} {'us each':>9s} {'GFLOP/s':>8s} {'GB/s':>6s} {'limit':>6s} {'loss us':>8s}")
    for kind in kinds:
        record, each = kind.record, kind.seconds / kind.count
        shapes = " ".join("x".join(map(str, a.shape)) for a in (*record.reads[:2], *record.writes[:1]))
        lost[record.family] += kind.loss_s
        rates = f"{record.flops / each / 1e9:8.1f} {record.num_bytes / each / 1e9:6.1f} {kind.limit_s / kind.seconds:6.1%}"
        loss = f"{kind.loss_s * 1e6:8.0f}"
        print(f"{record.family:10s} {kind.count:5d} {each * 1e6:9.1f} {rates} {loss}  {shapes} {record.schedule}")
    total, best = sum(seconds), sum(kind.limit_s for kind in kinds)
    rate = sum(record.flops for record in engine.header.kernels) / total / 1e9
    print(f"kernels {total * 1e3:.3f} ms, {rate:.1f} GFLOP/s; limits {best * 1e3:.3f} ms; calls {whole * 1e3:.3f} ms")
    print("lost, ms:", ", ".join(f"{family} {value * 1e3:.3f}" for family, value in lost.items()))


if __name__ == "__main__":
    parser = contest.arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("model", choices=zoo.NAMES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--built", action="store_true", help="take the engine of the last build")
    parser.add_argument("--repeats", type=int, default=30)
    main(parser.parse_args())
