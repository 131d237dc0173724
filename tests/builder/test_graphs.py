"""Graphs whose parts share kernels and memory: where values go, who reads them, and what is an output of what."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from redline import frontend, ops, passes
from redline.base import dtypes
from redline.base.dtypes import DType
from redline.ir import Graph, TensorType, Value, constant, input_node
from redline.lower import fusion, lower
from tests.builder import bundle
from tests.builder.bundle import Arrays, Case
from tests.builder.export import case_of
from tests.builder.random_graphs import feeds_of, single
from tests.lower import machine

make = ops.make
BUILDERS: dict[str, Callable[[], tuple[Value, ...]]] = {}
Builder = Callable[[], tuple[Value, ...]]


def case(function: Builder) -> Builder:
    BUILDERS[function.__name__] = function
    return function


def arg(*shape: int, name: str = "x", dtype: dtypes.DType = dtypes.float32) -> Value:
    return input_node(name, TensorType(dtype, shape)).out


def weights(*shape: int) -> Value:
    return constant(bundle.floats(*shape))


def ints(*numbers: int) -> Value:
    return constant(np.array(numbers, np.int64))


@case
def an_input_is_an_output() -> tuple[Value, ...]:
    x = arg(3, 5)
    return x, make("Neg", x)


@case
def an_input_is_two_outputs() -> tuple[Value, ...]:
    x = arg(3, 5)
    return x, x


@case
def a_value_is_two_outputs() -> tuple[Value, ...]:
    y = make("Exp", arg(3, 5))
    return y, y


@case
def a_product_is_an_output_that_others_read() -> tuple[Value, ...]:
    y = make("MatMul", arg(5, 9), weights(9, 17))
    return y, make("Relu", y), make("ReduceSum", y, ints(1), keepdims=0)


@case
def a_constant_is_an_output() -> tuple[Value, ...]:
    return weights(4, 3), make("Add", arg(4, 3), weights(3))


@case
def only_constants() -> tuple[Value, ...]:
    return (make("Add", weights(3), weights(3)), constant(np.array(7, np.int64)))


@case
def views_are_outputs() -> tuple[Value, ...]:
    x = arg(4, 6)
    y = make("Sigmoid", x)
    return (
        make("Transpose", x, perm=(1, 0)), make("Slice", x, ints(1), ints(3), ints(0)), make("Reshape", x, ints(3, 8)),
        make("Transpose", y, perm=(1, 0)), make("Slice", y, ints(-1), ints(-9), ints(1), ints(-2)),
        make("Expand", y, ints(2, 4, 6)),
    )  # fmt: skip


@case
def views_of_a_product() -> tuple[Value, ...]:
    y = make("MatMul", arg(8, 16), weights(16, 12))
    split = make("Transpose", make("Reshape", y, ints(8, 3, 4)), perm=(1, 0, 2))
    return make("Softmax", split, axis=-1), make("Reshape", split, ints(24, 4)), make("Reshape", split, ints(96))


@case
def concatenations_of_concatenations() -> tuple[Value, ...]:
    x = arg(2, 3, 4)
    a = make("Concat", x, make("Neg", x), axis=1)
    b = make("Concat", make("Relu", a), a, axis=2)
    return make("Concat", b, b, make("Abs", b), axis=0), make("Tanh", a)


@case
def parts_of_a_concatenation_are_read_elsewhere() -> tuple[Value, ...]:
    x = arg(2, 4, 6, 6)
    a = make("Relu", make("Conv", x, weights(8, 4, 3, 3), None, pads=(1, 1, 1, 1)))
    b = make("Relu", make("Conv", a, weights(8, 8, 1, 1), None))
    both = make("Concat", a, b, x, axis=1)
    return make("Conv", both, weights(5, 20, 1, 1), weights(5)), make("Add", a, b), both


@case
def an_input_in_a_concatenation() -> tuple[Value, ...]:
    x = arg(3, 4)
    return make("Concat", x, x, axis=0), make("Concat", x, make("Exp", x), weights(3, 2), axis=1)


@case
def a_residual_block() -> tuple[Value, ...]:
    x = arg(1, 16, 7, 7)
    y = make("Relu", make("Conv", x, weights(16, 16, 3, 3), weights(16), pads=(1, 1, 1, 1)))
    y = make("Conv", y, weights(16, 16, 3, 3), weights(16), pads=(1, 1, 1, 1))
    y = make("Relu", make("Add", x, y))
    return make("ReduceMean", y, ints(2, 3), keepdims=0), y


@case
def a_residual_of_what_is_computed_later() -> tuple[Value, ...]:
    """The other operand of the Add comes after the product in the graph's order."""
    x = arg(6, 8)
    y = make("MatMul", x, weights(8, 8))
    other = make("Softmax", make("MatMul", make("Tanh", x), weights(8, 8)))
    return (make("Relu", make("Add", y, other)),)


@case
def two_products_in_one_sum() -> tuple[Value, ...]:
    x = arg(6, 8)
    return (make("Tanh", make("Add", make("MatMul", x, weights(8, 5)), make("MatMul", x, weights(8, 5)))),)


@case
def kernels_whose_epilogues_read_their_operands() -> tuple[Value, ...]:
    x, w, image, taps = arg(8, 8), weights(8, 8), arg(1, 4, 5, 5, name="image"), weights(4, 4, 1, 1)
    pooled = single("MaxPool", image, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    return (
        make("Min", x, make("MatMul", x, x)), make("Add", make("MatMul", x, w), w), make("Sub", x, make("MatMul", x, w)),
        make("Mul", image, make("Conv", image, taps, None)), make("Sub", pooled, image),
        make("Add", make("Conv", arg(1, 4, 4, 1, name="square"), taps, None), make("Reshape", taps, ints(1, 4, 4, 1))),
    )  # fmt: skip


@case
def projections_of_one_input() -> tuple[Value, ...]:
    x = arg(2, 7, 16)
    q, k, v = (make("Add", make("MatMul", x, weights(16, 16)), weights(16)) for _ in range(3))
    heads = [make("Transpose", make("Reshape", y, ints(2, 7, 2, 8)), perm=(0, 2, 1, 3)) for y in (q, k, v)]
    scores = make("MatMul", heads[0], make("Transpose", heads[1], perm=(0, 1, 3, 2)))
    mixed = make("MatMul", make("Softmax", make("Mul", scores, constant(np.float32(0.35)))), heads[2])
    return (make("Add", x, make("Reshape", make("Transpose", mixed, perm=(0, 2, 1, 3)), ints(2, 7, 16))),)


@case
def a_long_chain_of_functions() -> tuple[Value, ...]:
    y = arg(3, 37)
    for i in range(40):
        y = make(("Tanh", "Sigmoid", "Abs", "Neg")[i % 4], make("Add", y, weights(37)))
    return (y,)


@case
def a_chain_that_every_level_reads_twice() -> tuple[Value, ...]:
    """Computing values where they are read would take 2^20 steps."""
    y = arg(2, 9)
    for _ in range(20):
        y = make("Tanh", make("Add", make("Sin", y), make("Cos", y)))
    return (y,)


@case
def reductions_of_expressions() -> tuple[Value, ...]:
    x, y = arg(5, 33), arg(5, 1, name="y")
    square = make("Mul", make("Sub", x, y), make("Sub", x, y))
    return make("ReduceSum", square, ints(1)), make("ArgMax", square, axis=0), make("Sqrt", make("ReduceMean", square, ints(0)))


@case
def rows_in_the_middle() -> tuple[Value, ...]:
    x = arg(2, 6, 16)
    y = single("LayerNormalization", make("Add", x, weights(2, 6, 16)), weights(16), weights(16))
    z = make("MatMul", y, weights(16, 16))
    return single("LayerNormalization", make("Add", make("Gelu", z), y), weights(16), weights(16)), make("Softmax", z, axis=1)


@case
def empty_dimensions() -> tuple[Value, ...]:
    x = arg(0, 4)
    return (
        make("Relu", x), make("MatMul", x, weights(4, 3)), make("ReduceSum", x, ints(0)), make("Softmax", x),
        make("Concat", x, weights(2, 4), axis=0), make("ReduceMax", x, ints(1)), make("Transpose", x, perm=(1, 0)),
    )  # fmt: skip


@case
def a_product_over_nothing() -> tuple[Value, ...]:
    return (make("Add", make("MatMul", arg(3, 0), arg(0, 5, name="y")), weights(5)),)


@case
def dimensions_of_one() -> tuple[Value, ...]:
    x = arg(1, 1, 1, 1)
    y = make("Conv", x, weights(1, 1, 1, 1), weights(1))
    z = single("MaxPool", y, kernel_shape=(1, 1))
    scalar = make("Reshape", z, ints())
    return (
        y, scalar, make("Softmax", z), make("MatMul", z, z), single("LayerNormalization", z, weights(1)),
        make("Concat", z, z, axis=3), make("ReduceSum", z, ints(0, 1, 2, 3), keepdims=0), make("Add", scalar, weights(1)),
    )  # fmt: skip


@case
def scalars() -> tuple[Value, ...]:
    x, y = arg(), arg(name="y")
    return make("Mul", make("Exp", x), y), make("Reshape", x, ints(1, 1)), make("Where", make("Less", x, y), x, y)


@case
def every_type() -> tuple[Value, ...]:
    found = []
    for dtype in (dtypes.float64, dtypes.int8, dtypes.uint8, dtypes.int16, dtypes.uint16, dtypes.int32, dtypes.int64):
        x = arg(3, 5, name=dtype.name, dtype=dtype)
        found += [make("Add", x, x), make("Cast", x, to=1), make("ReduceMax", x, ints(1)), make("Transpose", x, perm=(1, 0))]
    return tuple(found)


@case
def an_upsampling_path() -> tuple[Value, ...]:
    x = arg(1, 8, 4, 4)
    up = make("Resize", x, None, constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    skip = make("Relu", make("Conv", arg(1, 8, 8, 8, name="y"), weights(8, 8, 3, 3), None, pads=(1, 1, 1, 1)))
    both = make("Concat", up, skip, axis=1)
    return make("Sigmoid", make("Conv", both, weights(4, 16, 1, 1), weights(4))), up


@cache
def cases() -> tuple[Case, ...]:
    made = []
    for name, builder in BUILDERS.items():
        values = builder()
        outputs = tuple((f"y{i}", value) for i, value in enumerate(values))
        inputs = tuple(node for node in Graph("", (), outputs).nodes if node.op == "Input")
        graph = Graph(name, inputs, outputs)
        made.append(case_of(name, graph, feeds_of(graph), witness=name not in ("empty_dimensions", "every_type")))
    return tuple(made)


@cache
def answers(target: str) -> dict[str, Arrays]:
    return bundle.answers(cases(), target=target)


EACH = pytest.mark.parametrize("number", range(len(BUILDERS)), ids=list(BUILDERS))


@EACH
@pytest.mark.parametrize("target", ["cpu", *(pytest.param(f"cpu:{t}", marks=pytest.mark.slow) for t in ("avx2", "generic"))])
def test_an_engine_answers_like_the_interpreter_and_onnx_runtime(number: int, target: str) -> None:
    found = cases()[number]
    bundle.check(found, answers(target)[found.name])


@EACH
def test_each_case_alone_has_a_sound_plan(number: int) -> None:
    """Alone a graph has other phases and other places than beside many: its plan is simulated and checked."""
    found = cases()[number]
    program = lower(passes.optimize(frontend.load(bundle.model([found], prefixed=False))))
    machine.assemble(program)
    for backwards in (False, True):
        bundle.check(found, machine.run(program, found.feeds, backwards))


@pytest.fixture(scope="module", params=["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def half(request: pytest.FixtureRequest) -> tuple[DType, dict[str, Arrays]]:
    """An engine that holds every value it may in 16 bits, small ones too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "SMALL_ELEMENTS", 0)
        found = bundle.answers(cases(), precision=request.param)
    return {"bf16": dtypes.bfloat16, "fp16": dtypes.float16}[request.param], found


@EACH
def test_half_precision_is_near(half: tuple[DType, dict[str, Arrays]], number: int) -> None:
    found = cases()[number]
    bundle.check_near(found, half[1][found.name], half[0])
