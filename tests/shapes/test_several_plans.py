"""One engine of several profiles and buckets: the right plan for every shape, the same answers, nothing stored twice."""

import struct
import threading
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import redline
from redline import frontend
from redline.base.errors import BuildError, EngineError, InputError, RedlineError
from redline.base.shapes import ShapeRange, parse_buckets, parse_profiles
from redline.builder.forms import Forms
from redline.engine import open_engine, spans
from redline.engine.layout import BLOCK_BYTES, blobs_start
from redline.kernels.problem import KernelCode, Packing
from redline.lower import lower
from redline.runtime.samples import inputs_at
from redline.tune import Choice, Job
from tests.shapes.test_open_engines import attention_model, feed

NARROW, WIDE = ShapeRange((1, 1), (2, 8), (2, 16)), ShapeRange((1, 1), (2, 40), (4, 70))
PROFILES = [{"ids": WIDE, "mask": WIDE}, {"ids": NARROW, "mask": NARROW}]
BUCKETS = {"one": {"ids": (1, 16), "mask": (1, 16)}, "odd": {"ids": (3, 80), "mask": (3, 80)}, "opt": None}
NAMES = ["profile 1", "profile 2", "one", "odd", "opt 1", "opt 2"]
PLANS = {
    (1, 16): "one", (3, 80): "odd", (2, 40): "opt 1", (2, 8): "opt 2", (1, 15): "profile 2", (2, 16): "profile 2",
    (1, 17): "profile 1", (4, 70): "profile 1", (3, 2): "profile 1",
}  # fmt: skip


def longer_model():
    """The model of the other tests with more places, so that a bucket may lie outside every profile."""
    model = attention_model()
    rng = np.random.default_rng(1)
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.name == "place":
            places = rng.standard_normal((80, 32)).astype(np.float32)
            model.graph.initializer[i].CopyFrom(numpy_helper.from_array(places, "place"))
    return model.SerializeToString()


@pytest.fixture(scope="module")
def model():
    return longer_model()


@pytest.fixture(scope="module")
def session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "m.engine"
    redline.build(model, output=path, shapes=PROFILES, buckets=BUCKETS, opt_level=0).close()
    return path


@pytest.fixture(scope="module")
def engine(path):
    return redline.load(path)


@pytest.mark.parametrize("shape", PLANS)
def test_every_shape_runs_the_plan_made_for_it_and_answers_right(engine, session, shape):
    inputs = feed(*shape)
    assert engine.header_at(inputs).name == PLANS[shape]
    answers = engine.run(inputs)
    for (name, answer), expected in zip(answers.items(), session.run(None, inputs), strict=True):
        assert answer.shape == expected.shape, name
        np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_plans_take_turns_in_one_context(engine):
    context, first = engine.context(), {shape: engine.run(feed(*shape)) for shape in PLANS}
    order = np.random.default_rng(0).permutation(list(PLANS) * 6)
    for shape in map(tuple, order.tolist()):
        for name, answer in context.run(feed(*shape)).items():
            np.testing.assert_array_equal(answer, first[shape][name])
    context.close()


def test_many_threads_on_different_plans(engine):
    expected = {shape: engine.run(feed(*shape))["tokens"] for shape in PLANS}
    wrong = []

    def caller(seed):
        for shape in np.random.default_rng(seed).permutation(list(PLANS) * 4).tolist():
            if not np.allclose(engine.run(feed(*shape))["tokens"], expected[tuple(shape)], rtol=1e-5, atol=1e-6):
                wrong.append(shape)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    futures = [engine.run_async(feed(*shape)) for shape in PLANS]
    for shape, future in zip(PLANS, futures, strict=True):
        np.testing.assert_allclose(future.result(60)["tokens"], expected[shape], rtol=1e-5, atol=1e-6)
    assert not wrong


def test_profile_and_header_speak_of_the_same_plan(engine):
    for shape in PLANS:
        inputs = feed(*shape)
        assert engine.profile(inputs, 2).shape == (2, len(engine.header_at(inputs).kernels))


def test_a_shape_outside_every_plan_is_told_what_each_allows(engine):
    with pytest.raises(InputError) as error:
        engine.run(feed(1, 71))
    text = str(error.value)
    assert text.startswith("[input 'ids'] axis 1 (length) is 71; profile 2: allowed: 1..16; profile 1: allowed: 1..70")
    assert "odd: exactly ids 3x80, mask 3x80" in text
    with pytest.raises(InputError, match=r"axis 0 \(batch\) is 4; profile 2: allowed: 1..2; profile 1: input 'ids' axis 1"):
        engine.run({"ids": np.ones((4, 71), np.int64), "mask": np.ones((4, 71), np.int64)})


def test_constants_and_kernels_are_stored_once(model, path):
    """In six plans."""
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}
    assert path.read_bytes().count(tensors["table"].tobytes()) == 1
    file = open_engine(path)
    plans = [file.plan(number) for number in range(6)]
    weights = [{(t.offset, t.num_bytes) for t in plan.tensors if t.space == "weights"} for plan in plans]
    assert sum(map(len, weights)) > 2 * len(set().union(*weights))
    file.close()


def test_of_tactics_as_fast_the_one_whose_constants_are_there():
    """A plan of one product takes the panels of the plan before it where that costs little."""
    rng = np.random.default_rng(0)
    programs = [_product(rows, rng) for rows in (64, 8)]
    job = {Job(s.family, s.problem): s for p in programs for s in p.steps}
    first, second = job
    wide, narrow = (_choice(second, name) for name in ("wide", "narrow"))
    chosen = {first: _choice(first, "wide"), second: replace(narrow, near=(wide,))}
    forms = Forms()
    assert [c.schedule for p in programs for c in forms.choices(p, chosen)] == ["wide", "wide"]
    chosen[second] = narrow
    forms = Forms()
    assert [c.schedule for p in programs for c in forms.choices(p, chosen)] == ["wide", "narrow"]


def _product(rows, rng):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "p",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 16])],
        [numpy_helper.from_array(np.ones((16, 16), np.float32), "w")],
    )  # fmt: skip
    return lower(frontend.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)))


def _choice(job, name):
    code = KernelCode("matmul", f"void KERNEL() {{}} // {name}", 1, packings={1: Packing(name, lambda array: array)})
    return Choice(job, name, code, 1.0, 2)


def test_the_same_build_gives_the_same_bytes(model, path, tmp_path):
    again = tmp_path / "again.engine"
    redline.build(model, output=again, shapes=PROFILES, buckets=BUCKETS, opt_level=0).close()
    assert again.read_bytes() == path.read_bytes()


def test_a_plan_that_is_not_used_is_not_read(path, tmp_path):
    file = open_engine(path)
    places = {blob.name: blob for blob in file.header.blobs}
    file.close()
    data = bytearray(path.read_bytes())
    start = blobs_start(struct.unpack_from("<Q", data, 16)[0])
    data[start + places["plan.1"].offset + places["plan.1"].num_bytes // 2] ^= 1
    damaged = tmp_path / "m.engine"
    damaged.write_bytes(data)
    engine = redline.load(damaged)
    assert engine.run(feed(1, 17))["tokens"].shape == (1, 17, 40)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"block 0 of 'plan\.1' is not what was written"):
            engine.run(feed(1, 3))
    with pytest.raises(EngineError, match=r"plan\.1"):
        redline.load(damaged, preload=True)
    assert places["weights"].num_bytes < BLOCK_BYTES


def test_what_the_plans_take_together(engine):
    assert spans(engine.header)["ids"] == ((1, 4), (1, 80))
    assert [engine.header.name, *(v.name for v in engine.header.variants)] == NAMES
    assert repr(engine).endswith("pooled: float32 batchx40; profile 2; one; odd; opt 1; opt 2)")


def test_inputs_at_some_shapes(engine):
    header = engine.header
    assert [io.shape for io in inputs_at(header, {"ids": (1, 16)})] == [(1, 16)] * 2
    assert [io.shape for io in inputs_at(header, {"mask": (4, 33)})] == [(4, 33)] * 2
    with pytest.raises(InputError, match=r"\[--shapes\] no plan of the engine takes ids 9x9; they reach over ids 1..4x1..80"):
        inputs_at(header, {"ids": (9, 9)})


def test_a_build_of_fixed_shapes_only(model, session):
    engine = redline.build(model, shapes=[{"ids": (1, 4), "mask": (1, 4)}, {"ids": (2, 9), "mask": (2, 9)}], opt_level=0)
    for shape in ((1, 4), (2, 9), (1, 4)):
        np.testing.assert_allclose(engine.run(feed(*shape))["pooled"], session.run(["pooled"], feed(*shape))[0], atol=1e-4)
    with pytest.raises(InputError, match=r"ids 1x5, mask 1x5 was given; profile 1: exactly ids 1x4, mask 1x4; profile 2: exa"):
        engine.run(feed(1, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": {"a": {"ids": (1, 4)}, "b": {"ids": (1, 4)}}}, "'a' and 'b' have the same shapes"),
        ({"buckets": {"profile": {"ids": (1, 4)}}}, "'profile' is what another plan is called"),
        ({"buckets": {"a": None}}, "'a' has no shapes; allowed: 'opt'"),
        ({"shapes": PROFILES, "ragged": True}, "a ragged build with 2 profiles and 0 buckets; allowed: one profile"),
        (
            {"shapes": PROFILES, "precision": "w8"},
            "w8 with open shapes, several plans or results whose shapes depend on data; allowed: fp32, bf16x3, bf16x6, bf16",
        ),
        ({"shapes": PROFILES, "target": "cuda:sm_90", "ragged": True}, "a CUDA engine; allowed: engines for processors"),
    ],
)
def test_what_does_not_go_together(model, options, message):
    with pytest.raises(BuildError) as error:
        redline.build(model, opt_level=0, **options)
    assert message in str(error.value)


def test_the_command_line_says_profiles_and_buckets():
    span, other = "1x1,8x128,32x512", "1x1,1x16,1x32"
    one = {"a": ShapeRange((1, 1), (8, 128), (32, 512)), "b": (1, 2)}
    for text in (f"a:{span};b:1x2", f"a:{span} b:1x2", f"a:{span},b:1x2"):
        assert parse_profiles([text]) == [one]
    assert parse_profiles([f"a:{span}", "b:1x2"]) == [one]
    two = [one, {"a": ShapeRange((1, 1), (1, 16), (1, 32))}]
    assert parse_profiles([f"a:{span}", "b:1x2", f"a:{other}"]) == two
    assert parse_buckets(["short=a:1x16;b:1x16", "opt"]) == {"short": {"a": (1, 16), "b": (1, 16)}, "opt": None}
    for texts in (["=a:1x2"], ["short="], ["x", "x"], ["s=a:1x2,1x3,1x4"], ["s=a"]):
        with pytest.raises(RedlineError, match=r"--bucket|--shapes"):
            parse_buckets(texts)
