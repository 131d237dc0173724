"""Recurrent networks against ONNX Runtime: directions, lengths of sequences, activations, and the whole taken apart."""

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from redline import ops
from redline.base.errors import ModelError
from redline.frontend import load
from redline.passes import decompose
from tests.frontend.models import agree, model, results, tensor

LENGTH, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def _network(op: str, direction: str, *, lengths: bool = False, initial: bool = False, **attrs: Any) -> onnx.ModelProto:
    rng, d, gates = np.random.default_rng(0), DIRECTIONS[direction], GATES[op]
    arrays = {
        "w": rng.standard_normal((d, gates * HIDDEN, INPUT)), "r": rng.standard_normal((d, gates * HIDDEN, HIDDEN)),
        "b": rng.standard_normal((d, 2 * gates * HIDDEN)),
    }  # fmt: skip
    names = ["x", "w", "r", "b"]
    if initial:
        arrays |= {name: rng.standard_normal((d, BATCH, HIDDEN)) for name in (("h", "c") if op == "LSTM" else ("h",))}
        arrays |= {"p": rng.standard_normal((d, 3 * HIDDEN))} if op == "LSTM" else {}
        names += ["", *(name for name in ("h", "c", "p") if name in arrays)]
    weights = {name: (array * 0.4).astype(np.float32) for name, array in arrays.items()}
    if lengths:
        weights["n"] = np.array([5, 1, 3], np.int32)
        names[4:5] = ["n"]
    outputs = ["y", "yh", "yc"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, direction=direction, **attrs)
    return model([node], [tensor("x", (LENGTH, BATCH, INPUT))], outputs, initializers=weights)


X = {"x": np.random.default_rng(1).standard_normal((LENGTH, BATCH, INPUT)).astype(np.float32)}


@pytest.mark.parametrize(("op", "direction", "lengths"), list(itertools.product(GATES, DIRECTIONS, (False, True))))
def test_directions_and_lengths(op: str, direction: str, lengths: bool) -> None:
    agree(_network(op, direction, lengths=lengths), X, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_initial_states_and_clip(op: str) -> None:
    agree(_network(op, "bidirectional", initial=True), X, rtol=1e-4, atol=1e-5)
    agree(_network(op, "forward", initial=True, clip=0.3), X, rtol=1e-4, atol=1e-5)


def test_gru_that_is_linear_before_reset() -> None:
    agree(_network("GRU", "bidirectional", linear_before_reset=1), X, rtol=1e-4, atol=1e-5)


def test_lstm_with_coupled_gates() -> None:
    agree(_network("LSTM", "forward", input_forget=1), X, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("Relu", {}), ("Sigmoid", {}), ("Softsign", {}), ("Softplus", {}), ("Affine", {"alpha": 0.5, "beta": 0.1}),
        ("LeakyRelu", {"alpha": 0.2}), ("ThresholdedRelu", {"alpha": 0.3}), ("ScaledTanh", {"alpha": 0.7, "beta": 1.3}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}), ("Elu", {"alpha": 0.8}),
    ],
)  # fmt: skip
def test_activations(name: str, attrs: dict[str, float]) -> None:
    given = {f"activation_{key}": [value] for key, value in attrs.items()}
    agree(_network("RNN", "forward", activations=[name], **given), X, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_batch_first_is_the_same_with_its_axes_moved(op: str) -> None:
    proto = _network(op, "bidirectional")
    first = results(proto, X)
    proto.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    proto.graph.input[0].CopyFrom(tensor("x", (BATCH, LENGTH, INPUT)))
    last = results(proto, {"x": X["x"].transpose(1, 0, 2)})
    np.testing.assert_allclose(first[0].transpose(2, 0, 1, 3), last[0], rtol=1e-6)
    np.testing.assert_allclose(first[1].transpose(1, 0, 2), last[1], rtol=1e-6)


def test_inputs_are_multiplied_once_for_all_steps() -> None:
    graph = decompose.run(load(_network("LSTM", "forward")))
    products = [node.inputs[0].shape for node in graph.operations if node.op == "MatMul" and node.inputs[0] is not None]
    assert products.count((LENGTH, BATCH, INPUT)) == 1 and len(products) == LENGTH + 1
    assert ops.run(graph, X)["y"].shape == (LENGTH, 1, BATCH, HIDDEN)


def test_what_does_not_fit() -> None:
    proto = _network("LSTM", "forward", activations=["Sigmoid", "Tanh", "Wobble"])
    with pytest.raises(ModelError, match="activations Sigmoid, Tanh, Wobble; 3 of Tanh, Relu"):
        load(proto)
    proto = _network("GRU", "forward")
    next(a for a in proto.graph.node[0].attribute if a.name == "direction").s = b"bidirectional"
    with pytest.raises(ModelError, match=r"allowed: \[S, B, I\], \[2, 3H, I\] and \[2, 3H, H\]"):
        load(proto)
