"""YOLOv5s for images of any size, with and without NonMaxSuppression at its end, made from the zoo's export.

The export fixes the image at 640 x 640: its head reshapes to constants and adds constant grids. Here the head computes both
from the shapes of its maps, in the nodes that PyTorch's exporter writes for a model with dynamic axes (Shape, Gather,
Concat, Range, Expand). ``suppressed`` appends what users append: boxes as corners, scores (objectness times class),
NonMaxSuppression, and the chosen boxes, scores and classes by Gather.
"""

import numpy as np
import onnx
import zoo
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
VALUES = 85
ANCHORS = 3
node = helper.make_node


class _Writer:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, name: str, value: object, dtype: type = np.int64) -> str:
        if not any(tensor.name == name for tensor in self.tensors):
            self.tensors.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(node(op, inputs, [output], name=output, **attributes))
        return output


def dynamic() -> onnx.ModelProto:
    """[batch, 3, height, width] to boxes [batch, candidates, 85]; height and width are multiples of 32."""
    model = onnx.load(zoo.path("yolov5s"))
    graph = model.graph
    for axis, name in ((2, "height"), (3, "width")):
        graph.input[0].type.tensor_type.shape.dim[axis].Clear()
        graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    made = {n.output[0]: n for n in graph.node}
    nodes: list[onnx.NodeProto] = []
    for each in graph.node:
        level = _level(each)
        if level is not None and each.op_type == "Reshape":
            first = made[each.input[0]].op_type == "Conv"
            source = each.input[0] if first else f"head{level}/map"
            writer = _reshape(level, first, source)
            nodes += writer.nodes
            graph.initializer.extend(t for t in writer.tensors if t.name not in {i.name for i in graph.initializer})
            each.input[1] = f"head{level}/{'split' if first else 'join'}"
            if first:
                nodes.append(node("Identity", [each.input[0]], [f"head{level}/map"], name=f"head{level}/map"))
        elif level is not None and each.op_type == "Add":
            writer = _grid(level)
            nodes += writer.nodes
            graph.initializer.extend(t for t in writer.tensors if t.name not in {i.name for i in graph.initializer})
            each.input[1] = f"head{level}/grid"
        nodes.append(each)
    del graph.node[:]
    graph.node.extend(nodes)
    grids = [tensor for tensor in graph.initializer if ".grid" in tensor.name]
    for tensor in grids:
        graph.initializer.remove(tensor)
    del graph.value_info[:]
    graph.output[0].type.tensor_type.shape.dim[1].dim_param = "candidates"
    onnx.checker.check_model(model)
    return model


def _level(each: onnx.NodeProto) -> int | None:
    """The level of the head, in the order of the export, that a Reshape or the addition of a grid belongs to."""
    if not each.name.startswith("/model.24/") and not any(".grid" in name for name in each.input):
        return None
    if each.op_type == "Add":
        return next((int(name[-1]) for name in each.input if ".grid" in name), None)
    number = each.name.rpartition("Reshape")[2].lstrip("_")
    return int(number or 0) // 2 if each.op_type == "Reshape" else None


def _reshape(level: int, first: bool, source: str) -> _Writer:
    """The target shape of the level's first Reshape, [-1, 3, 85, height, width], or of its second, [-1, n, 85]."""
    w, here = _Writer(), f"head{level}"
    one, axis = w.constant("head/zero1", [0]), {"h": 2, "w": 3}
    minus, values, anchors = (
        w.constant(f"head/{n}", [v]) for n, v in (("minus", -1), ("values", VALUES), ("anchors", ANCHORS))
    )
    if first:
        shape = w.add("Shape", [source], f"{here}/shape")
        for name, at in axis.items():
            w.add("Gather", [shape, w.constant(f"head/at{at}", at)], f"{here}/{name}", axis=0)
            w.add("Unsqueeze", [f"{here}/{name}", one], f"{here}/{name}1")
        w.add("Concat", [minus, anchors, values, f"{here}/h1", f"{here}/w1"], f"{here}/split", axis=0)
        return w
    w.add("Mul", [f"{here}/h1", f"{here}/w1"], f"{here}/cells")
    w.add("Mul", [f"{here}/cells", anchors], f"{here}/boxes")
    w.add("Concat", [minus, f"{here}/boxes", values], f"{here}/join", axis=0)
    return w


def _grid(level: int) -> _Writer:
    """[1, 3, height, width, 2]: column - 0.5 and row - 0.5 of each cell."""
    w, here = _Writer(), f"head{level}"
    zero, one = w.constant("head/zero", 0), w.constant("head/one", 1)
    half = w.constant("head/half", 0.5, np.float32)
    single, anchors = (w.constant(f"head/{n}", [v]) for n, v in (("single", 1), ("anchors", ANCHORS)))
    shape = w.add("Concat", [single, anchors, f"{here}/h1", f"{here}/w1", single], f"{here}/cells_shape", axis=0)
    for name, form in (("w", [1, 1, 1, -1, 1]), ("h", [1, 1, -1, 1, 1])):
        steps = w.add("Range", [zero, f"{here}/{name}", one], f"{here}/range_{name}")
        numbers = w.add("Cast", [steps], f"{here}/numbers_{name}", to=TensorProto.FLOAT)
        centres = w.add("Sub", [numbers, half], f"{here}/centres_{name}")
        placed = w.add("Reshape", [centres, w.constant(f"head/form_{name}", form)], f"{here}/placed_{name}")
        w.add("Expand", [placed, shape], f"{here}/grid_{name}")
    w.add("Concat", [f"{here}/grid_w", f"{here}/grid_h"], f"{here}/grid", axis=4)
    return w


def suppressed(most: int = 100, overlap: float = 0.45, expose: bool = False) -> onnx.ModelProto:
    """``dynamic`` and NonMaxSuppression: outputs chosen [K, 3], and of each the box [K, 4] as y x y x and its score [K].

    The score that a box must exceed is the input ``threshold`` [1]. ``expose``: outputs all corners and scores as well.
    """
    model = dynamic()
    w = _Writer()
    w.constant("nms/overlap", [overlap], np.float32)
    w.constant("nms/half_size", 0.5, np.float32)
    for name, value in (("from", 0), ("xy", 2), ("wh", 4), ("object", 5), ("end", VALUES), ("last", 2), ("most", most)):
        w.constant(f"nms/{name}", [value])
    for part, begin, end in (
        ("centre", "from", "xy"),
        ("size", "xy", "wh"),
        ("sure", "wh", "object"),
        ("class", "object", "end"),
    ):
        w.add("Slice", ["boxes", f"nms/{begin}", f"nms/{end}", "nms/last"], f"nms/{part}")
    w.add("Mul", ["nms/size", "nms/half_size"], "nms/half")
    w.add("Sub", ["nms/centre", "nms/half"], "nms/low")
    w.add("Add", ["nms/centre", "nms/half"], "nms/high")
    for corner in ("low", "high"):  # x y to y x
        w.add("Gather", [f"nms/{corner}", w.constant("nms/turn", [1, 0])], f"nms/{corner}_yx", axis=2)
    w.add("Concat", ["nms/low_yx", "nms/high_yx"], "nms/corners", axis=2)
    w.add("Mul", ["nms/class", "nms/sure"], "nms/by_box")
    w.add("Transpose", ["nms/by_box"], "nms/scores", perm=[0, 2, 1])
    w.add("NonMaxSuppression", ["nms/corners", "nms/scores", "nms/most", "nms/overlap", "threshold"], "chosen")
    w.add("Gather", ["chosen", w.constant("nms/box_column", [0, 2])], "nms/where_box", axis=1)
    w.add("GatherND", ["nms/corners", "nms/where_box"], "chosen_boxes")
    w.add("GatherND", ["nms/scores", "chosen"], "chosen_scores")
    model.graph.node.extend(w.nodes)
    model.graph.initializer.extend(w.tensors)
    model.graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, [1]))
    del model.graph.output[:]
    kinds = (("chosen", TensorProto.INT64, ["K", 3]), ("chosen_boxes", TensorProto.FLOAT, ["K", 4]),
             ("chosen_scores", TensorProto.FLOAT, ["K"]))  # fmt: skip
    extra = (("nms/corners", TensorProto.FLOAT, ["batch", "B", 4]), ("nms/scores", TensorProto.FLOAT, ["batch", 80, "B"]))
    model.graph.output.extend(helper.make_tensor_value_info(*kind) for kind in (*kinds, *(extra if expose else ())))
    onnx.checker.check_model(model)
    return model
