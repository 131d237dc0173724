"""One engine for all image sizes (or batches) against an engine made for each: time, and answers compared with ONNX Runtime's.

The open engine is built once, the others once a size; they stay in .cache/engines. The two take turns in short blocks, and the
ratio is that of their medians. Answers are compared at --checks random shapes of the range.

    python bench/images_static.py --build              builds the engines and measures nothing
    python bench/images_static.py                      YOLOv5s from 320 to 1280
    python bench/images_static.py --model resnet50 --sizes 1 4 16
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hardware
import numpy as np
import onnx
import onnxruntime
import zoo
import zoo_detector
from shapes_static import compare, error

import redline
from redline.base.shapes import ShapeRange

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"
RANGES = {
    "yolov5s": ShapeRange((1, 3, 320, 320), (1, 3, 640, 640), (1, 3, 1280, 1280), (1, 1, 32, 32)),
    "resnet50": ShapeRange((1, 3, 224, 224), (4, 3, 224, 224), (16, 3, 224, 224)),
    "mobilenetv2": ShapeRange((1, 3, 224, 224), (4, 3, 224, 224), (16, 3, 224, 224)),
}
SIZES = {
    "yolov5s": ("320x320", "640x640", "480x800", "960x1280"),
    "resnet50": ("1", "4", "16"),
    "mobilenetv2": ("1", "4", "16"),
}
Shape = tuple[int, int, int, int]


def shape_of(text: str) -> Shape:
    """``480x800``: one image of that size; ``4``: four of 224 x 224."""
    numbers = [int(number) for number in text.split("x")]
    return (1, 3, numbers[0], numbers[1]) if len(numbers) == 2 else (numbers[0], 3, 224, 224)


def random_shape(span: ShapeRange, rng: np.random.Generator) -> tuple[int, ...]:
    steps = span.step or (1,) * len(span.min)
    return tuple(
        int(step * rng.integers(low // step, high // step + 1))
        for low, high, step in zip(span.min, span.max, steps, strict=True)
    )


def model_bytes(name: str) -> bytes:
    return zoo_detector.dynamic().SerializeToString() if name == "yolov5s" else onnx.load(zoo.path(name)).SerializeToString()


def engine(path: Path, model: bytes, shape: object, level: int) -> Any:
    """The engine at ``path``, built now if it is not there."""
    if not path.exists():
        redline.build(model, shapes={"image": shape}, output=path, opt_level=level).close()
    return redline.load(path)


def check(opened: Any, model: bytes, span: ShapeRange, count: int) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(count):
        images = zoo.images(rng, random_shape(span, rng))
        worst = max(worst, error(opened.run({"image": images}), session.run(None, {"image": images})))
    print(f"\nlargest relative error at {count} random shapes: {worst:.1e}")


def main(options: argparse.Namespace) -> None:
    name, level = options.model, options.opt_level
    FOLDER.mkdir(parents=True, exist_ok=True)
    model, span = model_bytes(name), RANGES[name]
    opened = engine(FOLDER / f"{name}_open{level}.engine", model, span, level)
    sizes: Sequence[str] = options.sizes or SIZES[name]
    fixed = {s: engine(FOLDER / f"{name}_{s}_{level}.engine", model, shape_of(s), level) for s in sizes}
    if options.build:
        return
    print(f"{zoo.MODELS[name].title}, one engine for {span}\n{hardware.machine()}\n{hardware.versions('onnxruntime')}\n")
    print("| images | open (ms) | made for the shape (ms) | ratio |\n|---|---|---|---|")
    ratios = []
    for size, its in fixed.items():
        feed = {"image": zoo.images(np.random.default_rng(1), shape_of(size))}
        times = compare([lambda f=feed: opened.run(f), lambda f=feed, e=its: e.run(f)])
        ratios.append(times[0] / times[1])
        print(f"| {size} | {1e3 * times[0]:.2f} | {1e3 * times[1]:.2f} | {ratios[-1]:.3f} |", flush=True)
    print(f"\nratio: median {statistics.median(ratios):.3f}, worst {max(ratios):.3f}")
    check(opened, model, span, options.checks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="yolov5s", choices=sorted(RANGES))
    parser.add_argument("--sizes", nargs="*", help="480x800 is one image, 4 is four of 224 x 224")
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--checks", type=int, default=10)
    parser.add_argument("--build", action="store_true", help="build the engines only")
    main(parser.parse_args())
