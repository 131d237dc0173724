"""CUDA engines of open shapes, with a driver that has no GPU: every shape gives what ONNX Runtime gives."""

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_driver import FakeDriver, as_cubins
from onnx import TensorProto, helper, numpy_helper

import redline.tune.cuda as tuning
from redline import frontend, passes
from redline.base.errors import BuildError, EngineError, InputError
from redline.base.shapes import ShapeRange
from redline.builder import bands
from redline.builder import cuda as builder
from redline.builder import cuda_shop as shop
from redline.engine import OpenDim, launch, open_engine
from redline.kernels.gpu import GpuTarget
from redline.lower import fusion
from redline.runtime.cuda import context as running
from redline.runtime.cuda.engine import CudaEngine
from redline.runtime.cuda.loaded import CudaLoaded
from redline.server.backends import engines
from redline.server.config import ModelConfig
from tests import skeletons
from tests.shapes.test_open_engines import attention_model

TOLERANCE = {"fp32": 2e-5, "fp16": 3e-3}  # relative L2
SPAN = ShapeRange((1, 1), (2, 16), (4, 70))


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "compile_cubins", as_cubins)
    monkeypatch.setattr(builder, "_target", lambda arch, machine, precision: GpuTarget(arch, plain=True, tf32=False))


def built(model, tmp_path, shapes, precision="fp32", **options) -> tuple[CudaEngine, FakeDriver]:
    path = builder.build_cuda(
        model, output=tmp_path / "open.engine", shapes=shapes, precision=precision, target="cuda:sm_90", opt_level=0, **options
    )
    driver = FakeDriver()
    return CudaEngine(CudaLoaded(open_engine(path), 0, driver)), driver


def agree(engine, session, feed, tolerance) -> None:
    for (name, got), want in zip(engine.run(feed).items(), session.run(None, feed), strict=True):
        assert got.shape == want.shape
        assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want), (name, got.shape)


def tokens(batch: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch * 100 + length)
    mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
    return {"ids": rng.integers(0, 50, (batch, length)), "mask": mask}


@pytest.mark.parametrize("precision", TOLERANCE)
def test_an_encoder_of_open_batch_and_length(tmp_path, precision: str) -> None:
    model = attention_model()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine, _ = built(model, tmp_path, {"ids": SPAN, "mask": SPAN}, precision)
    for batch, length in [(1, 1), (4, 70), (3, 16), (1, 33)] if precision == "fp32" else [(2, 17), (4, 64)]:
        agree(engine, session, tokens(batch, length), TOLERANCE[precision])
    with pytest.raises(InputError, match=r"axis 1 \(length\) is 71.*allowed: 1\.\.70"):
        engine.run(tokens(1, 71))
    context = engine.context()
    context.poison()
    feed = tokens(2, 5)
    wanted = session.run(None, feed)[0]
    assert np.linalg.norm(context.run(feed)["tokens"] - wanted) <= TOLERANCE[precision] * np.linalg.norm(wanted)


def test_a_profile_beside_a_bucket(tmp_path) -> None:
    model = attention_model()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine, driver = built(model, tmp_path, {"ids": SPAN, "mask": SPAN}, buckets={"short": {"ids": (1, 8), "mask": (1, 8)}})
    for batch, length, name in ((1, 8, "short"), (1, 7, "profile"), (1, 8, "short")):
        feed = tokens(batch, length)
        agree(engine, session, feed, TOLERANCE["fp32"])
        assert engine.header_at(feed).name == name
    assert driver.num_captured == 1


def test_kernels_are_chosen_by_the_size_of_a_call() -> None:
    found = bands.places((OpenDim("batch", 1, 8, 32), OpenDim("length", 1, 128, 512)))
    assert [(place.dims, place.least, place.most) for place in found] == [
        ((8, 128), 442, 4096), ((3, 11), 0, 79), ((5, 38), 80, 441), ((32, 512), 4097, 16384),
    ]  # fmt: skip
    assert bands.places(()) == [bands.Place((), 0, 1)] and len(bands.places((OpenDim("batch", 1, 1, 1),))) == 1
    assert bands.places((OpenDim("batch", 2, 2, 9),)) == [bands.Place((2,), 0, 4), bands.Place((9,), 5, 9)]
    assert bands.places((OpenDim("batch", 1, 8, 8),)) == [bands.Place((8,), 5, 8), bands.Place((3,), 0, 4)]


def test_the_launches_of_a_band_are_others(tmp_path) -> None:
    """Each size runs its own launches of the same steps."""
    engine, _ = built(attention_model(), tmp_path, {"ids": SPAN, "mask": SPAN})
    launches = engine._open().plans[0].launches
    small, medium, large = launches.bands
    assert [(band.least, band.most) for band in launches.bands] == [(0, 8), (9, 22), (95, 280)]
    assert launches.at([1, 8]) is small.launches and launches.at([1, 9]) is medium.launches
    assert launches.at([4, 70]) is large.launches and launches.at([2, 16]) is launches.launches
    for dims in ([1, 1], [2, 16], [4, 70]):
        assert [launch.dims for launch in launches.at(dims)] == [launch.dims for launch in launches.launches]


def image_model() -> onnx.ModelProto:
    """Convolutions of every kind of kernel, a pool, a residual sum, a mean and a product."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 1, 3, 3), "w2": (32, 16, 1, 1), "w3": (32, 32, 3, 3), "w4": (32, 10)}
    tensors = [numpy_helper.from_array((rng.standard_normal(s) / 6).astype(np.float32), n) for n, s in shapes.items()]
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w0"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]), node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w1"], ["c"], pads=[1, 1, 1, 1], group=16), node("Conv", ["c", "w2"], ["d"]),
        node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["e", "w3"], ["f"], pads=[1, 1, 1, 1]), node("Add", ["f", "e"], ["g"]), node("Relu", ["g"], ["h"]),
        node("GlobalAveragePool", ["h"], ["i"]), node("Flatten", ["i"], ["j"]), node("MatMul", ["j", "w4"], ["scores"]),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", 16])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])]
    graph = helper.make_graph(nodes, "images", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_images_of_open_batch(tmp_path, precision: str) -> None:
    model = image_model()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = {"image": ShapeRange((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}
    engine, _ = built(model, tmp_path, shapes, precision)
    for batch in (1, 3, 8):
        feed = {"image": np.random.default_rng(batch).standard_normal((batch, 3, 16, 16)).astype(np.float32)}
        agree(engine, session, feed, TOLERANCE[precision])


def test_a_family_without_an_open_form_is_named(tmp_path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph([helper.make_node("CumSum", ["x", "axis"], ["y"], name="sums")], "g", [x], [y],
                              [numpy_helper.from_array(np.array(1), "axis")])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(BuildError, match=r"sums.*family 'scan'.*--bucket"):
        built(model, tmp_path, {"x": ShapeRange((1, 8), (2, 8), (4, 8))})


def test_launches_of_an_open_plan_are_checked(tmp_path) -> None:
    model = attention_model()
    engine, _ = built(model, tmp_path, {"ids": SPAN, "mask": SPAN})
    file = open_engine(engine.path)
    text, code, steps = file.blob("launches.sm_90").tobytes(), file.blob("cubins.sm_90").nbytes, len(file.header.kernels)
    launch.decode(text, code, steps, "x", [4, 70])
    assert b'"dims":[0' in text or b'"dims":[1' in text
    for largest in ([4], []):
        with pytest.raises(EngineError, match="launches are malformed"):
            launch.decode(text, code, steps, "x", largest)


def test_the_server_joins_requests_of_one_length(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = attention_model()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine, _ = built(model, tmp_path, {"ids": SPAN, "mask": SPAN})
    monkeypatch.setattr(engines, "load", lambda path, *args, **options: engine)
    program = engines.EngineSet(ModelConfig("encoder", max_batch_size=4), {0: engine.path})
    instance = program.instance(1, False)
    feeds = [tokens(1, 9), tokens(2, 9)]
    for feed, found in zip(feeds, instance.run(feeds).outputs, strict=True):
        wanted = session.run(["tokens"], feed)[0]
        assert np.linalg.norm(found["tokens"] - wanted) <= TOLERANCE["fp32"] * np.linalg.norm(wanted)
    instance.close()
    program.close()


def test_images_of_open_height(tmp_path) -> None:
    """The network halves the height twice, so it takes multiples of 4."""
    model = image_model()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine, _ = built(model, tmp_path, {"image": ShapeRange((1, 3, 8, 16), (2, 3, 16, 16), (3, 3, 32, 16))}, "fp16")
    for batch, height in ((1, 8), (3, 20), (2, 32)):
        feed = {"image": np.random.default_rng(height).standard_normal((batch, 3, height, 16)).astype(np.float32)}
        agree(engine, session, feed, TOLERANCE["fp16"])
    with pytest.raises(InputError, match=r"\(height\) is 18"):
        engine(image=np.zeros((1, 3, 18, 16), np.float32))


def test_the_order_of_launches_is_timed_at_every_size(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Early is slower at one of four sizes, and faster in the mean."""
    monkeypatch.setattr(shop, "load", lambda path: CudaEngine(CudaLoaded(open_engine(path), 0, FakeDriver())))
    monkeypatch.setattr(shop.Machine, "look", staticmethod(lambda: shop.Machine(None, 90, "a GPU of tests", 132)))
    times, seen = iter([4e-5, 4e-5, 4e-5, 4e-5, 5e-5, 3e-5, 3e-5, 3e-5]), []

    def seconds(self, replays: int = 30, shapes=None) -> float:
        seen.append(shapes["ids"])
        return next(times)

    monkeypatch.setattr(running.CudaContext, "seconds", seconds)
    path = builder.build_cuda(
        attention_model(), output=tmp_path / "open.engine", shapes={"ids": SPAN, "mask": SPAN}, precision="fp32",
        target="cuda:sm_90", opt_level=1,
    )  # fmt: skip
    assert seen == 2 * [(2, 16), (1, 4), (2, 8), (4, 70)]
    assert open_engine(path).header.report["launches"] == "early"


def test_masks_stay_in_float32_however_large() -> None:
    """Also where they are expanded first, as in this model; -3.4e38 would become infinite."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = passes.optimize(frontend.load(skeletons.load("minilm"), shapes=dict.fromkeys(names, (32, 512))), signed=True)
    consumers = fusion.Consumers(graph)
    (mask,) = [n for n in graph.operations if n.op == "Expand" and any(r.op == "Attention" for r in consumers.of(n.out))]
    everything = set(graph.operations)
    assert not fusion.may_be_narrow(mask.out, consumers, everything)
    assert not fusion.may_be_narrow(mask.inputs[0], consumers, everything)
    embedded = next(node for node in graph.operations if node.op == "Add")
    assert fusion.may_be_narrow(embedded.out, consumers, everything) and not fusion.may_be_narrow(embedded.out, consumers, ())
