"""What a GPU's INT8 costs in accuracy, on trained models: FP32 by ONNX Runtime beside Redline's INT8 with signed activations.

digits     the bundled network on 300 of its test images; the other 150 calibrate it
minilm     two thirds of its sentences, calibrated on the others: mean cosine with FP32, and who keeps the nearest sentence

Where there is a GPU its engines answer. Elsewhere the CPU runs the same quantized graph: float32 for float16.

    python bench/gpu_accuracy.py [digits minilm] [--best] [--ranges]

``--best``: the precision best in place of int8, which keeps a layer in integers where that gains time within the gate.
``--ranges``: only measures the ranges, on the CPU, into .cache/ranges_TASK.json, from where other runs take them.
"""

import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import zoo

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from redline import frontend, passes  # noqa: E402
from redline.base.errors import EngineError  # noqa: E402
from redline.builder import quantization  # noqa: E402
from redline.builder.cuda import build_cuda  # noqa: E402
from redline.builder.workshop import Workshop  # noqa: E402
from redline.codegen.c import isa, toolchain  # noqa: E402
from redline.ir import Graph  # noqa: E402
from redline.quant import of_images  # noqa: E402
from redline.runtime.cuda.driver import Driver  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402

BATCH = 50
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


def _neighbours(found: np.ndarray, wanted: np.ndarray) -> str:
    found, wanted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, wanted))
    nearest = [(x @ x.T - 2 * np.eye(len(x))).argmax(1) for x in (found, wanted)]
    return f"cosine {(found * wanted).sum(1).mean():.4f}, {100 * (nearest[0] == nearest[1]).mean():.1f} % keep their neighbour"


def batches(arrays: Mapping[str, np.ndarray]) -> list[Feed]:
    count = len(next(iter(arrays.values()))) // BATCH
    return [{name: array[i * BATCH : (i + 1) * BATCH] for name, array in arrays.items()} for i in range(count)]


def answers(
    model: Path, out: str, test: Sequence[Feed], calibration: Sequence[Feed], has_gpu: bool, is_best: bool = False
) -> np.ndarray:
    shapes = {name: array.shape for name, array in test[0].items()}
    if has_gpu:
        with tempfile.TemporaryDirectory() as place:
            gate = {"precision": "best", "min_cosine": 0.99} if is_best else {"precision": "int8"}
            known = ranges_of(model)
            if known.exists():
                gate["calibration_cache"] = known
            if is_best or not known.exists():
                gate["calibrate"] = calibration  # the gate measures on it, too
            path = build_cuda(model, output=Path(place) / "it.engine", shapes=shapes, opt_level=1, **gate)
            with load(path) as engine:
                if is_best:
                    print(engine.report["gate"], engine.report["layers"], flush=True)
                return np.concatenate([engine.run(feed)[out] for feed in test])
    tools = isa.target("cpu", 0), toolchain.find(), 0, None, lambda stage, done, total: None
    graph = passes.optimize(frontend.load(model, shapes=shapes, freeze={}), signed=True)
    wish = quantization.Wish("int8", calibration)
    made = quantization.make(model, graph, {}, AsOnGpu(*tools, signed=True), wish, lambda: Workshop(*tools))
    engine = made.write(None)
    return np.concatenate([engine.run(feed)[out] for feed in test])


def ranges_of(model: Path) -> Path:
    return ROOT / ".cache" / f"ranges_{model.stem}.json"


def main() -> None:
    try:
        where, has_gpu = Driver().name(0), True
    except EngineError:
        where, has_gpu = "the CPU, the GPU's quantized graph", False
    tasks, is_best = [arg for arg in sys.argv[1:] if not arg.startswith("--")], "--best" in sys.argv
    print(f"| task | FP32 -> {'best' if is_best else 'INT8'} on {where} | relative L2 |\n|---|---|---|")
    for task in tasks or ("digits", "minilm"):
        model, out, test, calibration, said = {"digits": digits, "minilm": minilm}[task]()
        if "--ranges" in sys.argv:
            shapes = {name: array.shape for name, array in test[0].items()}
            quantization.calibrate(model, calibration, ranges_of(model), shapes=shapes)
            continue
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        wanted = np.concatenate([session.run([out], feed)[0] for feed in test])
        found = answers(model, out, test, calibration, has_gpu, is_best)
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        print(f"| {task} | {said(found, wanted)} | {error:.1e} |", flush=True)


if __name__ == "__main__":
    main()
