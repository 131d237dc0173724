"""Kernels of images know one order, [N, spatial..., C]; tensors in ONNX's order reach them as transposed views."""

from redline.kernels.expr import Expr, coordinates
from redline.lower import views
from redline.lower.program import View
from redline.ops import Op
from redline.ops.layout import is_channels_last


def channels_last(op: Op, view: View) -> View:
    """A data input or result of ``op`` as [N, spatial..., C]."""
    rank = len(view.shape)
    return view if is_channels_last(op) else views.transpose(view, (0, *range(2, rank), 1))


def graph_coordinates(op: Op, rank: int) -> tuple[Expr, ...]:
    """The coordinates of ``op``'s own result in terms of those of its kernel."""
    kernel = coordinates(rank)
    return kernel if is_channels_last(op) else (kernel[0], kernel[-1], *kernel[1:-1])
