"""One engine for all shapes against an engine made for each: time and answers at random shapes of the range.

The open engine is built once. For each shape an engine with fixed shapes is built, tuned as far as --opt-level says, and
the two take turns in short blocks; the ratio is that of their medians. Answers are compared with ONNX Runtime's.

    python bench/shapes_static.py                                  MiniLM, 40 shapes (takes long: 40 builds)
    python bench/shapes_static.py --model bert_base --count 8
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hardware
import numpy as np
import onnxruntime
import zoo

import redline
from redline.base.shapes import ShapeRange

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"
RANGE = ShapeRange((1, 1), (8, 128), (32, 512))
BLOCK_S = 0.4
BLOCKS = 3
Feed = dict[str, np.ndarray]


def feed(name: str, batch: int, length: int, rng: np.random.Generator) -> Feed:
    """Tokens of the vocabulary, the tails of the sequences masked."""
    real = rng.integers(max(1, length // 2), length + 1, batch)
    mask = (np.arange(length) < real[:, None]).astype(np.int64)
    ids = rng.integers(1000, zoo.MODELS[name].vocabulary, (batch, length)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def compare(contestants: Sequence[Callable[[], object]]) -> list[float]:
    """The median seconds of each, in turns."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(BLOCKS):
        for call, seen in zip(contestants, times, strict=True):
            call()
            end = time.perf_counter() + BLOCK_S
            while not seen or time.perf_counter() < end:
                began = time.perf_counter()
                call()
                seen.append(time.perf_counter() - began)
    return [statistics.median(seen) for seen in times]


def error(answers: Feed, expected: Sequence[np.ndarray]) -> float:
    """The largest relative L2 distance of an output."""
    pairs = zip(answers.values(), expected, strict=True)
    return max(float(np.linalg.norm(a - e) / np.linalg.norm(e)) for a, e in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--most-tokens", type=int, default=32 * 512, help="leave out shapes with more")
    options = parser.parse_args()
    name, rng = options.model, np.random.default_rng(options.seed)
    FOLDER.mkdir(parents=True, exist_ok=True)
    ranges = dict.fromkeys(zoo.MODELS[name].inputs, RANGE)
    engine = redline.build(zoo.path(name), shapes=ranges, output=FOLDER / f"{name}_open.engine", opt_level=options.opt_level)
    session = onnxruntime.InferenceSession(zoo.path(name), providers=["CPUExecutionProvider"])
    print(f"{zoo.MODELS[name].title}, one engine for {RANGE}\n{hardware.machine()}\n{hardware.versions('onnxruntime')}\n")
    print("| batch x length | open (ms) | made for the shape (ms) | ratio | error |\n|---|---|---|---|---|")
    ratios, errors = [], []
    while len(ratios) < options.count:
        batch, length = int(rng.integers(1, 33)), int(rng.integers(1, 513))
        if batch * length > options.most_tokens:
            continue
        inputs = feed(name, batch, length, rng)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.engine"
            shapes = dict.fromkeys(ranges, (batch, length))
            fixed = redline.build(zoo.path(name), shapes=shapes, output=path, opt_level=options.opt_level)
            mine, its = compare([lambda i=inputs: engine.run(i), lambda i=inputs, f=fixed: f.run(i)])
            fixed.close()
        errors.append(error(engine.run(inputs), session.run(None, inputs)))
        ratios.append(mine / its)
        print(f"| {batch} x {length} | {1e3 * mine:.2f} | {1e3 * its:.2f} | {ratios[-1]:.3f} | {errors[-1]:.1e} |", flush=True)
    print(f"\nratio: median {statistics.median(ratios):.3f}, worst {max(ratios):.3f}; largest error {max(errors):.1e}")


if __name__ == "__main__":
    main()
