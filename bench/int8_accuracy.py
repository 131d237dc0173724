"""What INT8 costs in accuracy: Redline, ONNX Runtime and OpenVINO on the same models, data and calibration samples.

digits     test accuracy of the bundled network (models/digits.onnx, its own test images)
text       test accuracy of a transformer trained on the words of Python's library (models/train_text.py)
minilm     embeddings of 500 sentences: mean cosine with float, and how often the nearest other sentence stays the same

python bench/int8_accuracy.py            writes docs/int8-accuracy.md
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import hardware
import int8_zoo
import numpy as np
import onnxruntime as ort
import openvino as ov
import zoo
from int8_files import FOLDER, SENTENCES, SENTENCES_TESTED
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import redline

Inputs = dict[str, np.ndarray]
Run = Callable[[Inputs], np.ndarray]
NAMES = ("redline", "onnxruntime", "openvino")
PRODUCTS = ("MatMul", "Gemm")

HEAD = """# INT8 and accuracy

Written by `{command}` on {day}; run it to measure your own machine.

- Machine: {machine}
- Versions: {versions}
- The same calibration samples for all. ONNX Runtime: `quantize_static`, QDQ, uint8 activations, int8 weights per channel, for
  transformers of MatMul and Gemm only (all operators, its default, is far worse). OpenVINO: `nncf.quantize`, for transformers
  with that model type. Redline: `precision="int8"`, nothing else set.
- FP32 is ONNX Runtime's. A drop is FP32 minus INT8, in points; a negative one is luck, as a small positive one is: of the
  answers that 8 bits change some become right and some wrong. How many change, and the outputs' error, have their own rows.
"""


@dataclass(frozen=True)
class Task:
    """A model with calibration and test inputs; ``score`` turns all outputs, and the float ones, into numbers."""

    name: str
    model: Path
    output: str
    calibration: Sequence[Inputs]
    test: Sequence[Inputs]
    columns: tuple[str, ...]
    score: Callable[[np.ndarray, np.ndarray], tuple[float, ...]]
    transformer: bool = False


def digits() -> Task:
    with np.load(zoo.ROOT / "models" / "digits_test.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    feeds = [{"image": image[None]} for image in images]
    calibration = _digits_of_training(len(images))
    return Task("digits", zoo.ROOT / "models" / "digits.onnx", "logits", calibration, feeds, ("accuracy",), _accuracy(labels))


def _digits_of_training(test: int) -> list[Inputs]:
    """Training images of the same split as in models/train_digits.py, which holds out a fifth."""

    data, target = load_digits(return_X_y=True)
    train = train_test_split(data, target, test_size=test, random_state=0, stratify=target)[0]
    return [{"image": (row / 16).astype(np.float32).reshape(1, 1, 8, 8)} for row in train[:300]]


def text() -> Task:
    with np.load(FOLDER / "text.npz") as stored:
        test, labels, calibration = stored["test"], stored["labels"], stored["calibration"]
    feeds, calibrating = ([{"ids": row[None]} for row in rows] for rows in (test, calibration))
    return Task("text", FOLDER / "text.onnx", "logits", calibrating, feeds, ("accuracy",), _accuracy(labels), True)


def minilm() -> Task:
    with np.load(SENTENCES) as stored:
        ids, mask = stored["input_ids"], stored["attention_mask"]
    feeds = [
        {"input_ids": ids[i : i + 1], "attention_mask": mask[i : i + 1], "token_type_ids": np.zeros_like(ids[i : i + 1])}
        for i in range(len(ids))
    ]
    count = SENTENCES_TESTED
    columns = ("mean cosine", "neighbours kept")
    return Task("minilm", zoo.path("minilm"), "embedding", feeds[count:], feeds[:count], columns, _neighbours, True)


def _accuracy(labels: np.ndarray) -> Callable[[np.ndarray, np.ndarray], tuple[float, ...]]:
    return lambda found, wide: (100 * float((found.argmax(1) == labels).mean()),)


def _neighbours(found: np.ndarray, wide: np.ndarray) -> tuple[float, ...]:
    """Mean cosine with the float embeddings; the share whose nearest other sentence is the same."""
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    found, wide = unit(found), unit(wide)
    nearest = [(x @ x.T - 2 * np.eye(len(x))).argmax(1) for x in (found, wide)]
    return float((found * wide).sum(1).mean()), 100 * float((nearest[0] == nearest[1]).mean())


# --- runtimes ---------------------------------------------------------------------------------------------------------


def _shapes(task: Task) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in task.test[0].items()}


def _session(file: Path) -> Run:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options)
    names = [item.name for item in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def runs(task: Task) -> Mapping[str, Callable[[Inputs], Mapping[str, np.ndarray]]]:
    """FP32 and the three INT8 forms, made anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    qdq, ir = FOLDER / f"accuracy-{task.name}.onnx", FOLDER / f"accuracy-{task.name}.xml"
    int8_zoo.onnxruntime_form(task.model, qdq, "QDQ", task.calibration, PRODUCTS if task.transformer else ())
    int8_zoo.openvino_form(task.model, ir, _shapes(task), task.calibration, task.transformer)
    compiled = ov.Core().compile_model(str(ir), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    engine = redline.build(
        str(task.model), shapes=_shapes(task), output=FOLDER / f"{task.name}.engine", precision="int8",
        calibrate=task.calibration, opt_level=0,
    )  # fmt: skip
    openvino = lambda feed: {task.output: compiled(feed)[task.output]}  # noqa: E731
    return {"fp32": _session(task.model), "redline": engine.run, "onnxruntime": _session(qdq), "openvino": openvino}


def measure(task: Task) -> list[str]:
    """Rows of the task: FP32's scores, and for each runtime its scores; drops where the score is an accuracy."""
    found = {}
    for name, run in runs(task).items():
        found[name] = np.concatenate([np.array(run(feed)[task.output]) for feed in task.test])
    rows = []
    for i, column in enumerate(task.columns):
        scores = {name: task.score(array, found["fp32"])[i] for name, array in found.items()}
        cells = [f"{scores['fp32']:.4f}", *(_cell(scores, name, column) for name in NAMES)]
        rows.append(f"| {task.name}: {column}, {len(task.test)} samples | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows + (_changed(task, found) if "accuracy" in task.columns else [])


def _cell(scores: Mapping[str, float], name: str, column: str) -> str:
    if column != "accuracy":
        return f"{scores[name]:.4f}"
    return f"{scores[name]:.2f} (drop {scores['fp32'] - scores[name]:.2f})"


def _changed(task: Task, found: Mapping[str, np.ndarray]) -> list[str]:
    """How many answers differ from FP32's, and how far the outputs are from its: what chance has no part in."""
    wide = found["fp32"]
    differ = {name: int((found[name].argmax(1) != wide.argmax(1)).sum()) for name in NAMES}
    error = {name: np.linalg.norm(found[name] - wide) / np.linalg.norm(wide) for name in NAMES}
    return [
        f"| {task.name}: answers that differ from FP32's | 0 | {' | '.join(str(differ[name]) for name in NAMES)} |",
        f"| {task.name}: relative L2 error of the outputs | 0 | {' | '.join(f'{error[name]:.2%}' for name in NAMES)} |",
    ]


TASKS = {"digits": digits, "text": text, "minilm": minilm}


def main(names: Sequence[str], output: str) -> None:
    lines = [
        HEAD.format(
            command="python bench/int8_accuracy.py", day=date.today(), machine=hardware.machine(),
            versions=hardware.versions("onnxruntime", "openvino", "nncf"),
        ),
        "| task | FP32 | Redline INT8 | ONNX Runtime INT8 | OpenVINO INT8 |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name in names:
        lines += measure(TASKS[name]())
    if output:
        Path(output).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--output", default=str(zoo.ROOT / "docs" / "int8-accuracy.md"))
    parsed = parser.parse_args()
    main(parsed.tasks, parsed.output)
