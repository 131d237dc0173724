"""A stream of sequences of mixed lengths, one at a time: sequences a second by one engine for all lengths, and by peers.

Lengths are drawn from a log-normal distribution with a long tail, cut at 512, from a fixed seed. Peers run with dynamic
shapes. The contestants take turns, a block of the stream each; no sequence is padded by anyone.

    python bench/shapes_stream.py                              MiniLM
    python bench/shapes_stream.py --model bert_base --sequences 60
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import hardware
import numpy as np
import onnxruntime
import zoo
from shapes_static import FOLDER, Feed, feed, open_engine
from undisturbed import undisturbed

import redline
from redline.base import cpu

ROUNDS = 8
Run = Callable[[Feed], object]


def lengths(count: int, seed: int = 0) -> np.ndarray:
    """Half are below 33 tokens, one in ten above 120, a few at 512."""
    drawn = np.random.default_rng(seed).lognormal(np.log(33), 1.0, count)
    return np.clip(drawn, 3, 512).astype(int)


def onnx_runtime(path: Path, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def openvino(path: Path, threads: int) -> Run | None:
    try:
        import openvino as ov
    except ImportError:
        return None
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.compile_model(path, "CPU", settings).create_infer_request()
    return lambda inputs: request.infer(inputs)


def rates(contestants: dict[str, Run], stream: list[Feed]) -> dict[str, float]:
    """Sequences a second, the median of the rounds; the first pass over the stream is not counted."""
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(ROUNDS + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            for inputs in stream:
                run(inputs)
            if turn:
                seen[name].append(len(stream) / (time.perf_counter() - began))
            time.sleep(0.3)
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--opt-level", type=int, default=3)
    options = parser.parse_args()
    name, path, threads = options.model, zoo.path(options.model), cpu.num_threads()
    FOLDER.mkdir(parents=True, exist_ok=True)
    engine = redline.load(open_engine(name, options), preload=True)
    rng, drawn = np.random.default_rng(0), lengths(options.sequences)
    print(
        f"{zoo.MODELS[name].title}, {threads} threads\n{hardware.machine()}\n{hardware.versions('onnxruntime', 'openvino')}\n"
    )
    peers = {"ONNX Runtime": onnx_runtime(path, threads), "OpenVINO": openvino(path, threads)}
    contestants: dict[str, Run] = {"Redline": engine.run, **{n: run for n, run in peers.items() if run is not None}}
    stream = [feed(name, 1, int(length), rng) for length in drawn]
    found, others = undisturbed(lambda: rates(contestants, stream), 2)
    print(f"\n{len(drawn)} sequences of {drawn.min()} to {drawn.max()} tokens, {np.median(drawn):.0f} in the median\n")
    print("| | sequences a second |\n|---|---|")
    for contestant, rate in found.items():
        print(f"| {contestant} | {rate:.1f} |")
    best = max(rate for contestant, rate in found.items() if contestant != "Redline")
    print(f"| Redline over the faster peer | {found['Redline'] / best:.2f} |")
    print(f"\nother processes took {others:.0%} of the cores")


if __name__ == "__main__":
    main()
