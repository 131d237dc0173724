"""Convolutions and matrix products of dequantized tensors become products of their integers, or of their floats of 8 bits.

    sum (x - zx) sx * (w - zw) sw  =  sx sw * (sum x w - zx sum w - zw sum x + K zx zw)

The sum of x w is a ConvInteger or MatMulInteger of uint8 by int8, or of two float8, without zero points; everything else
is arithmetic behind it, which lowering puts into the kernel's epilogue, down to the QuantizeLinear that follows. Sums of
constants are taken now. The integers that stand for 0 pad a convolution (attribute ``pad_value``).
"""

from dataclasses import dataclass

import numpy as np

from redline.base import dtypes, shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import explicit_window, make, make_node
from redline.ops.layout import is_channels_last
from redline.ops.registry import lookup, view
from redline.ops.rules import cast
from redline.passes.propagate_quantization import SIGNED_TO_UNSIGNED, as_unsigned
from redline.passes.quantized import Quantized, constant_of, dequantized

BYTES = (dtypes.uint8, dtypes.int8, dtypes.float8_e4m3fn)
SIGNED = (-128, 127)


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


@dataclass(frozen=True)
class Factor:
    """One side of a product: (x - zero) * scale, x of 8 bits. ``scale`` and ``zero`` broadcast to the result's channels."""

    x: Value
    scale: np.ndarray
    zero: np.ndarray

    @property
    def has_zero(self) -> bool:
        return bool(np.any(self.zero))


def agree(x: Factor, w: Factor) -> bool:
    """Whether the numbers of both can be multiplied as they are: integers, or floats of 8 bits."""
    return x.x.dtype.is_float == w.x.dtype.is_float


def _activation(found: Quantized | None) -> Factor | None:
    if found is None or not found.is_per_tensor or found.x.dtype not in BYTES:
        return None
    return Factor(found.x, found.scale, found.zero)


def signed_weights(array: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers and the zero points that broadcast against them, as int8 and zero points: all 0 where int8 allows.

    Floats of 8 bits, whose zero points are 0, stay as they are.
    """
    if array.dtype == dtypes.float8_e4m3fn.numpy:
        return array, zero
    centred = array.astype(np.int64) - zero
    if centred.min(initial=0) >= SIGNED[0] and centred.max(initial=0) <= SIGNED[1]:
        return centred.astype(np.int8), np.zeros_like(zero)
    shift = SIGNED_TO_UNSIGNED if array.dtype == np.uint8 else 0
    return (array.astype(np.int64) - shift).astype(np.int8), zero - shift


def _weights(found: Quantized | None, axis: int) -> tuple[np.ndarray, Factor] | None:
    """Constant weights with one scale, or one an index of ``axis``: as int8, and as a factor whose vectors are [n]."""
    if found is None or found.x.array is None or found.x.dtype not in BYTES:
        return None
    if not found.is_per_tensor and found.axis != axis:
        return None
    array = found.x.array
    shape = [1] * array.ndim
    shape[axis] = -1
    zero = found.zero if found.is_per_tensor else found.zero.reshape(shape)
    signed, left = signed_weights(array, zero)
    left = np.asarray(left) if found.is_per_tensor else left.reshape(-1)
    return signed, Factor(constant(signed, found.x.node.name), found.scale, left)


# --- convolutions -----------------------------------------------------------------------------------------------------


def _conv(node: Node, rewriter: Rewriter) -> Value | None:
    """Conv(DQ(x), DQ(w), b) -> float(ConvInteger(x, w)) * s + (b - zx s sum w)"""
    x, found = _activation(dequantized(node.inputs[0])), _weights(dequantized(node.inputs[1]), 0)
    if x is None or found is None or not agree(x, found[1]):
        return None
    array, w = found
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    whole = None if x.x.dtype.is_float else _integer_bias(bias, x.scale * w.scale)
    addend = np.zeros(()) if bias is None or whole is not None else constant_of(bias)
    groups = int(node.attrs.get("group", 1))
    if addend is None or (w.has_zero and groups != 1):
        return None
    sums = array.astype(np.int64).reshape(array.shape[0], -1).sum(1)
    total, rest = _integer_conv(node, x, w, sums)
    rest = rest if whole is None else rest + whole
    if addend.size == 1 and not addend.any():
        return _finished_whole(total, rest, _product(x.scale, w.scale), node)
    return _finished((total, rest), _product(x.scale, w.scale), addend, node)


def _integer_bias(bias: Value | None, scale: np.ndarray) -> np.ndarray | None:
    """The integers of a bias that was quantized with the scale of the products."""
    found = None if bias is None else dequantized(bias)
    if found is None or found.x.array is None or found.zero.any():
        return None
    return found.x.array.astype(np.int64) if np.allclose(found.scale, scale, rtol=1e-5, atol=0) else None


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of two scales as runtimes compute it, in float32."""
    return (a.astype(np.float32) * b.astype(np.float32)).astype(np.float64)


def _finished_whole(total: Value, rest: np.ndarray, scale: np.ndarray, node: Node) -> Value:
    """float(total + rest) * scale: sums stay exact until the one multiplication."""
    if np.any(rest):
        total = make("Add", total, constant(_by_channel(np.asarray(rest), node).astype(np.int32)))
    factor = np.broadcast_to(scale, np.broadcast_shapes(np.shape(scale), np.shape(rest)))
    return make("Mul", cast(total, dtypes.float32), constant(_by_channel(factor, node).astype(np.float32)))


def _integer_conv(node: Node, x: Factor, w: Factor, sums: np.ndarray) -> tuple[Value, np.ndarray]:
    """The int32 sums, and what is still to be added to each channel of them, exactly."""
    attrs = {**node.attrs, "pad_value": int(x.zero)}
    total = make_node("ConvInteger", (x.x, w.x), attrs).out
    rest = -x.zero * sums
    if w.has_zero:  # sum x over each window, by filters of ones
        shape = shapes.static(w.x.shape)
        ones = constant(np.ones((1, *shape[1:]), np.int8))
        window = make_node("ConvInteger", (x.x, ones), attrs).out
        factor = constant(_by_channel(np.broadcast_to(-w.zero, sums.shape), node).astype(np.int32))
        total = make("Add", total, make("Mul", window, factor))
        count = shapes.size(shape[1:])
        rest = rest + count * x.zero * w.zero
    return total, rest


def _finished(parts: tuple[Value, np.ndarray], scale: np.ndarray, addend: np.ndarray, node: Node) -> Value:
    """float(total) * scale + (addend + rest * scale), the constants joined before they are rounded once."""
    total, rest = parts
    factor = np.broadcast_to(scale, np.broadcast_shapes(np.shape(scale), np.shape(rest), np.shape(addend)))
    product = make("Mul", cast(total, dtypes.float32), constant(_by_channel(factor, node).astype(np.float32)))
    shift = addend + rest * scale
    return make("Add", product, constant(_by_channel(np.broadcast_to(shift, factor.shape), node).astype(np.float32)))


def _by_channel(vector: np.ndarray, node: Node) -> np.ndarray:
    """[n] as it broadcasts along the channels of the node's result."""
    if vector.ndim == 0 or node.op in ("MatMul", "MatMulInteger") or is_channels_last(view(node)):
        return vector
    return vector.reshape(-1, *(1,) * (len(node.out.shape) - 2))


# --- matrix products --------------------------------------------------------------------------------------------------


def _matmul(node: Node, rewriter: Rewriter) -> Value | None:
    """MatMul(DQ(a), DQ(b)) -> float(MatMulInteger(a, b) - ...) * s"""
    a, b = _activation(dequantized(node.inputs[0])), dequantized(node.inputs[1])
    if a is None or b is None or len(b.x.shape) < 2 or len(a.x.shape) < 2:
        return None
    if b.x.array is None:
        return _product_of_activations(node, a, _activation(b))
    found = _weights(b, b.x.array.ndim - 1)
    if found is None or b.x.array.ndim != 2 or not agree(a, found[1]):
        return None
    array, w = found
    sums, k = array.astype(np.int64).sum(0), array.shape[0]
    total = make("MatMulInteger", a.x, w.x)
    rest = -a.zero * sums + k * a.zero * w.zero
    if w.has_zero:
        rows = make("MatMulInteger", a.x, constant(np.ones((k, 1), np.int8)))
        total = make("Add", total, make("Mul", rows, constant((-w.zero).astype(np.int32))))
    return _finished_whole(total, rest, _product(a.scale, w.scale), node)


def _product_of_activations(node: Node, a: Factor, b: Factor | None) -> Value | None:
    """Both sides come at run time: their sums are small products with ones."""
    b = None if b is None or not agree(a, b) else _as_signed(b)
    if b is None:
        return None
    k = int(a.x.shape[-1])  # type: ignore[arg-type]
    total = make("MatMulInteger", a.x, b.x)
    if a.has_zero:
        columns = make("MatMulInteger", constant(np.ones((1, k), np.uint8)), b.x)
        total = make("Add", total, make("Mul", columns, constant(np.asarray(-a.zero, np.int32))))
    if b.has_zero:
        rows = make("MatMulInteger", a.x, constant(np.ones((k, 1), np.int8)))
        total = make("Add", total, make("Mul", rows, constant(np.asarray(-b.zero, np.int32))))
    return _finished_whole(total, k * a.zero * b.zero, _product(a.scale, b.scale), node)


def _as_signed(b: Factor) -> Factor | None:
    """The right side of a product as int8, or as the float that it is."""
    if b.x.dtype in (dtypes.int8, dtypes.float8_e4m3fn):
        return b
    moved = _shifted_source(b.x)
    return None if moved is None else Factor(moved, b.scale, b.zero - SIGNED_TO_UNSIGNED)


def _shifted_source(value: Value) -> Value | None:
    """uint8 ``value`` less 128 as int8, made where it was quantized."""
    return as_unsigned(value, -SIGNED_TO_UNSIGNED)


# --- operators that are written with integers -------------------------------------------------------------------------


def _matmul_integer(node: Node, rewriter: Rewriter) -> Value | None:
    """MatMulInteger(a, b, za, zb) -> MatMulInteger(a, b) - za sum b - zb sum a + K za zb, for a constant b"""
    a, b, a_zero, b_zero = (*node.inputs, None, None)[:4]
    if a is None or b is None or b.array is None or b.array.ndim != 2 or (a_zero is None and b_zero is None):
        return None
    if (b_zero is not None and b_zero.array is None) or (a_zero is not None and a_zero.shape not in ((), (1,))):
        return None
    zero = np.zeros((), np.int64) if b_zero is None else b_zero.array.astype(np.int64)  # type: ignore[union-attr]
    zero = zero.reshape(()) if zero.size == 1 else zero
    signed, left = signed_weights(b.array, zero)
    k = b.array.shape[0]
    total = make("MatMulInteger", a, constant(signed))
    if np.any(left):
        rows = make("MatMulInteger", a, constant(np.ones((k, 1), np.int8)))
        total = make("Add", total, make("Mul", rows, constant((-left).astype(np.int32))))
    if a_zero is None:
        return total
    sums = (k * left - signed.astype(np.int64).sum(0)).astype(np.int32)
    return make("Add", total, make("Mul", cast(a_zero, dtypes.int32), constant(sums)))


def _conv_integer(node: Node, rewriter: Rewriter) -> Value | None:
    """ConvInteger(x, w, zx, zw) -> ConvInteger(x padded, w) - zx sum w, for constant weights and zero points of 0 besides"""
    x, w, x_zero, w_zero = (*node.inputs, None, None)[:4]
    if x is None or w is None or w.array is None or (x_zero is None and w_zero is None):
        return None
    if w_zero is not None and w_zero.array is None:
        return None
    shape = (-1, *(1,) * (w.array.ndim - 1))
    zero = np.zeros((), np.int64) if w_zero is None else w_zero.array.astype(np.int64)  # type: ignore[union-attr]
    signed, left = signed_weights(w.array, zero.reshape(()) if zero.size == 1 else zero.reshape(shape))
    if np.any(left):
        return None
    window = explicit_window(view(node))
    pads = window.pads_begin + window.pads_end
    attrs = {**node.attrs, "auto_pad": "NOTSET", "pads": pads}
    if x_zero is not None and x_zero.array is None and any(pads):
        x, attrs["pads"] = _padded(node, x, x_zero, pads), (0,) * len(pads)
    elif x_zero is not None and x_zero.array is not None:
        attrs["pad_value"] = int(x_zero.array.reshape(-1)[0])
    total = make_node("ConvInteger", (x, constant(signed)), attrs).out
    if x_zero is None:
        return total
    sums = -signed.astype(np.int64).reshape(signed.shape[0], -1).sum(1)
    point = make("Reshape", cast(x_zero, dtypes.int32), constant(np.zeros(0, np.int64)))
    return make("Add", total, make("Mul", point, constant(_by_channel(sums, node).astype(np.int32))))


def _padded(node: Node, x: Value, fill: Value, pads: tuple[int, ...]) -> Value:
    """x with ``fill``, known at run time only, around its spatial axes."""
    count = len(pads) // 2
    before, after = pads[:count], pads[count:]
    outer = ((0,), (0,)) if is_channels_last(view(node)) else ((0, 0), ())
    widths = (*outer[0], *before, *outer[1], *outer[0], *after, *outer[1])
    point = make("Reshape", fill, constant(np.zeros(0, np.int64)))
    return make("Pad", x, constant(np.array(widths, np.int64)), point)


def _with_zeros(node: Node, rewriter: Rewriter) -> Value | None:
    """Zero points that no rule above has settled: arithmetic of int32"""
    decompose = lookup(node.op).decompose
    if all(value is None for value in node.inputs[2:]) or decompose is None:
        return None
    result = decompose(view(node))
    assert isinstance(result, Value)
    return result


RULES = (
    Rule("conv", frozenset({"Conv"}), _conv),
    Rule("matmul", frozenset({"MatMul"}), _matmul),
    Rule("matmul_integer", frozenset({"MatMulInteger"}), _matmul_integer),
    Rule("conv_integer", frozenset({"ConvInteger"}), _conv_integer),
    Rule("with_zeros", frozenset({"MatMulInteger", "ConvInteger"}), _with_zeros),
)
