"""The accuracy of a digits engine on the bundled test images, beside that of ONNX Runtime on the model it was made from.

python models/accuracy.py models/digits.engine
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

import redline

FOLDER = Path(__file__).resolve().parent


def main(engine_file: str) -> None:
    with np.load(FOLDER / "digits_test.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    engine = redline.load(engine_file)
    session = onnxruntime.InferenceSession(FOLDER / "digits.onnx", providers=["CPUExecutionProvider"])
    ours = np.concatenate([engine(image=image[None])["logits"] for image in images])
    theirs = session.run(["logits"], {"image": images})[0]
    for name, logits in {"Redline": ours, "ONNX Runtime": theirs}.items():
        print(f"{name:13} {np.mean(logits.argmax(1) == labels):.2%} of {len(labels)} test images right")
    print(f"largest difference of a logit: {np.abs(ours - theirs).max():.1e} (logits reach {np.abs(theirs).max():.0f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
