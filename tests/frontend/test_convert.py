"""The walk: folding, functions, branches and loops, provenance, and models that contradict themselves."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from redline.base.errors import ModelError, UnsupportedError
from redline.frontend import load, unsupported
from redline.frontend.site import MAX_FOLDED_BYTES
from redline.ir import CONSTANT
from tests.frontend.models import agree, model, results, tensor

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def _operations(proto: onnx.ModelProto, **options: object) -> list[str]:
    return [node.op for node in load(proto, **options).operations]  # type: ignore[arg-type]


def test_shape_arithmetic_is_folded() -> None:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 21]>
        test (float[n, 3, 4] x) => (y) <int64[1] last = {-1}, int64 zero = {0}> {
            s = Shape(x)
            n = Gather(s, zero)
            axes = Constant<value_ints = [0]>()
            head = Unsqueeze(n, axes)
            target = Concat<axis = 0>(head, last)
            y = Reshape(x, target)
        }""")
    assert _operations(proto, shapes={"x": (2, 3, 4)}) == ["Reshape"]
    assert load(proto, shapes={"x": (2, 3, 4)}).outputs[0][1].shape == (2, 12)
    problem = unsupported(proto)[0]
    assert (problem.op, problem.reason.split(";")[0]) == ("Reshape", "input 1 of Reshape is computed at run time")


def test_the_shape_of_a_frozen_or_fixed_input_is_known_though_its_values_are_not() -> None:
    proto = model([helper.make_node("Shape", ["x"], ["y"], start=1)], [tensor("x", ["n", 3])], ["y"])
    assert load(proto).outputs[0][1].op == "Shape"
    assert load(proto, shapes={"x": (2, 3)}).outputs[0][1].array.tolist() == [3]  # type: ignore[union-attr]


def test_large_results_are_not_folded() -> None:
    extents = {"s": np.array([MAX_FOLDED_BYTES // 4 + 1])}
    proto = model([helper.make_node("ConstantOfShape", ["s"], ["y"])], [], ["y"], initializers=extents)
    assert load(proto).outputs[0][1].op == "ConstantOfShape"


def test_weights_in_integers_stay_visible() -> None:
    weights = {"w": np.array([1, 2], np.int8), "s": np.array(0.5, np.float32)}
    proto = model([helper.make_node("DequantizeLinear", ["w", "s"], ["y"])], [], ["y"], initializers=weights)
    assert load(proto).outputs[0][1].op == "DequantizeLinear"


def test_provenance_names_the_onnx_nodes() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="first"), helper.make_node("Exp", ["a"], ["y"])]
    graph = load(model(nodes, [tensor("x", [2])], ["y"]))
    assert [(node.name, node.origin) for node in graph.operations] == [("first", ("first",)), ("Exp_1", ("Exp_1",))]


# --- Functions

FUNCTION = parser.parse_function("""
    <domain: "own", opset_import: ["" : 21], overload: "">
    Scaled <factor: float = 2.0, shift> (x, extra) => (y, unused) {
        f = Constant<value_float: float = @factor>()
        z = Mul(x, f)
        s = Constant<value_float: float = @shift>()
        y = Add(z, s)
        unused = Neg(x)
    }""")


def test_model_functions_are_inlined_with_their_attributes() -> None:
    call = helper.make_node("Scaled", ["x"], ["y"], domain="own", name="call", shift=1.0)
    proto = model([call], [tensor("x", [2, 3])], ["y"], functions=[FUNCTION], domains=["own"])
    assert np.array_equal(results(proto, {"x": X})[0], X * 2 + 1)
    assert [node.name for node in load(proto).operations] == ["call/Mul_1", "call/Add_3"]


def test_functions_that_call_themselves_end_in_an_error() -> None:
    loop = helper.make_function("own", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="own")],
                                [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)])  # fmt: skip
    call = helper.make_node("F", ["x"], ["y"], domain="own")
    with pytest.raises(ModelError, match="nested more than 32 deep"):
        load(model([call], [tensor("x", [2])], ["y"], functions=[loop], domains=["own"]))


def test_functions_that_double_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.frontend.convert.MAX_NODES", 5000)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "F0", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], imports)]
    for i in range(1, 20):
        body = [helper.make_node(f"F{i - 1}", [a], [b], domain="own") for a, b in (("x", "t"), ("t", "y"))]
        functions.append(helper.make_function("own", f"F{i}", ["x"], ["y"], body, imports))
    call = helper.make_node("F19", ["x"], ["y"], domain="own")
    with pytest.raises(ModelError, match="more than 5000 nodes"):
        load(model([call], [tensor("x", [1])], ["y"], functions=functions, domains=["own"]))


# --- Branches and loops


def _branches(then: str, other: str) -> onnx.ModelProto:
    def graph(op: str, name: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [onnx.ValueInfoProto(name=name)])

    node = helper.make_node("If", ["c"], ["y"], then_branch=graph(then, "a"), else_branch=graph(other, "b"))
    return model([node], [tensor("c", [], TensorProto.BOOL), tensor("x", [2, 3])], ["y"])


def test_a_known_condition_chooses_its_branch() -> None:
    assert _operations(_branches("Relu", "Neg"), freeze={"c": np.array(False)}) == ["Neg"]
    assert _operations(_branches("Relu", "Loop"), freeze={"c": np.array(True)}) == ["Relu"]


def test_an_unknown_condition_computes_both_branches() -> None:
    for condition in (True, False):
        agree(_branches("Relu", "Neg"), {"c": np.array(condition), "x": X - 2})


def test_branches_of_different_shapes_need_a_known_condition() -> None:
    problem = unsupported(_branches("Relu", "Flatten"))
    assert not problem  # [2, 3] flattens to itself
    problem = unsupported(_branches("Relu", "Shape"))
    assert "its branches have answers of different types" in problem[0].reason and "--freeze" in problem[0].remedy


def test_a_branch_that_does_not_fit_the_inputs_says_how_to_leave_it_out() -> None:
    def graph(name: str, width: int) -> onnx.GraphProto:
        table = numpy_helper.from_array(np.ones((width, 2), np.float32), f"w{width}")
        product = helper.make_node("MatMul", ["x", f"w{width}"], [name])
        return helper.make_graph([product], name, [], [onnx.ValueInfoProto(name=name)], [table])

    node = helper.make_node("If", ["c"], ["y"], then_branch=graph("a", 3), else_branch=graph("b", 4))
    fits_one = model([node], [tensor("c", [], TensorProto.BOOL), tensor("x", [2, 3])], ["y"])
    with pytest.raises(ModelError, match=r"if this branch of the If is never taken, .* --freeze NAME=VALUE"):
        load(fits_one)
    assert _operations(fits_one, freeze={"c": True}) == ["MatMul"]


def _loop(rounds: int, known: bool = True) -> onnx.ModelProto:
    body = parser.parse_graph("""
        body (int64 i, bool go, float[3] s) => (go_on, next, row) {
            go_on = Identity(go)
            f = Cast<to = 1>(i)
            next = Add(s, f)
            row = Mul(next, f)
        }""")
    node = helper.make_node("Loop", ["m", "", "x"], ["last", "rows"], body=body)
    inputs = [tensor("x", [3])] + ([] if known else [tensor("m", [], TensorProto.INT64)])
    return model([node], inputs, ["last", "rows"], initializers={"m": np.array(rounds)} if known else {})


def test_a_loop_of_known_rounds_is_written_out() -> None:
    agree(_loop(4), {"x": X[0]})


def test_loops_that_cannot_be_written_out() -> None:
    assert "number of rounds of the loop is computed at run time" in unsupported(_loop(4, known=False))[0].reason
    assert "a loop of 4097 rounds or more; allowed: 4096" in unsupported(_loop(10**9))[0].reason
    assert "a loop of no rounds" in unsupported(_loop(0))[0].reason


def test_a_scan_is_written_out() -> None:
    body = parser.parse_graph("""
        body (float[2] s, float[2] a) => (next, row) {
            next = Add(s, a)
            row = Mul(next, a)
        }""")
    for direction in (0, 1):
        node = helper.make_node(
            "Scan", ["h", "x"], ["last", "rows"], body=body, num_scan_inputs=1, scan_input_axes=[1],
            scan_input_directions=[direction], scan_output_axes=[1], scan_output_directions=[1 - direction],
        )  # fmt: skip
        proto = model([node], [tensor("h", [2]), tensor("x", [2, 3])], ["last", "rows"])
        agree(proto, {"h": X[0, :2], "x": X})


# --- Contradictions


def _bad(nodes: list[onnx.NodeProto], outputs: list[str]) -> str:
    with pytest.raises(ModelError) as error:
        load(model(nodes, [tensor("x", [2, 3])], outputs))
    assert not isinstance(error.value, UnsupportedError)
    return str(error.value)


def test_models_that_contradict_themselves() -> None:
    node = helper.make_node
    assert _bad([node("Relu", ["q"], ["y"])], ["y"]) == (
        "[Relu_0] reads 'q', which nothing before it makes; known: x"
    )  # fmt: skip
    assert _bad([node("Relu", ["x"], ["y"]), node("Exp", ["x"], ["y"])], ["y"]).startswith("[Exp_1] two values are called 'y'")
    assert "nothing before it makes" in _bad([node("Relu", ["x"], ["y"])], ["z"])
    assert "Relu lacks input 0" in _bad([node("Relu", [], ["y"])], ["y"])
    assert "its outputs are []" in _bad([node("Relu", ["x"], ["y"])], [])
    assert "Relu with 2 outputs" in _bad([node("Relu", ["x"], ["y", "z"])], ["y"])
    assert "conflict" in _bad([node("Transpose", ["x"], ["t"]), node("Add", ["x", "t"], ["y"])], ["y"])
    assert "axis 7" in _bad([node("Softmax", ["x"], ["y"], axis=7)], ["y"])


def test_names_that_are_not_text_are_refused() -> None:
    raw = model([helper.make_node("Relu", ["x"], ["yyyy"])], [tensor("x", [2])], ["yyyy"]).SerializeToString()
    with pytest.raises(ModelError, match="is not UTF-8 text"):
        load(raw.replace(b"yyyy", b"yy\xff\xfe"))


def test_reading_leaves_the_model_as_it_is() -> None:
    proto = _loop(3)
    before = proto.SerializeToString(deterministic=True)
    load(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_constants_are_leaves() -> None:
    weights = {"w": np.ones(3, np.float32)}
    proto = model([helper.make_node("Add", ["w", "w"], ["y"])], [], ["y"], initializers=weights)
    assert [node.op for node in load(proto).nodes] == [CONSTANT]
