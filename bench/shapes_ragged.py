"""Batches of sequences of mixed lengths: packed without padding by a ragged engine, against the padded batch.

Lengths are those of shapes_stream.py, cut at 512, from a fixed seed. Both engines are Redline's, for the same range, and take
the same batches in turns; a padded batch is as long as its longest sequence. The answers are compared with those that
ONNX Runtime gives for each sequence alone.

    python bench/shapes_ragged.py                       MiniLM, batches of 16
    python bench/shapes_ragged.py --model bert_base --batches 4
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hardware
import numpy as np
import onnxruntime
import zoo
from shapes_static import FOLDER, RANGE, Feed, error, open_engine
from shapes_stream import lengths
from undisturbed import undisturbed

import redline
from redline.runtime.ragged import pack, run_ragged

ROUNDS = 3


def ragged_engine(name: str, options: argparse.Namespace) -> Path:
    path = FOLDER / f"{name}_ragged{options.opt_level}.engine"
    if not path.exists():
        ranges = dict.fromkeys(zoo.MODELS[name].inputs, RANGE)
        redline.build(zoo.path(name), shapes=ranges, output=path, opt_level=options.opt_level, ragged=True).close()
    return path


def sequence(name: str, length: int, rng: np.random.Generator) -> Feed:
    ids = rng.integers(1000, zoo.MODELS[name].vocabulary, length)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def padded(sequences: Sequence[Feed]) -> Feed:
    """One array a name, zeros behind the end of each sequence."""
    longest = max(len(s["input_ids"]) for s in sequences)
    return {n: np.stack([np.pad(s[n], (0, longest - len(s[n]))) for s in sequences]) for n in sequences[0]}


def rates(contestants: Sequence[Callable[[int], object]], batches: int, batch: int) -> list[float]:
    """Sequences a second of each, the median of the rounds over all batches, in turns batch by batch."""
    seen: list[list[float]] = [[] for _ in contestants]
    for _ in range(ROUNDS):
        spent = [0.0 for _ in contestants]
        for number in range(batches):
            for which, run in enumerate(contestants):
                began = time.perf_counter()
                run(number)
                spent[which] += time.perf_counter() - began
        for which, seconds in enumerate(spent):
            seen[which].append(batches * batch / seconds)
    return [statistics.median(values) for values in seen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--only", choices=("build", "time"))
    options = parser.parse_args()
    name, rng = options.model, np.random.default_rng(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = open_engine(name, options), ragged_engine(name, options)
    if options.only == "build":
        return
    whole, ragged = (redline.load(file, preload=True) for file in files)
    drawn = lengths(options.batch * options.batches).reshape(options.batches, options.batch)
    sets = [[sequence(name, int(length), rng) for length in row] for row in drawn]
    pads, packs = [padded(s) for s in sets], [pack(s) for s in sets]
    contestants = [lambda i: ragged.run(packs[i]), lambda i: whole.run(pads[i])]
    for run in contestants:
        run(0)
    (mine, its), others = undisturbed(lambda: rates(contestants, options.batches, options.batch), 2)
    session = onnxruntime.InferenceSession(zoo.path(name), providers=["CPUExecutionProvider"])
    worst = 0.0
    for given, answers in zip(sets[0], run_ragged(ragged, sets[0]), strict=True):
        alone = session.run(None, {n: array[None] for n, array in given.items()})
        worst = max(worst, error(answers, [expected[0] for expected in alone]))
    print(f"{zoo.MODELS[name].title}\n{hardware.machine()}\n{hardware.versions('onnxruntime')}\n")
    filled = drawn.sum() / (drawn.max(axis=1) * options.batch).sum()
    print(f"{options.batches} batches of {options.batch} sequences of {drawn.min()} to {drawn.max()} tokens; "
          f"{filled:.0%} of a padded batch are tokens\n")  # fmt: skip
    print("| | sequences a second |\n|---|---|")
    print(f"| ragged | {mine:.1f} |\n| padded | {its:.1f} |\n| ragged over padded | {mine / its:.2f} |")
    print(f"\nlargest error against ONNX Runtime, sequence by sequence: {worst:.1e}; others took {others:.0%} of the cores")


if __name__ == "__main__":
    main()
