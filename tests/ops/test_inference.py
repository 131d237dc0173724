"""Shapes with open dimensions, and what inference says of nodes that do not fit."""

from collections.abc import Callable

import numpy as np
import pytest

from redline import ops
from redline.base import dtypes
from redline.base.errors import ModelError, RedlineError, UnsupportedError
from redline.base.shapes import Sym
from redline.ir import constant
from tests.ops.build import ints, shape_of, symbolic

B, S = Sym("batch"), Sym("seq")
X = symbolic((B, 8, 16))


def test_open_dimensions_pass_through() -> None:
    assert shape_of("Add", X, symbolic((16,), name="y")) == (B, 8, 16)
    assert shape_of("Transpose", X, perm=(2, 0, 1)) == (16, B, 8)
    assert shape_of("MatMul", X, symbolic((16, 4), name="y")) == (B, 8, 4)
    assert shape_of("ReduceMean", X, ints(-1)) == (B, 8, 1)
    assert shape_of("ReduceMean", X, ints(1, 2), keepdims=0) == (B,)
    assert shape_of("Concat", X, X, axis=1) == (B, 16, 16)
    assert shape_of("Slice", X, ints(0, 2), ints(2**62, 6), ints(0, 1)) == (B, 4, 16)
    assert shape_of("Split", X, axis=2, num_outputs=3) == (B, 8, 6)
    assert shape_of("Pad", X, ints(0, 1, 0, 0, 1, 0)) == (B, 10, 16)
    assert shape_of("Gather", symbolic((100, 4)), symbolic((B, S), dtypes.int64)) == (B, S, 4)
    assert shape_of("Expand", X, ints(1, 1, 1, 1)) == (1, B, 8, 16)
    assert shape_of("Tile", X, ints(1, 2, 1)) == (B, 16, 16)
    assert shape_of("Unsqueeze", X, ints(0, -1)) == (1, B, 8, 16, 1)
    assert shape_of("Squeeze", symbolic((B, 1)), ints(1)) == (B,)
    assert shape_of("Einsum", X, symbolic((16, S), name="y"), equation="bij,jk->bik") == (B, 8, S)


def test_reshape_with_open_dimensions() -> None:
    assert shape_of("Reshape", X, ints(0, -1)) == (B, 128)
    assert shape_of("Reshape", X, ints(-1, 128)) == (B, 128)
    assert shape_of("Reshape", X, ints(-1, 4, 2, 16)) == (B, 4, 2, 16)
    assert shape_of("Reshape", symbolic((B, S, 16)), ints(0, 0, 4, 4)) == (B, S, 4, 4)
    assert shape_of("Reshape", symbolic((B, S, 16)), ints(0, -1, 4, 4)) == (B, S, 4, 4)
    assert shape_of("Flatten", X) == (B, 128)
    with pytest.raises(RedlineError, match="fix it with --shapes"):
        ops.make("Reshape", X, ints(-1))


def test_reshape_rules() -> None:
    x = symbolic((2, 3, 4))
    assert shape_of("Reshape", x, ints(0, -1)) == (2, 12)
    assert shape_of("Reshape", symbolic((0, 3)), ints(3, 0), allowzero=1) == (3, 0)
    assert shape_of("Reshape", symbolic((0, 3)), ints(0, 3)) == (0, 3)


def test_shape_of_open_dimensions_is_not_a_constant() -> None:
    decompose = ops.lookup("Shape").decompose
    assert decompose is not None
    assert decompose(ops.registry.view(ops.make("Shape", X).node)) is None
    part = decompose(ops.registry.view(ops.make("Shape", X, start=1).node))
    assert not isinstance(part, tuple) and part is not None and part.array is not None and part.array.tolist() == [8, 16]


def test_two_types_are_told() -> None:
    with pytest.raises(
        ModelError, match=r"\[Add\] Add has inputs of types float32, int64; they must be of one type; insert a Cast"
    ):
        ops.make("Add", X, ints(1))


REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("broadcast", lambda: ops.make("Add", X, symbolic((3,))), r"Add: shapes batchx8x16, 3 conflict in axis 2"),
    ("matmul", lambda: ops.make("MatMul", X, symbolic((15, 4))), r"MatMul of float32\[batchx8x16\] and float32\[15x4\]"),
    ("gemm", lambda: ops.make("Gemm", symbolic((2, 3)), symbolic((2, 3))), r"Gemm of float32\[2x3\] and float32\[2x3\]"),
    ("gemm_c", lambda: ops.make("Gemm", symbolic((2, 3)), symbolic((3, 4)), symbolic((5,))), r"conflict|Gemm"),
    ("axis", lambda: ops.make("Concat", X, X, axis=3), r"axis 3 of a tensor of rank 3; allowed: -3..2"),
    ("concat", lambda: ops.make("Concat", X, symbolic((B, 9, 16)), axis=2), r"Concat of batchx8x16, batchx9x16 along axis 2"),
    ("reshape", lambda: ops.make("Reshape", symbolic((2, 3)), ints(4, -1)), r"Reshape of float32\[2x3\] to \[4, -1\]"),
    ("copied_zero", lambda: ops.make("Reshape", symbolic((6,)), ints(6, 0)), r"copies an axis that the data lacks"),
    ("squeeze", lambda: ops.make("Squeeze", X, ints(1)), r"Squeeze of axes \[1\]"),
    ("transpose", lambda: ops.make("Transpose", X, perm=(0, 0, 1)), r"a permutation of 0..2"),
    ("slice", lambda: ops.make("Slice", X, ints(0), ints(4), ints(1), ints(0)), r"no step of 0"),
    ("split", lambda: ops.make("Split", X, ints(3, 3), axis=1), r"Split of an axis of 8 into \[3, 3\]"),
    ("split_count", lambda: ops.make("Split", X, axis=1), r"neither sizes nor num_outputs"),
    ("pad", lambda: ops.make("Pad", X, ints(0, -5, 0, 0, -5, 0)), r"no more may be cut than there is"),
    ("pad_mode", lambda: ops.make("Pad", X, ints(*[0] * 6), mode="mirror"), r"mode='mirror'; allowed: constant, reflect"),
    ("topk", lambda: ops.make("TopK", X, ints(17)), r"TopK of 17 along an axis of 16; allowed: 0..16"),
    ("cast", lambda: ops.make("Cast", X, to=8), r"Cast asks for ONNX data type 8; supported: 1 \(float32\)"),
    ("bitcast", lambda: ops.make("BitCast", X, to=dtypes.int8.onnx), r"BitCast of float32 to int8"),
    ("where", lambda: ops.make("Where", X, X, X), r"the condition of Where is float32"),
    ("prelu", lambda: ops.make("PRelu", symbolic((2, 1)), symbolic((3,))), r"the slope float32\[3\] of PRelu"),
    ("clip", lambda: ops.make("Clip", X, symbolic((8, 1))), r"input 1 of Clip is float32\[8x1\]; it must be a scalar"),
    ("einsum", lambda: ops.make("Einsum", X, equation="ij->i"), r"equation 'ij->i' does not fit float32\[batchx8x16\]"),
    ("einsum_out", lambda: ops.make("Einsum", X, equation="ijk->l"), r"does not fit"),
    ("einsum_ellipsis", lambda: ops.make("Einsum", X, equation="...k->k"), r"equation '...k->k' does not fit"),
    ("expand", lambda: ops.make("Expand", X, ints(2, 16)), r"Expand of float32\[batchx8x16\] to \[2, 16\]"),
    ("gathernd", lambda: ops.make("GatherND", X, symbolic((2, 4), dtypes.int64)), r"GatherND of .* at int64\[2x4\]"),
    ("scatternd", lambda: ops.make("ScatterND", X, symbolic((2, 1), dtypes.int64), X), r"ScatterND of updates"),
    ("det", lambda: ops.make("Det", X), r"Det of float32\[batchx8x16\]; square matrices"),
    ("arity", lambda: ops.make("Add", X), r"Add has 1 inputs; it takes two"),
    ("range", lambda: ops.make("Range", *(constant(np.array(v)) for v in (0, 5, 0))), r"delta is 0"),
    ("gather", lambda: _decompose_gather(16), r"Gather at 16..16 of an axis of 16; allowed: 0..15"),
]


def _decompose_gather(index: int) -> object:
    decompose = ops.lookup("Gather").decompose
    assert decompose is not None
    return decompose(ops.registry.view(ops.make("Gather", X, constant(np.array(index)), axis=2).node))


@pytest.mark.parametrize(("act", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_misfits_are_told(act: Callable[[], object], message: str) -> None:
    with pytest.raises(RedlineError, match=message):
        act()


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Reshape", (X, symbolic((2,), dtypes.int64))),
        ("Slice", (X, ints(0), symbolic((1,), dtypes.int64))),
        ("ReduceSum", (X, symbolic((1,), dtypes.int64))),
        ("NonZero", (X,)),
        ("Unique", (X,)),
        ("Compress", (X, symbolic((8,), dtypes.bool_))),
        ("TopK", (X, symbolic((1,), dtypes.int64))),
        ("Expand", (X, symbolic((3,), dtypes.int64))),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_what_must_be_constant_is_told(op: str, inputs: tuple) -> None:
    with pytest.raises(UnsupportedError, match=rf"input \d of {op} is computed at run time; it must be known at build time"):
        ops.make_node(op, inputs)


def test_unknown_operator_offers_the_closest() -> None:
    with pytest.raises(UnsupportedError, match=r"operator MatMull is not supported; did you mean 'MatMul'\?"):
        ops.make("MatMull", X, X)


def test_elementwise_operators_keep_the_broadcast_shape() -> None:
    assert {"Add", "Where", "Cast", "Clip", "Gelu", "PRelu", "Identity"} <= ops.ELEMENTWISE
    assert ops.ELEMENTWISE.isdisjoint({"MatMul", "Softmax", "Reshape", "Transpose", "ReduceSum", "CumSum", "Expand"})
    for op in ("Add", "Max", "Equal", "Pow"):
        assert shape_of(op, X, symbolic((8, 1), name="y")) == (B, 8, 16)
