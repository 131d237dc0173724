"""A QuantizeLinear whose input is known to be small may round first and cut afterwards, in integers, where that is free.

    Q(x, 1, z) -> Q(x, 1, z) with ``bounded`` = 1, where |x| < 2^22 whatever the model is given

The bound follows from the weights: sums of bytes times constants. A processor's conversion of floats rounds what lies
beyond int32 to the wrong side, so without such a bound the cut comes first.
"""

import numpy as np

from redline.base import dtypes
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make_node
from redline.passes.algebra import operands
from redline.passes.quantized import quantized

LIMIT = float(1 << 22)  # below it the addition that rounds (rl_rint32 in kernels/prelude.h) is exact, too
MAX_DEPTH = 12
PRODUCTS = frozenset({"ConvInteger", "MatMulInteger"})
LARGEST = {dtypes.uint8: 255.0, dtypes.int8: 128.0}


def run(graph: Graph) -> Graph:
    return rewrite(graph, [Rule("bounded", frozenset({"QuantizeLinear"}), _bounded)])[0]


def _bounded(node: Node, rewriter: Rewriter) -> Value | None:
    found = quantized(node.out)
    if found is None or not found.is_per_tensor or found.scale != 1 or "bounded" in node.attrs:
        return None
    if node.out.dtype != dtypes.uint8 or bound(found.x) >= LIMIT:
        return None
    return make_node("QuantizeLinear", node.inputs, {**node.attrs, "bounded": 1}, name=node.name, origin=node.origin).out


def bound(value: Value, depth: int = 0) -> float:
    """A number that no element's size exceeds; infinity where none is known. A finite one excludes NaN."""
    if value.array is not None:
        return _largest(value.array)
    if value.dtype in LARGEST:
        return LARGEST[value.dtype]
    if depth == MAX_DEPTH:
        return np.inf
    if value.op in PRODUCTS and len(value.node.inputs) == 2:
        return _of_product(value)
    if value.op not in ("Cast", "Relu", "Mul", "Add", "Sub", "Reshape", "Transpose"):
        return np.inf
    inputs = operands(value)[:1] if value.op in ("Reshape", "Transpose") else operands(value)
    sizes = [bound(v, depth + 1) for v in inputs]
    if value.op == "Mul":
        return sizes[0] * sizes[1] if np.inf not in sizes else np.inf
    return sum(sizes)


def _of_product(value: Value) -> float:
    x, w = operands(value)
    if w.array is None or x.dtype not in LARGEST or w.array.ndim < 2:
        return np.inf
    summed = tuple(range(1, w.array.ndim)) if value.op == "ConvInteger" else (w.array.ndim - 2,)
    return LARGEST[x.dtype] * float(np.abs(w.array.astype(np.int64)).sum(summed).max(initial=0))


def _largest(array: np.ndarray) -> float:
    size = float(np.abs(array.astype(np.float64)).max(initial=0)) if array.dtype != np.bool_ else 1.0
    return size if np.isfinite(size) else np.inf
