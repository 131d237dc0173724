"""Results whose shape depends on data: what ONNX Runtime gives, at empty and full results, and in steps that read them."""

import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import redline
from redline.base import cpu, dtypes
from redline.base.errors import BuildError, InputError
from redline.base.shapes import ShapeRange
from redline.cli.tolerance import TABLE

needs_bf16 = pytest.mark.skipif("avx512_bf16" not in cpu.features(), reason="products of BF16 need avx512_bf16")
node = helper.make_node
reader = importlib.import_module("redline.frontend.read")
KINDS = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL}


def model(nodes, inputs, outputs, constants=()) -> bytes:
    """``inputs`` and ``outputs``: (name, kind, shape); ``constants``: name to array."""
    ports = [[helper.make_tensor_value_info(n, KINDS[k], s) for n, k, s in side] for side in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "found", *ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def same(engine, session, feed) -> None:
    for (name, got), want in zip(engine.run(feed).items(), session.run(None, feed), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6, err_msg=name)


def built(text: bytes, shapes=None):
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    return redline.build(text, shapes=shapes, opt_level=0), session


@pytest.fixture(scope="module")
def nonzero():
    """The places that are not 0, the values there, and their sums with what the count alone decides."""
    nodes = [
        node("NonZero", ["x"], ["at"]), node("Transpose", ["at"], ["rows"]), node("GatherND", ["x", "rows"], ["values"]),
        node("Mul", ["values", "two"], ["doubled"]), node("Shape", ["values"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("ReduceSum", ["doubled"], ["sum"], keepdims=0), node("Concat", ["doubled", "tail"], ["longer"], axis=0),
    ]  # fmt: skip
    outputs = [("at", "i", [3, "K"]), ("doubled", "f", ["K"]), ("ones", "f", ["K"]), ("sum", "f", []), ("longer", "f", ["L"])]
    constants = {"two": np.float32(2), "tail": np.arange(3, dtype=np.float32)}
    text = model(nodes, [("x", "f", ["n", 5, 7])], outputs, constants)
    return built(text, {"x": ShapeRange((1, 5, 7), (3, 5, 7), (6, 5, 7))})


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 4, 6])
def test_nonzero_and_what_reads_it(nonzero, share, batch):
    rng = np.random.default_rng(batch)
    x = (rng.standard_normal((batch, 5, 7)) * (rng.random((batch, 5, 7)) < share)).astype(np.float32)
    same(*nonzero, {"x": x})


def test_calls_do_not_see_each_others_extents(nonzero):
    engine = nonzero[0]
    full, empty = np.ones((2, 5, 7), np.float32), np.zeros((2, 5, 7), np.float32)
    a, b = engine.context(), engine.context(num_threads=1)
    for _ in range(3):
        assert a.run({"x": full})["at"].shape == (3, 70) and b.run({"x": empty})["at"].shape == (3, 0)


def test_an_output_of_the_caller_has_room_for_the_most(nonzero):
    engine = nonzero[0]
    x = np.eye(5, 7, dtype=np.float32)[None]
    most = engine.header.outputs[0].shape
    small = np.empty((3, 5), np.int64)
    with pytest.raises(InputError, match="output 'at'"):
        engine.run({"x": x}, out={"at": small})
    room = np.empty(most, np.int64)
    answer = engine.run({"x": x}, out={"at": room})["at"]
    assert answer.shape == (3, 5) and np.shares_memory(answer, room)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(axis):
    attributes = {} if axis is None else {"axis": axis}
    text = model(
        [node("Compress", ["x", "keep"], ["y"], **attributes), node("Neg", ["y"], ["z"])],
        [("x", "f", [6, 8]), ("keep", "b", [5])], [("z", "f", None)],
    )  # fmt: skip
    engine, session = built(text)
    x = np.arange(48, dtype=np.float32).reshape(6, 8)
    for keep in ([0] * 5, [1] * 5, [0, 1, 0, 0, 1]):
        same(engine, session, {"x": x, "keep": np.array(keep, bool)})


def test_top_k_of_an_input():
    text = model(
        [node("TopK", ["x", "k"], ["v", "i"])], [("x", "f", [4, 300]), ("k", "i", [1])], [("v", "f", None), ("i", "i", None)]
    )
    engine, session = built(text)
    x = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    for k in (0, 1, 17, 120, 300):
        same(engine, session, {"x": x, "k": np.array([k])})
    assert engine.run({"x": x, "k": np.array([-3])})["v"].shape == (4, 0)
    assert engine.run({"x": x, "k": np.array([1 << 40])})["v"].shape == (4, 300)


@pytest.fixture(scope="module", params=[0, 1], ids=["corners", "centred"])
def suppression(request):
    """The chosen rows, the boxes and the scores of the chosen."""
    nodes = [
        node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"], center_point_box=request.param),
        node("Gather", ["chosen", "columns"], ["where"], axis=1), node("GatherND", ["boxes", "where"], ["chosen_boxes"]),
        node("GatherND", ["scores", "chosen"], ["chosen_scores"]),
    ]  # fmt: skip
    inputs = [("boxes", "f", ["n", "b", 4]), ("scores", "f", ["n", 3, "b"]), ("most", "i", [1]), ("least", "f", [1])]
    outputs = [("chosen", "i", ["K", 3]), ("chosen_boxes", "f", ["K", 4]), ("chosen_scores", "f", ["K"])]
    text = model(nodes, inputs, outputs, {"overlap": np.array([0.4], np.float32), "columns": np.array([0, 2])})
    spans = {"boxes": ShapeRange((1, 1, 4), (1, 40, 4), (3, 200, 4)), "scores": ShapeRange((1, 3, 1), (1, 3, 40), (3, 3, 200))}
    return built(text, spans)


@pytest.mark.parametrize("batch, count", [(1, 1), (1, 65), (3, 64), (2, 200)])
def test_suppression(suppression, batch, count):
    """Boxes on a coarse grid and scores of few values, so that there are ties and overlaps of exactly the limit."""
    rng = np.random.default_rng(count)
    boxes = rng.integers(0, 12, (batch, count, 4)).astype(np.float32)
    scores = (rng.integers(0, 9, (batch, 3, count)) / 8).astype(np.float32)
    for most, least in ((1000, -1.0), (4, 0.5), (0, 0.5), (7, 0.999), (5, 2.0)):
        feed = {"boxes": boxes, "scores": scores, "most": np.array([most]), "least": np.array([least], np.float32)}
        same(*suppression, feed)


@pytest.mark.parametrize(("axis", "is_sorted"), [(None, 1), (None, 0), (0, 1), (-1, 0)])
def test_unique(axis, is_sorted):
    attributes = {"sorted": is_sorted} | ({} if axis is None else {"axis": axis})
    results = ["values", "first", "inverse", "counts"]
    text = model(
        [node("Unique", ["x"], results, **attributes)], [("x", "f", [6, 5])],
        [(name, "f" if name == "values" else "i", None) for name in results],
    )  # fmt: skip
    engine, session = built(text)
    rng = np.random.default_rng(0)
    same(engine, session, {"x": np.zeros((6, 5), np.float32)})
    same(engine, session, {"x": rng.standard_normal((6, 5)).astype(np.float32)})
    for _ in range(8):
        x = rng.integers(0, 3, (6, 5)).astype(np.float32)
        x[rng.integers(6)], x[:, rng.integers(5)] = x[0], x[:, 1]
        same(engine, session, {"x": x})


def test_unique_integers_of_any_length_and_what_reads_them():
    nodes = [node("Unique", ["x"], ["values", "first", "", "counts"]), node("Mul", ["values", "counts"], ["sums"])]
    outputs = [(name, "i", ["K"]) for name in ("values", "first", "sums")]
    engine, session = built(model(nodes, [("x", "i", ["n"])], outputs), {"x": ShapeRange((2,), (8,), (40,))})
    rng = np.random.default_rng(0)
    for length in (2, 3, 17, 40):
        for most in (1, 4, 1000):
            same(engine, session, {"x": rng.integers(-most, most, length)})


def small_detector(rows: int | str, product_behind: bool) -> bytes:
    """Features times weights give boxes and scores, which are outputs too; then the chosen rows, or a product of them."""
    rng = np.random.default_rng(0)
    nodes = [
        node("MatMul", ["x", "w"], ["hidden"]), node("Relu", ["hidden"], ["features"]),
        node("MatMul", ["features", "wb"], ["boxes"]), node("MatMul", ["features", "ws"], ["raw"]),
        node("Transpose", ["raw"], ["scores"], perm=[0, 2, 1]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"]),
        node("Gather", ["chosen", "two"], ["place"], axis=1), node("Squeeze", ["features", "zero"], ["flat"]),
        node("Gather", ["flat", "place"], ["best"]), node("MatMul", ["best", "w"], ["again"]),
    ]  # fmt: skip
    last = ("again", "f", None) if product_behind else ("best", "f", None)
    outputs = [("boxes", "f", None), ("scores", "f", None), ("chosen", "i", ["K", 3]), last]
    weights = {"w": (64, 64), "wb": (64, 4), "ws": (64, 1)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) / 8 for name, shape in weights.items()} | {
        "most": np.array([9]), "overlap": np.array([0.4], np.float32), "least": np.array([0.1], np.float32),
        "two": np.array(2), "zero": np.array([0]),
    }  # fmt: skip
    return model(nodes if product_behind else nodes[:-1], [("x", "f", [1, rows, 64])], outputs, constants)


@pytest.mark.parametrize(
    ("precision", "rows", "product_behind"),
    [
        pytest.param("bf16", "b", True, marks=needs_bf16), pytest.param("bf16", 90, True, marks=needs_bf16),
        ("fp16", 90, False),
    ],
)  # fmt: skip
def test_suppression_behind_products_in_16_bits(precision, rows, product_behind):
    """Boxes and scores within the tolerance; of the engine's own, exactly those chosen that ONNX Runtime would choose."""
    text = small_detector(rows, product_behind)
    shapes = {"x": ShapeRange((1, 4, 64), (1, 40, 64), (1, 200, 64))} if rows == "b" else None
    engine = redline.build(text, shapes=shapes, precision=precision, opt_level=0)
    narrow = {"bf16": "bfloat16", "fp16": "float16"}[precision]
    assert narrow in {a.dtype for k in engine.header.kernels if k.family == "matmul" for a in k.reads}
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    alone = onnxruntime.InferenceSession(suppression_of(text), providers=["CPUExecutionProvider"])
    for count in (4, 90, 200) if rows == "b" else (rows,):
        x = np.random.default_rng(count).standard_normal((1, count, 64)).astype(np.float32)
        answers, expected = engine.run({"x": x}), session.run(None, {"x": x})
        for name, want in zip(("boxes", "scores"), expected[:2], strict=True):
            assert np.linalg.norm(answers[name] - want) <= TABLE[dtypes.from_name(narrow)].relative_l2 * np.linalg.norm(want)
        own = alone.run(None, {name: answers[name] for name in ("boxes", "scores")})[0]
        np.testing.assert_array_equal(answers["chosen"], own)
        assert answers["again" if product_behind else "best"].shape == (len(own), 64)


def suppression_of(text: bytes) -> bytes:
    """The NonMaxSuppression of a model, alone."""
    graph = onnx.load_from_string(text).graph
    kept = next(n for n in graph.node if n.op_type == "NonMaxSuppression")
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in kept.input}
    inputs = [("boxes", "f", ["n", "b", 4]), ("scores", "f", ["n", 1, "b"])]
    return model([kept], inputs, [("chosen", "i", ["K", 3])], constants)


def test_precisions_that_are_not_for_this_say_so():
    text = model([node("NonZero", ["x"], ["y"])], [("x", "f", [4])], [("y", "i", None)])
    with pytest.raises(BuildError, match="w8 with open shapes, several plans or results whose shapes depend on data; allowed"):
        redline.build(text, precision="w8", opt_level=0)


def test_the_model_is_read_once(tmp_path, monkeypatch):
    """Though it is converted for several numbers of results."""
    path, reads, real = tmp_path / "m.onnx", [], reader._bytes_of
    path.write_bytes(model([node("NonZero", ["x"], ["y"])], [("x", "f", [4])], [("y", "i", None)]))
    monkeypatch.setattr(reader, "_bytes_of", lambda where: reads.append(where) or real(where))
    engine = redline.build(path, opt_level=0)
    assert engine.run({"x": np.array([0, 2, 0, 3], np.float32)})["y"].tolist() == [[1, 3]]
    assert reads == [path]
