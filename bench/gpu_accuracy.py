"""What 8 bits on a GPU cost in accuracy, on trained models: FP32 by ONNX Runtime beside Redline's INT8 (around 0) or FP8.

digits     the bundled network on 300 of its test images; the other 150 calibrate it
minilm     two thirds of its sentences, calibrated on the others: mean cosine with FP32, and who keeps the nearest sentence
resnet50   only where named; 64 random images, calibrated on 32 others, weights random: mean cosine, and who keeps the largest

Where there is a GPU its engines answer. Elsewhere the CPU runs the same quantized graph, float32 for float16: an engine for
INT8, the interpreter for FP8.

    python bench/gpu_accuracy.py [digits minilm resnet50] [--fp8 | --fp16 | --best] [--min-cosine 0.99] [--ranges]

``--best``: the precision best in place of int8, which keeps a layer in 8 bits where that gains time within the gate.
``--min-cosine``: what its gate asks for.
``--ranges``: only measures the ranges, on the CPU, into .cache/ranges_TASK.json, from where other runs take them.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import zoo
from gpu_models import skeletons

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from redline import frontend, ops, passes  # noqa: E402
from redline.base.dtypes import float32  # noqa: E402
from redline.base.errors import EngineError  # noqa: E402
from redline.builder import quantization  # noqa: E402
from redline.builder.cuda import build_cuda  # noqa: E402
from redline.builder.workshop import Workshop  # noqa: E402
from redline.codegen.c import isa, toolchain  # noqa: E402
from redline.ir import Graph  # noqa: E402
from redline.quant import FP8, INT8, Samples, insert, of_images, recipe_of  # noqa: E402
from redline.runtime.cuda.driver import Driver  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402

BATCH, IMAGES = 50, 8
Feed = dict[str, np.ndarray]


class AsOnGpu(Workshop):
    """The CPU's tools for the graph that a GPU would run."""

    def left_out(self, graph: Graph) -> Collection[str]:
        return of_images(graph)


def digits() -> tuple[Path, str, list[Feed], list[Feed], Callable[[np.ndarray, np.ndarray], str]]:
    with np.load(ROOT / "models" / "digits_test.npz") as stored:
        images, labels = stored["images"].reshape(-1, 1, 8, 8).astype(np.float32), stored["labels"]
    feeds = batches({"image": images})
    correct = lambda found: f"{100 * (found.argmax(1) == labels[150:450]).mean():.2f} %"  # noqa: E731
    return ROOT / "models" / "digits.onnx", "logits", feeds[3:9], feeds[:3], lambda f, w: f"{correct(w)} -> {correct(f)}"


def minilm() -> tuple[Path, str, list[Feed], list[Feed], Callable[[np.ndarray, np.ndarray], str]]:
    with np.load(zoo.SENTENCES) as stored:
        ids, mask = stored["input_ids"], stored["attention_mask"]
    feeds = batches({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    return zoo.path("minilm"), "embedding", feeds[: len(feeds) * 2 // 3], feeds[len(feeds) * 2 // 3 :], _neighbours


def resnet50() -> tuple[Path, str, list[Feed], list[Feed], Callable[[np.ndarray, np.ndarray], str]]:
    file = ROOT / ".cache" / "resnet50_skeleton.onnx"
    file.parent.mkdir(exist_ok=True)
    model = skeletons.load("resnet50")
    onnx.save(model, file)
    feeds = [zoo.inputs("resnet50", IMAGES, seed) for seed in range(12)]
    return file, model.graph.output[0].name, feeds[4:], feeds[:4], _largest


def _largest(found: np.ndarray, wanted: np.ndarray) -> str:
    cosines = (found * wanted).sum(1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1))
    return f"cosine {cosines.mean():.5f}, {100 * (found.argmax(1) == wanted.argmax(1)).mean():.1f} % keep their largest"


def _neighbours(found: np.ndarray, wanted: np.ndarray) -> str:
    found, wanted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, wanted))
    nearest = [(x @ x.T - 2 * np.eye(len(x))).argmax(1) for x in (found, wanted)]
    return f"cosine {(found * wanted).sum(1).mean():.4f}, {100 * (nearest[0] == nearest[1]).mean():.1f} % keep their neighbour"


def batches(arrays: Mapping[str, np.ndarray]) -> list[Feed]:
    count = len(next(iter(arrays.values()))) // BATCH
    return [{name: array[i * BATCH : (i + 1) * BATCH] for name, array in arrays.items()} for i in range(count)]


def answers(
    model: Path, out: str, test: Sequence[Feed], calibration: Sequence[Feed], has_gpu: bool, precision: str = "int8",
    min_cosine: float = 0.99,
) -> np.ndarray:  # fmt: skip
    shapes = {name: array.shape for name, array in test[0].items()}
    if has_gpu:
        with tempfile.TemporaryDirectory() as place:
            options = {"precision": precision, **({"min_cosine": min_cosine} if precision == "best" else {})}
            known = ranges_of(model)
            if precision != "fp16":
                options |= {"calibration_cache": known} if known.exists() else {"calibrate": calibration}
            if precision == "best":  # whose gate measures on samples
                options["calibrate"] = calibration
            path = build_cuda(model, output=Path(place) / "it.engine", shapes=shapes, opt_level=1, **options)
            with load(path) as engine:
                if precision == "best":
                    print(engine.report["gate"], engine.report["layers"], flush=True)
                return np.concatenate([engine.run(feed)[out] for feed in test])
    tools = isa.target("cpu", 0), toolchain.find(), 0, None, lambda stage, done, total: None
    graph = passes.optimize(frontend.load(model, shapes=shapes, freeze={}), signed=True)
    if precision == "fp8":
        cache = quantization.cache_of(
            model, graph, Samples(tuple(calibration), ()), ranges_of(model), "mse", lambda: Workshop(*tools)
        )
        whole = insert(graph, recipe_of(graph, of_images(graph), cache.tensors), cache.tensors, wide=float32, grid=FP8)
        return np.concatenate([ops.run(whole, feed)[out] for feed in test])
    wish = quantization.Wish("int8", calibration)
    made = quantization.make(model, graph, {}, AsOnGpu(*tools, (INT8,)), wish, lambda: Workshop(*tools))
    engine = made.write(None)
    return np.concatenate([engine.run(feed)[out] for feed in test])


def ranges_of(model: Path) -> Path:
    return ROOT / ".cache" / f"ranges_{model.stem}.json"


def main() -> None:
    tasks = {"digits": digits, "minilm": minilm, "resnet50": resnet50}
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", metavar="task", default=["digits", "minilm"])
    for kind in ("fp8", "fp16", "best"):
        parser.add_argument(f"--{kind}", dest="precision", action="store_const", const=kind, default="int8")
    parser.add_argument("--min-cosine", type=float, default=0.99)
    parser.add_argument("--ranges", action="store_true")
    args = parser.parse_args()
    try:
        where, has_gpu = Driver().name(0), True
    except EngineError:
        where, has_gpu = "the CPU, the GPU's quantized graph", False
    print(f"| task | FP32 -> {args.precision} on {where} | relative L2 | s |\n|---|---|---|---|")
    for task in args.tasks:
        model, out, test, calibration, said = tasks[task]()
        if args.ranges:
            shapes = {name: array.shape for name, array in test[0].items()}
            quantization.calibrate(model, calibration, ranges_of(model), shapes=shapes)
            continue
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        wanted = np.concatenate([session.run([out], feed)[0] for feed in test])
        started = time.perf_counter()
        found = answers(model, out, test, calibration, has_gpu, args.precision, args.min_cosine)
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        print(f"| {task} | {said(found, wanted)} | {error:.1e} | {time.perf_counter() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
