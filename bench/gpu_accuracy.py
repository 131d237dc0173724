"""What INT8 costs in accuracy on the GPU, on trained models: FP32 by ONNX Runtime beside FP16 and INT8 engines.

digits     the bundled network on 300 of its test images; the other 150 calibrate it
text       the transformer of models/train_text.py, where its folder is given

    python bench/gpu_accuracy.py [--text FOLDER]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from redline.builder.cuda import build_cuda  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402

BATCH = 50


def digits() -> tuple[str, Path, str, str, np.ndarray, np.ndarray, np.ndarray]:
    with np.load(ROOT / "models" / "digits_test.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    images = images.reshape(len(images), 1, 8, 8).astype(np.float32)
    return "digits", ROOT / "models" / "digits.onnx", "image", "logits", images[150:], labels[150:], images[:150]


def text(folder: Path) -> tuple[str, Path, str, str, np.ndarray, np.ndarray, np.ndarray]:
    with np.load(folder / "text.npz") as stored:
        return "text", folder / "text.onnx", "ids", "logits", stored["test"], stored["labels"], stored["calibration"]


def batches(data: np.ndarray) -> list[np.ndarray]:
    return [data[i : i + BATCH] for i in range(0, len(data) // BATCH * BATCH, BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path)
    args = parser.parse_args()
    print("| task | samples | FP32 (ONNX Runtime) | FP16 | INT8 | relative L2 of INT8 |")
    print("|---|---|---|---|---|---|")
    for name, model, into, out, test, labels, calibration in [digits(), *([text(args.text)] if args.text else [])]:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        parts = batches(test)
        labels = labels[: len(parts) * BATCH]
        wanted = np.concatenate([session.run([out], {into: part})[0] for part in parts])
        answers = {}
        for precision in ("fp16", "int8"):
            more = {"calibrate": [{into: part} for part in batches(calibration)]} if precision == "int8" else {}
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "model.engine"
                build_cuda(
                    str(model), output=path, shapes={into: (BATCH, *test.shape[1:])}, precision=precision, opt_level=1, **more
                )
                with load(path) as engine:
                    answers[precision] = np.concatenate([engine.run({into: part})[out] for part in parts])
        shares = [f"{100 * (found.argmax(1) == labels).mean():.2f} %" for found in (wanted, *answers.values())]
        error = np.linalg.norm(answers["int8"] - wanted) / np.linalg.norm(wanted)
        print("|", " | ".join((name, str(len(labels)), *shares, f"{error:.1e}")), "|", flush=True)


if __name__ == "__main__":
    main()
