"""Convolutions and pools work on [N, spatial..., C], between Transposes that push_transposes then moves and cancels."""

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make_node
from redline.ops.layout import CHANNELS_LAST
from redline.ops.rules import reshaped, transposed
from redline.passes.algebra import operands

OPS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "Resize"})


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation from [N, C, spatial...] to [N, spatial..., C]."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation from [N, spatial..., C] to [N, C, spatial...]."""
    return (0, rank - 1, *range(1, rank - 1))


def _channels_last(node: Node, rewriter: Rewriter) -> Value | None:
    """Conv(x) -> Transpose(Conv_NHWC(Transpose(x)))"""
    x = operands(node.out)[0]
    rank = len(x.shape)
    if "layout" in node.attrs or rank < 3 or len(node.types) != 1:
        return None
    attrs = {**node.attrs, "layout": CHANNELS_LAST}
    new = make_node(node.op, (transposed(x, to_last(rank)), *node.inputs[1:]), attrs, num_outputs=1)
    return transposed(new.out, to_first(rank))


def _depth_to_space(node: Node, rewriter: Rewriter) -> Value:
    """DepthToSpace(x) -> Transpose(Reshape(Transpose(Reshape(Transpose(x))))), channels last in the middle"""
    x, size = operands(node.out)[0], int(node.attrs["blocksize"])
    n, c, h, w = shapes.static(x.shape)
    is_crd = node.attrs.get("mode", "DCR") == "CRD"
    split = (c // size**2, size, size) if is_crd else (size, size, c // size**2)
    perm = (0, 1, 4, 2, 5, 3) if is_crd else (0, 1, 3, 2, 4, 5)
    blocks = transposed(reshaped(transposed(x, to_last(4)), (n, h, w, *split)), perm)
    return transposed(reshaped(blocks, (n, h * size, w * size, c // size**2)), to_first(4))


def _space_to_depth(node: Node, rewriter: Rewriter) -> Value:
    """SpaceToDepth(x) -> the same the other way round"""
    x, size = operands(node.out)[0], int(node.attrs["blocksize"])
    n, c, h, w = shapes.static(x.shape)
    split = reshaped(transposed(x, to_last(4)), (n, h // size, size, w // size, size, c))
    perm = (0, 1, 3, 5, 2, 4) if node.attrs.get("mode", "DCR") == "CRD" else (0, 1, 3, 2, 4, 5)
    return transposed(reshaped(transposed(split, perm), (n, h // size, w // size, c * size**2)), to_first(4))


RULES = (
    Rule("channels_last", OPS, _channels_last),
    Rule("depth_to_space", frozenset({"DepthToSpace"}), _depth_to_space),
    Rule("space_to_depth", frozenset({"SpaceToDepth"}), _space_to_depth),
)
