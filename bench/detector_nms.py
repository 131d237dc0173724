"""YOLOv5s with NonMaxSuppression at its end, one engine for all sizes from 320 to 1280: what it chooses, against ONNX Runtime.

Three comparisons at random sizes and thresholds: the boxes and scores of all candidates; the rows that the whole model chooses;
and those that ONNX Runtime's NonMaxSuppression chooses among the engine's own boxes and scores, which must be the same in the
same order. (The weights are random, so scores lie close together: where two differ by less than rounding, the whole models
may order or choose them differently.)

    python bench/detector_nms.py --count 10
"""

import argparse
from pathlib import Path

import hardware
import numpy as np
import onnx
import onnxruntime
import zoo
import zoo_detector
from images_static import RANGES, random_shape
from onnx import TensorProto, helper

import redline

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"
THRESHOLDS = (0.6, 0.7, 0.75)


def suppression_alone() -> bytes:
    """The model's NonMaxSuppression as a model."""
    whole = zoo_detector.suppressed().graph
    kept = [node for node in whole.node if node.op_type == "NonMaxSuppression"]
    constants = [tensor for tensor in whole.initializer if tensor.name in kept[0].input]
    kinds = (("nms/corners", ["n", "b", 4]), ("nms/scores", ["n", "c", "b"]), ("threshold", [1]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in kinds]
    outputs = [helper.make_tensor_value_info("chosen", TensorProto.INT64, ["K", 3])]
    graph = helper.make_graph(kept, "nms", inputs, outputs, constants)
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return model


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main(options: argparse.Namespace) -> None:
    model: onnx.ModelProto = zoo_detector.suppressed(expose=True)
    path = FOLDER / f"detector_nms{options.opt_level}_{options.precision}.engine"
    FOLDER.mkdir(parents=True, exist_ok=True)
    shapes = {"image": RANGES["yolov5s"], "threshold": (1,)}
    if options.fixed:
        shapes["image"] = RANGES["yolov5s"].opt
    level, precision = options.opt_level, options.precision
    engine = redline.build(model.SerializeToString(), shapes=shapes, output=path, opt_level=level, precision=precision)
    whole, alone = session(model.SerializeToString()), session(suppression_alone())
    print(f"{hardware.machine()}\n{hardware.versions('onnxruntime')}\n")
    print("| size | threshold | boxes off | scores off | chosen | by ONNX Runtime | in common | same of the engine's own |")
    print("|---|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for number in range(options.count):
        shape = shapes["image"] if options.fixed else random_shape(RANGES["yolov5s"], rng)
        threshold = THRESHOLDS[number % len(THRESHOLDS)]
        feed = {"image": zoo.images(rng, shape), "threshold": np.array([threshold], np.float32)}
        mine = engine.run(feed)
        its = dict(zip(mine, whole.run(None, feed), strict=True))
        off = [np.linalg.norm(mine[k] - its[k]) / np.linalg.norm(its[k]) for k in ("nms/corners", "nms/scores")]
        common = len(set(map(tuple, mine["chosen"])) & set(map(tuple, its["chosen"])))
        own = alone.run(None, {k: mine[k] for k in ("nms/corners", "nms/scores")} | {"threshold": feed["threshold"]})[0]
        counts = f"{len(mine['chosen'])} | {len(its['chosen'])} | {common} | {np.array_equal(mine['chosen'], own)}"
        print(f"| {shape[2]}x{shape[3]} | {threshold} | {off[0]:.1e} | {off[1]:.1e} | {counts} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--opt-level", type=int, default=0)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--fixed", action="store_true", help="an engine for one size")
    main(parser.parse_args())
