"""The place where one ONNX node is being converted: makes graph nodes named after it, folding what is already known.

A node whose inputs are all constants becomes a constant at once, and so does the shape of a value whose shape is
known: the shapes, axes and sizes that operators need at build time are often computed in the model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline import ops
from redline.base import shapes
from redline.base.errors import ModelError, RedlineError, UnsupportedError
from redline.ir import Node, Value, constant

MAX_FOLDED_BYTES = 64 << 20
KEPT_WHOLE = frozenset({
    "DequantizeLinear",  # folded, it would hide that its weights are integers; the others may be much work
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "MaxPool", "AveragePool", "LpPool", "MatMul", "Gemm",
    "Einsum", "QLinearMatMul", "MatMulInteger", "LSTM", "GRU", "RNN", "Resize", "GridSample", "RoiAlign", "Attention",
    "NonMaxSuppression", "DFT", "STFT",
})  # fmt: skip
_MALFORMED = (ValueError, TypeError, IndexError, KeyError, ArithmeticError, AttributeError, AssertionError, MemoryError)


@dataclass(frozen=True)
class Call:
    """One operator application on its way to the newest opset."""

    op: str
    inputs: tuple[Value | None, ...]
    attrs: Mapping[str, Any]
    num_outputs: int
    opset: int

    def input(self, i: int) -> Value | None:
        return self.inputs[i] if i < len(self.inputs) else None


@dataclass(frozen=True)
class Site:
    """``label`` names the ONNX node in errors, in the names of graph nodes and in their provenance."""

    label: str

    def apply(self, call: Call) -> tuple[Value, ...]:
        """The outputs of ``call``, typed, folded where they can be. Raises ModelError where the inputs do not fit."""
        with self.guard(call):
            node = ops.make_node(
                call.op, call.inputs, call.attrs, num_outputs=call.num_outputs, name=self.label, origin=(self.label,)
            )
            if len(node.types) < call.num_outputs:
                raise ModelError(self.label, f"{call.op} with {call.num_outputs} outputs", f"it has {len(node.types)}")
            return self._folded(node) or node.outputs()

    @contextmanager
    def guard(self, call: Call) -> Iterator[None]:
        """What the rules of ``call`` raise over a model that contradicts itself, as a ModelError that says where."""
        try:
            yield
        except RedlineError as error:
            raise self._placed(error, call) from error
        except _MALFORMED as error:
            raise ModelError(self.label, f"{call.op} does not fit its inputs {self._types(call)}: {error}") from error

    def make(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """The first output of ``op``: for rules that write one node as several."""
        return self.apply(Call(op, inputs, attrs, 1, 0))[0]

    def _folded(self, node: Node) -> tuple[Value, ...] | None:
        arrays = [None if v is None else v.array for v in node.inputs]
        if node.op in ("Shape", "Size") and node.inputs[0] is not None and shapes.is_static(node.inputs[0].shape):
            arrays = [np.broadcast_to(np.zeros((), node.inputs[0].dtype.numpy), node.inputs[0].shape)]  # type: ignore[arg-type]
        known = all(a is not None or v is None for a, v in zip(arrays, node.inputs, strict=True))
        if not known or node.op in KEPT_WHOLE or not all(shapes.is_static(t.shape) for t in node.types):
            return None
        num_bytes = sum(shapes.size(shapes.static(t.shape)) * t.dtype.size for t in node.types)
        if num_bytes > max(MAX_FOLDED_BYTES, sum(a.nbytes for a in arrays if a is not None)):
            return None
        return tuple(constant(array, self.label) for array in ops.evaluate(node, arrays))

    def _placed(self, error: RedlineError, call: Call) -> RedlineError:
        """The same error saying where; one about an open dimension is a limit of Redline, else the model is at fault."""
        if isinstance(error, ModelError):
            kind: type[ModelError] = type(error)
        else:
            is_open = any(v is not None and not shapes.is_static(v.shape) for v in call.inputs)
            kind = UnsupportedError if is_open else ModelError
        seen = error.seen if call.op in error.seen or isinstance(error, ModelError) else f"{call.op}: {error.seen}"
        return kind(self.label, seen, error.allowed, error.remedy)

    @staticmethod
    def _types(call: Call) -> str:
        return f"({', '.join('-' if v is None else repr(v.type) for v in call.inputs)})"
