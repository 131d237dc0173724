"""Conv as a problem of the conv or depthwise family: channels last, whatever the order of the tensors in memory."""

from redline.kernels.conv.problem import Problem
from redline.kernels.depthwise.problem import Problem as DepthwiseProblem
from redline.kernels.expr import Acc, call, index
from redline.kernels.tile import accumulator
from redline.lower.anchors.layout import channels_last, graph_coordinates
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.window import explicit_window


def conv(lowering: Lowering, chain: Chain) -> None:
    """X, W and an optional bias B, which joins the epilogue."""
    op = registry.view(chain.anchor)
    x, filters, groups = channels_last(op, lowering.operand(op.value(0))), op.value(1), int(op.attr("group", 1))
    is_depthwise = groups == x.shape[-1] == filters.shape[0] and filters.shape[1] == 1 and groups > 1
    stays = is_depthwise and lowering.wide_taps and filters.array is not None
    w, rank = lowering.memory(filters) if stays else lowering.operand(filters), len(x.shape)
    reads = Reads([x, w])
    acc = Acc(accumulator(w.dtype if stays else x.dtype))
    start = call("add", acc, lowering.element(op.value(2), (index(rank - 1),), reads)) if op.has(2) else acc
    epilogue = lowering.epilogue(chain, start, reads, graph_coordinates(op, rank))
    out = channels_last(op, lowering.result(chain.last.out))
    window = explicit_window(op)
    geometry = (window.strides, window.dilations, window.pads_begin + window.pads_end)
    family, make = ("depthwise", DepthwiseProblem) if is_depthwise else ("conv", Problem)
    first, second, *extra = reads.operands
    problem = make(first, second, out.operand, epilogue, tuple(extra), *geometry, groups, int(op.attr("pad_value", 0)))
    lowering.emit(family, problem, reads.views, [out], chain)
