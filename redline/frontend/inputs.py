"""The model's inputs: their declared shapes with symbols for open extents, fixed by the caller's shapes and frozen arrays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from redline.base import dtypes, shapes
from redline.base.errors import ModelError, RedlineError, UnsupportedError
from redline.base.shapes import Dim, Shape, StaticShape, Sym
from redline.frontend.tensors import element_type
from redline.ir import Node, TensorType, Value, constant, input_node

Frozen = np.ndarray | int | float  # what an input is for good; a number stands for all its elements


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it; ``shape`` is None where the model leaves even the rank open."""

    name: str
    dtype: dtypes.DType
    shape: Shape | None


@dataclass
class Binding:
    """What each symbol stands for, and which input said so."""

    extents: dict[Sym, tuple[int, str]] = field(default_factory=dict)

    def bind(self, declared: Declared, given: Sequence[int], source: str) -> None:
        """Fits ``given`` to the declared shape. Raises RedlineError where the two, or two inputs, disagree."""
        if declared.shape is None:
            return
        if len(given) != len(declared.shape):
            self._refuse(declared, given, source, f"rank {len(declared.shape)}")
        for axis, (dim, extent) in enumerate(zip(declared.shape, given, strict=True)):
            if isinstance(dim, Sym):
                self._bind_symbol(dim, extent, declared.name, source)
            elif dim != extent:
                self._refuse(declared, given, source, f"extent {dim} in axis {axis}")

    def _bind_symbol(self, symbol: Sym, extent: int, name: str, source: str) -> None:
        known, first = self.extents.setdefault(symbol, (extent, name))
        if known != extent:
            seen = f"dimension {symbol.name!r} is {known} by input {first!r} but {extent} by input {name!r}"
            raise RedlineError(source, seen, "inputs that share a dimension must agree", "change one of the two shapes")

    @staticmethod
    def _refuse(declared: Declared, given: Sequence[int], source: str, allowed: str) -> None:
        assert declared.shape is not None
        seen = f"input {declared.name!r} is {shapes.text(declared.shape)} in the model, given {shapes.text(tuple(given))}"
        raise RedlineError(source, seen, f"allowed: {allowed}")

    def resolve(self, shape: Shape) -> Shape:
        return tuple(self.extents[dim][0] if dim in self.extents else dim for dim in shape)  # type: ignore[index]


def bind_inputs(
    protos: Iterable[onnx.ValueInfoProto], shapes_: Mapping[str, StaticShape], freeze: Mapping[str, Frozen]
) -> tuple[dict[str, Value], tuple[Node, ...]]:
    """The value of every input by name, and the graph's input nodes (without the frozen ones, which became constants)."""
    declared = declare(protos)
    shapes.check_names(shapes_, declared, "--shapes")
    shapes.check_names(freeze, declared, "--freeze")
    binding = Binding()
    frozen = {name: _frozen(declared[name], given) for name, given in freeze.items()}
    for name, array in frozen.items():
        binding.bind(declared[name], array.shape, "--freeze")
    for name, shape in shapes_.items():
        binding.bind(declared[name], shape, "--shapes")
    values, nodes = {}, []
    for name, item in declared.items():
        if name in frozen:
            values[name] = constant(frozen[name], name)
            continue
        node = input_node(name, TensorType(item.dtype, _shape(item, shapes_, binding)))
        values[name] = node.out
        nodes.append(node)
    return values, tuple(nodes)


def _shape(item: Declared, shapes_: Mapping[str, StaticShape], binding: Binding) -> Shape:
    if item.name in shapes_:
        return tuple(shapes_[item.name])
    if item.shape is None:
        raise UnsupportedError(item.name, "the model does not say the rank of this input", "", "fix its shape with --shapes")
    return binding.resolve(item.shape)


def declare(protos: Iterable[onnx.ValueInfoProto]) -> dict[str, Declared]:
    declared: dict[str, Declared] = {}
    for proto in protos:
        if not proto.name or proto.name in declared:
            raise ModelError("model", f"two inputs are called {proto.name!r}" if proto.name else "an input has no name")
        declared[proto.name] = _declaration(proto)
    return declared


def _declaration(proto: onnx.ValueInfoProto) -> Declared:
    kind = proto.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(proto.name, f"an input of kind {kind}", "allowed: dense tensors")
    tensor = proto.type.tensor_type
    dtype = element_type(tensor.elem_type, proto.name)
    if not tensor.HasField("shape"):
        return Declared(proto.name, dtype, None)
    return Declared(proto.name, dtype, tuple(_dim(d, proto.name, axis) for axis, d in enumerate(tensor.shape.dim)))


def _dim(dim: onnx.TensorShapeProto.Dimension, name: str, axis: int) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    is_name = any(letter.isalpha() for letter in dim.dim_param)  # some exporters call all that they do not know "?"
    return Sym(dim.dim_param if is_name else f"{name}.{axis}")


def _frozen(declared: Declared, given: Frozen) -> np.ndarray:
    """What a frozen input holds: an array of its type, or a number in every element of an input whose shape is fixed."""
    if not isinstance(given, np.ndarray):
        return _filled(declared, given)
    dtype = dtypes.from_numpy(given.dtype)
    if dtype != declared.dtype:
        seen = f"input {declared.name!r} is {declared.dtype} in the model, the array is {dtype}"
        raise RedlineError("--freeze", seen, "", f"convert the array to {declared.dtype}")
    return given


def _filled(declared: Declared, number: int | float) -> np.ndarray:
    if declared.shape is None or not shapes.is_static(declared.shape):
        seen = f"input {declared.name!r} has open dimensions"
        raise RedlineError("--freeze", seen, "a number is for an input whose shape is fixed", "give an array (NAME=FILE.npy)")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            element = np.asarray(number).astype(declared.dtype.numpy)
    except OverflowError:  # an integer of more than 64 bits
        element = None
    if element is None or not (declared.dtype.is_float or element == number):
        raise RedlineError("--freeze", f"input {declared.name!r} is {declared.dtype}, which cannot hold {number}")
    return np.broadcast_to(element, shapes.static(declared.shape))
