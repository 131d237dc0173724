"""RNN, GRU and LSTM, unrolled over a sequence of known length.

The products with the inputs do not wait for the previous step, so they are one MatMul over the whole sequence; each
step then costs one product with the state. Half precision is computed in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError, UnsupportedError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value, constant
from redline.ops.by_parts import by_parts
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, choice, ints, reshaped, scalar, transposed

_X, _W, _R, _B, _LENGTHS, _H, _C, _P = range(8)
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_DEFAULTS = {  # alpha and beta of the activations that take them
    "Affine": (1.0, 0.0), "LeakyRelu": (0.01, 0.0), "ThresholdedRelu": (1.0, 0.0), "ScaledTanh": (1.0, 1.0),
    "HardSigmoid": (0.2, 0.5), "Elu": (1.0, 0.0),
}  # fmt: skip
_TAKES_BETA = frozenset({"Affine", "ScaledTanh", "HardSigmoid"})

Activation = Callable[[Value], Value]


@dataclass(frozen=True)
class _Cell:
    """One direction of the network: weights transposed, the steps in the order they are taken."""

    op: Op
    state: Value  # R, [H, gates * H]
    bias: Value | None  # of the state's products, where it cannot be added beforehand: [gates * H]
    peepholes: tuple[Value, ...]  # LSTM: those of the input, output and forget gates, [H] each
    activations: tuple[Activation, ...]

    def gates(self, value: Value, count: int) -> list[Value]:
        """The last axis in ``count`` equal parts."""
        size = shapes.static(value.shape[-1:])[0] // count
        return [_slice(value, -1, i * size, (i + 1) * size) for i in range(count)]

    def held(self, value: Value) -> Value:
        """Within +-``clip``, where the node has it."""
        limit = self.op.attr("clip")
        if limit is None:
            return value
        return make("Clip", value, scalar(-limit, value.dtype), scalar(limit, value.dtype))

    def activate(self, i: int, value: Value) -> Value:
        return self.activations[i](self.held(value))


def _slice(value: Value, axis: int, start: int, end: int) -> Value:
    return make("Slice", value, ints([start]), ints([end]), ints([axis]))


def _activation(name: str, alpha: float, beta: float) -> Activation:
    """The activation function called ``name``, as graph operators."""

    def scaled(x: Value) -> Value:
        return make("Mul", x, scalar(alpha, x.dtype))

    if name == "Affine":
        return lambda x: make("Add", scaled(x), scalar(beta, x.dtype))
    if name == "ScaledTanh":
        return lambda x: make("Mul", make("Tanh", make("Mul", x, scalar(beta, x.dtype))), scalar(alpha, x.dtype))
    if name == "HardSigmoid":
        return lambda x: make(name, x, alpha=alpha, beta=beta)
    if name in _DEFAULTS:
        return lambda x: make(name, x, alpha=alpha)
    return lambda x: make(name, x)


def _activations(op: Op) -> list[Activation]:
    """All directions' activations in order. The lists of alphas and betas serve only those that take them."""
    known = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softsign": "Softsign", "softplus": "Softplus"}
    known |= {name.lower(): name for name in _DEFAULTS}
    default = _ACTIVATIONS[op.name] * _directions(op)
    names = tuple(op.attr("activations") or default)
    alphas, betas = list(op.attr("activation_alpha") or ()), list(op.attr("activation_beta") or ())
    found = []
    for given in names:
        if given.lower() not in known or len(names) != len(default):
            raise ModelError(op.label, f"activations {', '.join(names)}", f"{len(default)} of {', '.join(known.values())}")
        name = known[given.lower()]
        alpha, beta = _DEFAULTS.get(name, (0.0, 0.0))
        if name in _DEFAULTS and alphas:
            alpha = alphas.pop(0)
        if name in _TAKES_BETA and betas:
            beta = betas.pop(0)
        found.append(_activation(name, alpha, beta))
    return found


def _directions(op: Op) -> int:
    return 2 if choice(op, "direction", "forward", ("forward", "reverse", "bidirectional")) == "bidirectional" else 1


def _is_batch_first(op: Op) -> bool:
    return bool(op.attr("layout", 0))


def _infer(op: Op) -> list[TensorType]:
    x, w, r = op.type(_X), op.shape(_W), op.shape(_R)
    directions, gates = _directions(op), _GATES[op.name]
    hidden = r[-1] if r else 0
    if len(x.shape) != 3 or w != (directions, gates * hidden, x.shape[2]) or r != (directions, gates * hidden, hidden):
        seen = f"data {shapes.text(x.shape)}, weights {shapes.text(w)}, recurrent weights {shapes.text(r)}"
        raise ModelError(op.label, seen, f"allowed: [S, B, I], [{directions}, {gates}H, I] and [{directions}, {gates}H, H]")
    _activations(op)
    length, batch = (x.shape[1], x.shape[0]) if _is_batch_first(op) else x.shape[:2]
    every: Shape = (length, directions, batch, hidden)
    last: Shape = (directions, batch, hidden)
    if _is_batch_first(op):
        every, last = (batch, length, directions, hidden), (batch, directions, hidden)
    return [TensorType(x.dtype, every), *[TensorType(x.dtype, last)] * (2 if op.name == "LSTM" else 1)]


def _dtype(op: Op) -> dtypes.DType:
    return dtypes.float32 if op.type(_X).dtype in HALF else op.type(_X).dtype


def _input(op: Op, i: int, direction: int) -> Value | None:
    """One direction of input ``i``, in the working type."""
    if not op.has(i):
        return None
    return make("Squeeze", _slice(cast(op.value(i), _dtype(op)), 0, direction, direction + 1), ints([0]))


def _needed(op: Op, i: int, direction: int) -> Value:
    value = _input(op, i, direction)
    if value is None:
        raise ModelError(op.label, f"{op.name} lacks input {i}")
    return value


def _initial(op: Op, i: int, direction: int, shape: Shape) -> Value:
    """The state before the first step: given, or zeros."""
    if not op.has(i):
        return constant(np.zeros(shapes.static(shape, op.label), _dtype(op).numpy))
    state = cast(op.value(i), _dtype(op))
    state = transposed(state, (1, 0, 2)) if _is_batch_first(op) else state
    return make("Squeeze", _slice(state, 0, direction, direction + 1), ints([0]))


def _biases(op: Op, direction: int) -> tuple[Value | None, Value | None]:
    """What is added to the inputs' products beforehand, and to the state's at every step (GRU, linear before reset)."""
    both = _input(op, _B, direction)
    if both is None:
        return None, None
    size = shapes.static(both.shape)[0] // 2
    first, second = _slice(both, 0, 0, size), _slice(both, 0, size, 2 * size)
    if op.name == "GRU" and op.attr("linear_before_reset", 0):
        return first, second
    return make("Add", first, second), None


def _rnn_step(cell: _Cell, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
    return cell.activate(0, make("Add", x, make("MatMul", h, cell.state))), c


def _gru_step(cell: _Cell, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
    """Gates: update z, reset r, hidden. H = (1 - z) * candidate + z * H."""
    xz, xr, xh = cell.gates(x, 3)
    size = shapes.static(h.shape[-1:])[0]
    if cell.op.attr("linear_before_reset", 0):
        product = make("MatMul", h, cell.state)
        product = product if cell.bias is None else make("Add", product, cell.bias)
        hz, hr, hh = cell.gates(product, 3)
        z, r = cell.activate(0, make("Add", xz, hz)), cell.activate(0, make("Add", xr, hr))
        candidate = make("Add", xh, make("Mul", r, hh))
    else:
        hz, hr = cell.gates(make("MatMul", h, _slice(cell.state, 1, 0, 2 * size)), 2)
        z, r = cell.activate(0, make("Add", xz, hz)), cell.activate(0, make("Add", xr, hr))
        candidate = make("Add", xh, make("MatMul", make("Mul", r, h), _slice(cell.state, 1, 2 * size, 3 * size)))
    candidate = cell.activate(1, candidate)
    return make("Add", candidate, make("Mul", z, make("Sub", h, candidate))), c


def _lstm_step(cell: _Cell, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
    """Gates: input, output, forget, cell. C = forget * C + input * candidate, H = output * h(C)."""
    i, o, f, candidate = cell.gates(make("Add", x, make("MatMul", h, cell.state)), 4)

    def with_peephole(gate: Value, number: int, state: Value) -> Value:
        return make("Add", gate, make("Mul", cell.peepholes[number], state)) if cell.peepholes else gate

    i = cell.activate(0, with_peephole(i, 0, c))
    coupled = bool(cell.op.attr("input_forget", 0))
    f = make("Sub", scalar(1, i.dtype), i) if coupled else cell.activate(0, with_peephole(f, 2, c))
    c = make("Add", make("Mul", f, c), make("Mul", i, cell.activate(1, candidate)))
    o = cell.activate(0, with_peephole(o, 1, c))
    return make("Mul", o, cell.activations[2](c)), c


_STEPS = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def _direction(op: Op, x: Value, direction: int) -> tuple[list[Value], Value, Value]:
    """The states after every step in the sequence's own order, and the last ones."""
    length, batch = shapes.static(x.shape[:2], op.label)
    hidden = op.shape(_R)[-1]
    before, at_step = _biases(op, direction)
    projected = make("MatMul", x, transposed(_needed(op, _W, direction), (1, 0)))
    projected = projected if before is None else make("Add", projected, before)
    peepholes = _input(op, _P, direction)
    count = len(_ACTIVATIONS[op.name])
    cell = _Cell(
        op, transposed(_needed(op, _R, direction), (1, 0)), at_step,
        () if peepholes is None else tuple(_slice(peepholes, 0, i * hidden, (i + 1) * hidden) for i in range(3)),
        tuple(_activations(op)[direction * count : (direction + 1) * count]),
    )  # fmt: skip
    h = _initial(op, _H, direction, (batch, hidden))
    c = _initial(op, _C, direction, (batch, hidden)) if op.name == "LSTM" else h
    outputs: dict[int, Value] = {}
    is_reverse = direction == 1 or op.attr("direction", "forward") == "reverse"
    for t in reversed(range(length)) if is_reverse else range(length):
        step = reshaped(_slice(projected, 0, t, t + 1), (batch, _GATES[op.name] * hidden))
        new_h, new_c = _STEPS[op.name](cell, step, h, c)
        outputs[t], h, c = _within_length(op, t, (new_h, h), (new_c, c))
    return [outputs[t] for t in range(length)], h, c


def _within_length(op: Op, t: int, h: tuple[Value, Value], c: tuple[Value, Value]) -> tuple[Value, Value, Value]:
    """Step ``t``'s output and states, each (new, old): beyond a sequence's end the output is 0 and the states stay."""
    if not op.has(_LENGTHS):
        return h[0], h[0], c[0]
    runs = make("Greater", make("Unsqueeze", op.value(_LENGTHS), ints([1])), scalar(t, dtypes.int32))
    kept = [make("Where", runs, new, old) for new, old in (h, c)]
    return make("Where", runs, h[0], scalar(0, h[0].dtype)), kept[0], kept[1]


def _stack(values: list[Value], axis: int) -> Value:
    return make("Concat", *(make("Unsqueeze", v, ints([axis])) for v in values), axis=axis)


def _decompose(op: Op) -> tuple[Value, ...]:
    x = cast(op.value(_X), _dtype(op))
    x = transposed(x, (1, 0, 2)) if _is_batch_first(op) else x
    if 0 in x.shape:
        raise UnsupportedError(op.label, f"{op.name} over {shapes.text(x.shape)}", "allowed: sequences that are not empty")
    parts = [_direction(op, x, direction) for direction in range(_directions(op))]
    every = _stack([_stack(outputs, 0) for outputs, _, _ in parts], 1)
    last = [_stack([h for _, h, _ in parts], 0)]
    if op.name == "LSTM":
        last.append(_stack([c for _, _, c in parts], 0))
    if _is_batch_first(op):
        every, last = transposed(every, (2, 0, 1, 3)), [transposed(v, (1, 0, 2)) for v in last]
    return tuple(cast(v, op.type(_X).dtype) for v in (every, *last))[: op.num_outputs]


for _name in _GATES:
    define(_name, _infer, by_parts(_decompose), _decompose)
