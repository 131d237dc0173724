"""Sliding windows of convolutions and pools: every way to write their padding settled to explicit numbers."""

from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import StaticShape
from redline.ops.layout import split_shape
from redline.ops.registry import Op

_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "DeformConv": 1, "QLinearConv": 3}  # the input that holds them


@dataclass(frozen=True)
class Window:
    """One number a spatial axis in each field.

    With ``ceil_mode`` the last windows may reach beyond ``pads_end``: what lies there is outside the tensor and counts
    nowhere. For ConvTranspose the window slides over the output; ``pads_*`` are what is cut off its borders.
    """

    kernel: StaticShape
    strides: StaticShape
    dilations: StaticShape
    pads_begin: StaticShape
    pads_end: StaticShape
    output: StaticShape

    @property
    def extents(self) -> StaticShape:
        """Elements that a window spans, the gaps of its dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def explicit_window(op: Op) -> Window:
    """The window of a Conv, ConvTranspose, ConvInteger, QLinearConv or pool node. Raises ModelError where it cannot slide."""
    size = shapes.static(split_shape(op)[2], op.label)
    kernel = _kernel(op, len(size))
    strides, dilations = _numbers(op, "strides", len(size), 1), _numbers(op, "dilations", len(size), 1)
    if op.name == "ConvTranspose":
        return _transposed(op, size, kernel, strides, dilations)
    axes = [
        _axis(op, n, k, s, d, b, e)
        for n, k, s, d, (b, e) in zip(size, kernel, strides, dilations, _pads(op, len(size)), strict=True)
    ]
    begin, end, output = zip(*axes, strict=True) if axes else ((), (), ())
    return Window(kernel, strides, dilations, begin, end, output)


def _kernel(op: Op, rank: int) -> StaticShape:
    weights = op.shape(_WEIGHTS[op.name])[2:] if op.name in _WEIGHTS else None
    if op.attr("kernel_shape") is None and weights is not None:
        kernel: StaticShape = weights
    else:
        kernel = _numbers(op, "kernel_shape", rank, 1)
    if len(kernel) != rank or (weights is not None and kernel != weights):
        seen = f"a kernel of shape {kernel} over {rank} spatial axes"
        raise ModelError(op.label, seen, f"weights of shape {weights}" if weights is not None else "one extent an axis")
    return kernel


def _numbers(op: Op, name: str, rank: int, default: int, low: int = 1) -> StaticShape:
    values = tuple(int(v) for v in op.attr(name) or (default,) * rank)
    if len(values) != rank or any(v < low for v in values):
        raise ModelError(op.label, f"{name} {values}", f"allowed: {rank} numbers from {low}")
    return values


def _pads(op: Op, rank: int) -> list[tuple[int, int]]:
    pads = _numbers(op, "pads", 2 * rank, 0, low=0)
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _auto_pad(op: Op) -> str:
    mode = op.attr("auto_pad", "NOTSET") or "NOTSET"
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ModelError(op.label, f"auto_pad {mode!r}", "allowed: NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    return mode


def _axis(op: Op, size: int, kernel: int, stride: int, dilation: int, begin: int, end: int) -> tuple[int, int, int]:
    """Padding before and after, and the number of windows, along one axis."""
    extent, mode = (kernel - 1) * dilation + 1, _auto_pad(op)
    if mode.startswith("SAME"):
        output = -(-size // stride)
        total = max((output - 1) * stride + extent - size, 0)
        less, more = total // 2, total - total // 2
        return (less, more, output) if mode == "SAME_UPPER" else (more, less, output)
    if mode == "VALID":
        begin = end = 0
    room = size + begin + end - extent
    if room < 0:
        raise ModelError(op.label, f"a window spanning {extent} elements", f"the padded input has {size + begin + end}")
    output = room // stride + 1
    if op.attr("ceil_mode", 0):
        output = -(-room // stride) + 1
        output -= (output - 1) * stride >= size + begin  # a window must not start beyond the input
    return begin, end, output


def _transposed(op: Op, size: StaticShape, kernel: StaticShape, strides: StaticShape, dilations: StaticShape) -> Window:
    rank, mode = len(size), _auto_pad(op)
    extra = _numbers(op, "output_padding", rank, 0, low=0)
    full = [s * (n - 1) + p + (k - 1) * d + 1 for n, k, s, d, p in zip(size, kernel, strides, dilations, extra, strict=True)]
    wanted = tuple(int(v) for v in op.attr("output_shape") or ())[-rank:] if rank else ()
    if mode.startswith("SAME") and not wanted:
        wanted = tuple(n * s for n, s in zip(size, strides, strict=True))
    if not wanted:
        pads = _pads(op, rank) if mode == "NOTSET" else [(0, 0)] * rank
        output = tuple(f - b - e for f, (b, e) in zip(full, pads, strict=True))
    else:
        output, pads = wanted, []
        for f, w in zip(full, wanted, strict=True):
            total = max(f - w, 0)
            pads.append((total // 2, total - total // 2) if mode == "SAME_UPPER" else (total - total // 2, total // 2))
    if any(extent < 0 for extent in output):
        raise ModelError(op.label, f"an output of spatial shape {output}", "pads cut off more than there is")
    return Window(kernel, strides, dilations, tuple(b for b, _ in pads), tuple(e for _, e in pads), output)


def patches(x: np.ndarray, window: Window, fill: float = 0) -> np.ndarray:
    """What every window sees of ``x`` [N, C, spatial...]: a view [N, C, output..., kernel...], ``fill`` outside ``x``."""
    rank = len(window.kernel)
    if 0 in window.output:
        return np.empty((*x.shape[:2], *window.output, *window.kernel), x.dtype)
    spans = [(o - 1) * s + e for o, s, e in zip(window.output, window.strides, window.extents, strict=True)]
    ends = [max(0, span - n - b) for span, n, b in zip(spans, x.shape[2:], window.pads_begin, strict=True)]
    padded = x
    if any(window.pads_begin) or any(ends):
        widths = [(0, 0), (0, 0), *zip(window.pads_begin, ends, strict=True)]
        padded = np.pad(x, widths, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, window.extents, tuple(range(2, 2 + rank)))
    starts = [slice(0, (o - 1) * s + 1, s) for o, s in zip(window.output, window.strides, strict=True)]
    return view[(slice(None), slice(None), *starts, *(slice(None, None, d) for d in window.dilations))]


def positions(window: Window, axis: int) -> np.ndarray:
    """The coordinates [output, kernel] in the input that the windows cover along spatial axis ``axis``."""
    starts = np.arange(window.output[axis]) * window.strides[axis] - window.pads_begin[axis]
    return starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
