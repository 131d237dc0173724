"""Engines of random shapes on the GPU at hand, opened, run and closed in random order: answers, and whether memory stays flat.

python bench/gpu_random.py [--runs 10000] [--engines 15]

Shapes and inputs are new ones every time. The worst relative L2 error is given for every model, with its shape.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from gpu_models import relative, skeletons  # noqa: E402

from redline.builder.cuda import build_cuda  # noqa: E402
from redline.runtime.cuda.driver import Driver  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402

MODELS = ("digits", "minilm", "mobilenetv2")
OPEN = 6
RENEWED = 0.02  # of the runs open an engine anew


def shapes_of(name: str, rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
    batch = int(rng.integers(1, 9))
    if name == "minilm":
        shape = batch, int(rng.integers(3, 90))
        return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), shape)
    return {"image": (batch, *((1, 8, 8) if name == "digits" else (3, 224, 224)))}


def inputs_of(name: str, shapes: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    if name != "minilm":
        return {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
    ids, mask, types = shapes
    found = {ids: rng.integers(0, 30000, shapes[ids]), mask: np.ones(shapes[mask], np.int64)}
    return {**found, types: np.zeros(shapes[types], np.int64)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--engines", type=int, default=15)
    args = parser.parse_args()
    rng, driver = np.random.default_rng(), Driver()
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number in range(args.engines):
            name = MODELS[number % len(MODELS)]
            model = skeletons.load(name).SerializeToString()
            shapes = shapes_of(name, rng)
            path = build_cuda(
                model, output=Path(folder) / f"{number}.engine", shapes=shapes, precision="fp16", opt_level=0, target="cuda"
            )
            feed = inputs_of(name, shapes, rng)
            session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            made.append((name, path, feed, session.run(None, feed)))
        found = churn(made, args.runs, rng, driver)
    print(json.dumps({"engines": len(made), "runs": args.runs, **found}), flush=True)


def used_mib(driver: Driver) -> int:
    """Of the GPU's memory by this process; by all where nvidia-smi does not tell them apart."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    mine = [line.split(",")[1] for line in lines if line.split(",")[0] == str(os.getpid())]
    free, total = driver.api.cuMemGetInfo()[1:]
    return int(mine[0]) if mine and mine[0].strip().isdigit() else (total - free) >> 20


def churn(made, runs: int, rng: np.random.Generator, driver: Driver) -> dict:
    """Runs of engines, at most OPEN of them open at a time; the memory in use is read with none open."""
    driver.push(driver.retain(0))
    bits_differ, opened, used = 0, {}, []
    worst: dict[str, tuple[float, list[int]]] = dict.fromkeys(MODELS, (0.0, []))
    first: dict[int, list[np.ndarray]] = {}
    started = time.perf_counter()
    for run in range(runs):
        known = list(opened)
        which = (
            known[int(rng.integers(len(known)))]
            if len(known) == OPEN and rng.random() > RENEWED
            else int(rng.integers(len(made)))
        )
        name, path, feed, expected = made[which]
        if which not in opened:
            if len(opened) == OPEN:
                opened.pop(list(opened)[int(rng.integers(OPEN))]).close()
            opened[which] = load(path)
        answers = list(opened[which].run(feed).values())
        if which not in first:
            error = max(relative(a, e) for a, e in zip(answers, expected, strict=True))
            worst[name] = max(worst[name], (round(error, 6), list(next(iter(feed.values())).shape)))
        bits_differ += any(not np.array_equal(a, b) for a, b in zip(answers, first.setdefault(which, answers), strict=True))
        if run % (runs // 10) == runs // 10 - 1:
            while opened:
                opened.popitem()[1].close()
            gc.collect()
            used.append(used_mib(driver))
    seconds = time.perf_counter() - started
    return {"worst_error": worst, "runs_that_differ": bits_differ, "used_MiB_each_tenth": used, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
