"""Operators with kernel families of their own: each function turns a chain into a problem and emits its step."""

from collections.abc import Mapping

from redline.lower.anchors.matmul import matmul
from redline.lower.anchors.reduce import arg_extreme, reduce
from redline.lower.lowering import Anchor

ANCHORS: Mapping[str, Anchor] = {
    "ArgMax": arg_extreme,
    "ArgMin": arg_extreme,
    "MatMul": matmul,
    "ReduceMax": reduce,
    "ReduceMean": reduce,
    "ReduceMin": reduce,
    "ReduceProd": reduce,
    "ReduceSum": reduce,
}
