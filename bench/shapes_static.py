"""One engine for all shapes against an engine made for each: time and answers at random shapes of the range.

The open engine is built once. For each shape an engine with fixed shapes is built, tuned as far as --opt-level says, and
the two take turns in short blocks; the ratio is that of their medians. Answers are compared with ONNX Runtime's. Builds and
measurements may be separate runs, and a few shapes at a time: rows are kept in .cache/engines, and the table is of all of them.

    python bench/shapes_static.py                                  MiniLM, 40 shapes (takes long: 40 builds)
    python bench/shapes_static.py --model bert_base --shapes 0:4 --only build
    python bench/shapes_static.py --model bert_base --shapes 0:4 --only time
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hardware
import numpy as np
import onnxruntime
import zoo
from undisturbed import undisturbed

import redline
from redline.base.shapes import ShapeRange

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"
RANGE = ShapeRange((1, 1), (8, 128), (32, 512))
BLOCK_S = 0.3
BLOCKS = 4
COUNT = 40
Feed = dict[str, np.ndarray]
Row = dict[str, float]


def feed(name: str, batch: int, length: int, rng: np.random.Generator) -> Feed:
    """Tokens of the vocabulary, the tails of the sequences masked."""
    real = rng.integers(max(1, length // 2), length + 1, batch)
    mask = (np.arange(length) < real[:, None]).astype(np.int64)
    ids = rng.integers(1000, zoo.MODELS[name].vocabulary, (batch, length)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def compare(contestants: Sequence[Callable[[], object]]) -> list[float]:
    """The median seconds of each, in turns."""
    times: list[list[float]] = [[] for _ in contestants]
    for turn in range(BLOCKS):
        for call, seen in zip(contestants, times, strict=True):
            if turn == 0 or seen[-1] < BLOCK_S:
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


def drawn(count: int, most_tokens: int, seed: int) -> list[tuple[int, int]]:
    """Random shapes of the range."""
    rng, shapes = np.random.default_rng(seed), []
    while len(shapes) < count:
        batch, length = int(rng.integers(1, 33)), int(rng.integers(1, 513))
        if batch * length <= most_tokens:
            shapes.append((batch, length))
    return shapes


def open_engine(name: str, options: argparse.Namespace) -> Path:
    """The engine for the whole range; built if it is not there."""
    path = FOLDER / f"{name}_open{options.opt_level}.engine"
    if not path.exists():
        ranges = dict.fromkeys(zoo.MODELS[name].inputs, RANGE)
        redline.build(zoo.path(name), shapes=ranges, output=path, opt_level=options.opt_level).close()
    return path


def fixed_file(name: str, shape: tuple[int, int], options: argparse.Namespace) -> Path:
    return FOLDER / f"{name}_{shape[0]}x{shape[1]}_{options.opt_level}.engine"


def fixed_engine(name: str, shape: tuple[int, int], options: argparse.Namespace) -> Path:
    """The engine for one shape; built if it is not there."""
    path = fixed_file(name, shape, options)
    if not path.exists():
        shapes = dict.fromkeys(zoo.MODELS[name].inputs, shape)
        redline.build(zoo.path(name), shapes=shapes, output=path, opt_level=options.opt_level).close()
    return path


def measured(name: str, shape: tuple[int, int], session: onnxruntime.InferenceSession, options: argparse.Namespace) -> Row:
    inputs = feed(name, *shape, np.random.default_rng(sum(shape)))
    with redline.load(open_engine(name, options), preload=True) as engine:
        answers = engine.run(inputs)
        with redline.load(fixed_engine(name, shape, options), preload=True) as fixed:
            (mine, its), others = undisturbed(lambda: compare([lambda: engine.run(inputs), lambda: fixed.run(inputs)]), 2)
    wrong = error(answers, session.run(None, inputs))
    return {"open": mine, "fixed": its, "ratio": mine / its, "error": wrong, "others": others}


def table(rows: dict[str, Row]) -> str:
    lines = ["| batch x length | open (ms) | made for the shape (ms) | ratio | error |", "|---|---|---|---|---|"]
    for shape, row in rows.items():
        times = f"{1e3 * row['open']:.2f} | {1e3 * row['fixed']:.2f}"
        lines.append(f"| {shape} | {times} | {row['ratio']:.3f} | {row['error']:.1e} |")
    ratios = [row["ratio"] for row in rows.values()]
    lines += ["", f"{len(ratios)} shapes, ratio: median {statistics.median(ratios):.3f}, worst {max(ratios):.3f}; "
              f"largest error {max(row['error'] for row in rows.values()):.1e}; other processes took at most "
              f"{max(row['others'] for row in rows.values()):.0%} of the cores"]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--shapes", default=f"0:{COUNT}", help="which of the drawn shapes: FIRST:END")
    parser.add_argument("--only", choices=("build", "time"), help="half of the work; time: of those built")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--most-tokens", type=int, default=32 * 512, help="leave out shapes with more")
    parser.add_argument("--drop", action="store_true", help="delete the engine of a shape when it is measured")
    options = parser.parse_args()
    name = options.model
    FOLDER.mkdir(parents=True, exist_ok=True)
    first, end = map(int, options.shapes.split(":"))
    chosen = drawn(max(COUNT, end), options.most_tokens, options.seed)[first:end]
    if options.only != "time":
        open_engine(name, options)
        for shape in chosen:
            fixed_engine(name, shape, options)
    if options.only == "build":
        return
    if options.only == "time":
        chosen = [shape for shape in chosen if fixed_file(name, shape, options).exists()]
    kept = FOLDER / f"{name}_static_{options.seed}_{options.opt_level}.json"
    rows: dict[str, Row] = json.loads(kept.read_text()) if kept.exists() else {}
    session = onnxruntime.InferenceSession(zoo.path(name), providers=["CPUExecutionProvider"])
    for shape in chosen:
        rows[f"{shape[0]} x {shape[1]}"] = measured(name, shape, session, options)
        kept.write_text(json.dumps(rows))
        if options.drop:
            fixed_engine(name, shape, options).unlink()
    print(f"{zoo.MODELS[name].title}, one engine for {RANGE}\n{hardware.machine()}\n{hardware.versions('onnxruntime')}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
