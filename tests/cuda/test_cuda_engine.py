"""CUDA engines from the builder through the file to answers, with a driver that has no GPU."""

import os

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from fake_driver import FakeDriver, as_cubins
from onnx import TensorProto, helper

import redline.tune.cuda as tuning
from redline.base.errors import BuildError, EngineError, InputError
from redline.builder import cuda as builder
from redline.builder import cuda_shop as shop
from redline.builder import gate
from redline.engine import launch, open_engine
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuFamily, GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.runtime.cuda import context as running
from redline.runtime.cuda.engine import CudaEngine
from redline.runtime.cuda.loaded import CudaLoaded
from redline.server.backends import engines
from redline.server.config import ModelConfig
from tests.quant import models

MODEL = "models/digits.onnx"
TOLERANCE = {"fp32": 1e-5, "tf32": 1e-5, "fp16": 2e-3, "bf16": 2e-2}  # relative L2, as the acceptance has it


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "compile_cubins", as_cubins)
    monkeypatch.setattr(builder, "_target", lambda arch, machine, precision: GpuTarget(arch, plain=True, tf32=False))


def made(tmp_path, precision: str = "fp16", target: str = "cuda:sm_90", batch: int = 2):
    return builder.build_cuda(
        MODEL, output=tmp_path / "digits.engine", shapes={"image": (batch, 1, 8, 8)}, precision=precision, target=target,
        opt_level=0,
    )  # fmt: skip


def loaded(path, **options) -> CudaEngine:
    return CudaEngine(CudaLoaded(open_engine(path), 0, FakeDriver(**options)))


def image(batch: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, 1, 8, 8), np.float32)


def expected(x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": x}), strict=True))


@pytest.mark.parametrize("precision", TOLERANCE)
def test_answers_are_those_of_onnxruntime(tmp_path, precision: str) -> None:
    with loaded(made(tmp_path, precision)) as engine:
        for seed in (0, 1) if precision == "fp16" else (2,):
            x = image(seed=seed)
            found = engine(image=x)
            for name, wanted in expected(x).items():
                assert np.linalg.norm(found[name] - wanted) <= TOLERANCE[precision] * np.linalg.norm(wanted)


def test_arrays_on_the_device_are_used_where_they_are(tmp_path) -> None:
    engine = loaded(made(tmp_path))
    context = engine.context()
    x = image(seed=5)
    source, target = context.device_inputs(), context.device_outputs()
    context._driver.to_device(source["image"].address, x.ctypes.data, x.nbytes, None)
    context.launch(source, target)
    context.wait()
    name = engine.outputs[0].name
    direct = np.empty(engine.outputs[0].shape, np.float32)
    context._driver.to_host(direct.ctypes.data, target[name].address, direct.nbytes, None)
    assert np.array_equal(direct, engine(image=x)[name])
    other = context.run(source)
    assert np.array_equal(other[name], direct)


def test_code_is_loaded_once_and_memory_is_given_back(tmp_path) -> None:
    driver = FakeDriver()
    engine = CudaEngine(CudaLoaded(open_engine(made(tmp_path)), 0, driver))
    engine(image=image())
    count, held = driver.num_loaded, len(driver.memory)
    context = engine.context()
    context.run({"image": image()})
    assert driver.num_loaded == count
    context.close()
    context.close()
    assert len(driver.memory) == held and driver.depth == 0
    engine.close()
    assert not driver.memory and not driver.pinned  # nobody is left who holds the weights
    with pytest.raises(EngineError, match="closed"):
        engine.context()


def test_another_gpu_is_refused_with_what_to_do(tmp_path) -> None:
    path = made(tmp_path)
    with pytest.raises(EngineError, match=r"built for sm_90; this GPU is sm_80 .*--target cuda:sm_80"):
        loaded(path, arch=80)


def test_several_architectures_share_a_file(tmp_path) -> None:
    path = made(tmp_path, target="cuda:sm_80+sm_90")
    assert open_engine(path).header.stamp.features == ("sm_80", "sm_90")
    x = image()
    name = "logits"
    for arch in (80, 86, 90):
        assert np.allclose(loaded(path, arch=arch)(image=x)[name], expected(x)[name], rtol=2e-2, atol=2e-2)


def test_out_of_memory_says_for_what(tmp_path) -> None:
    with pytest.raises(EngineError, match="no memory for the weights"):
        loaded(made(tmp_path), limit=1000)


def test_a_forked_process_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(made(tmp_path))
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    with pytest.raises(EngineError, match="forked"):
        engine(image=image())


def test_wrong_inputs_are_named(tmp_path) -> None:
    engine = loaded(made(tmp_path))
    with pytest.raises(InputError, match="image"):
        engine(image=np.zeros((1, 1, 8, 8), np.float32))
    with pytest.raises(InputError, match="did you mean 'image'"):
        engine(imag=image())


class Lying:
    """An array that says it is on the device."""

    def __init__(self, **facts: object) -> None:
        self.__cuda_array_interface__ = {"version": 3, **facts}


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"shape": (2, 1, 8, 8), "typestr": "<f8", "data": (256, False)}, "float64"),
        ({"shape": (2, 1, 8, 8), "typestr": "<f4", "data": (260, False)}, "multiple of 16"),
        ({"shape": (2, 1, 8, 8), "typestr": "<f4", "data": (256, False), "strides": (4, 4, 4, 4)}, "not contiguous"),
    ],
)
def test_device_arrays_that_do_not_fit_are_refused(tmp_path, facts, said: str) -> None:
    with pytest.raises(InputError, match=said):
        loaded(made(tmp_path))(image=Lying(**facts))


@pytest.mark.parametrize("target", ["cuda:sm_70", "cuda:gfx90a", "cuda:sm_9x"])
def test_unknown_architectures_are_refused(tmp_path, target: str) -> None:
    with pytest.raises(BuildError, match="no architecture"):
        made(tmp_path, target=target)


def test_the_report_says_how_tactics_were_chosen(tmp_path) -> None:
    assert open_engine(made(tmp_path)).header.report["tactics"] == {"cuda:sm_90": "by the heuristic, untimed"}


def test_damaged_launches_are_refused(tmp_path) -> None:
    file = open_engine(made(tmp_path))
    text = file.blob("launches.sm_90").tobytes()
    code, steps = file.blob("cubins.sm_90").nbytes, len(file.header.kernels)
    launch.decode(text, code, steps, "x")
    for damaged in (text[:-2], text.replace(b'"threads"', b'"thread"'), b"[]", text.replace(b'"grid":[', b'"grid":[0,')):
        with pytest.raises(EngineError, match="launches are malformed"):
            launch.decode(damaged, code, steps, "x")
    with pytest.raises(EngineError, match="outside its blob"):
        launch.decode(text, 10, steps, "x")
    with pytest.raises(EngineError, match="launches for"):
        launch.decode(text, code, steps + 1, "x")


def samples(count: int = 40) -> list[dict[str, np.ndarray]]:
    with np.load("models/digits_test.npz") as stored:
        return [{"image": stored["images"][2 * i : 2 * i + 2].reshape(2, 1, 8, 8)} for i in range(count)]


@pytest.mark.parametrize(("precision", "stored"), [("int8", "int8"), ("fp8", "float8_e4m3fn")])
def test_8_bits_from_calibration(tmp_path, precision: str, stored: str) -> None:
    """The layers multiply 8 bits, and the answers stay near; the ranges of one build serve the next."""
    ranges = tmp_path / "ranges.json"
    options = {
        "shapes": {"image": (2, 1, 8, 8)}, "precision": precision, "target": "cuda:sm_90", "opt_level": 0,
        "calibration_cache": ranges,
    }  # fmt: skip
    path = builder.build_cuda(MODEL, output=tmp_path / "first.engine", calibrate=samples(4), **options)
    again = builder.build_cuda(MODEL, output=tmp_path / "second.engine", **options)
    products = [k for k in open_engine(path).header.kernels if k.family in ("conv", "matmul")]
    assert products[0].reads[0].dtype == "float16"  # the image
    assert {k.reads[0].dtype for k in products[1:]} == {stored} and len(products) > 2
    hits = 0
    with loaded(path) as engine, loaded(again) as other:
        for feed in samples(3):
            found, wanted = engine.run(feed)["logits"], expected(feed["image"])["logits"]
            assert np.allclose(found, other.run(feed)["logits"], rtol=1e-3, atol=1e-3)
            assert np.linalg.norm(found - wanted) <= 0.1 * np.linalg.norm(wanted)
            hits += int((found.argmax(1) == wanted.argmax(1)).sum())
    assert hits >= 5


@pytest.mark.parametrize(("precision", "stored"), [("int8", "int8"), ("fp8", "float8_e4m3fn")])
def test_8_bits_through_the_copy_engine(tmp_path, monkeypatch: pytest.MonkeyPatch, precision: str, stored: str) -> None:
    """Tensor maps of the engine know how wide its elements are."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((64, 64), np.float32) / 8 for name in ("v", "w")}
    nodes = [helper.make_node("MatMul", ["x", "v"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    model = models.model([*nodes, helper.make_node("MatMul", ["r", "w"], ["y"])], {"x": (2, 64, 64)}, ["y"], weights)
    way = GpuFamily("matmul", lambda p, target: [Schedule(64, 32, 64, copy_engine=True)], GPU_FAMILIES["matmul"].render)
    monkeypatch.setitem(GPU_FAMILIES, "matmul", way)
    feeds = [{"x": rng.standard_normal((2, 64, 64), np.float32)} for _ in range(3)]
    path = builder.build_cuda(
        model, output=tmp_path / "maps.engine", precision=precision, target="cuda:sm_90", opt_level=0, calibrate=feeds
    )
    assert f'"dtype":"{stored}"' in open_engine(path).blob("launches.sm_90").tobytes().decode()
    wanted = np.maximum(feeds[0]["x"] @ weights["v"], 0) @ weights["w"]
    found = loaded(path).run(feeds[0])["y"]
    assert np.linalg.norm(found - wanted) <= 0.1 * np.linalg.norm(wanted)


def test_floats_of_8_bits_stay_inside(tmp_path) -> None:
    """A model of them builds for GPUs that have them, if its inputs and outputs are others."""
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    constants = {"s": np.array(0.5, np.float32), "z": np.array(0, ml_dtypes.float8_e4m3fn)}
    model = models.model([node], {"x": (4, 8)}, ["y"], constants, output_type=TensorProto.FLOAT8E4M3FN)
    with pytest.raises(BuildError, match=r"output of type float8_e4m3fn.*DequantizeLinear between"):
        builder.build_cuda(model, output=tmp_path / "no.engine", target="cuda:sm_90")
    model = models.model([node, helper.make_node("DequantizeLinear", ["y", "s", "z"], ["d"])], {"x": (4, 8)}, ["d"], constants)
    with pytest.raises(BuildError, match=r"sm_80 has no floats of 8 bits.*--precision int8, or for another GPU"):
        builder.build_cuda(model, output=tmp_path / "no.engine", target="cuda:sm_80", opt_level=0)
    path = builder.build_cuda(model, output=tmp_path / "yes.engine", target="cuda:sm_90", opt_level=0)
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    wanted = (2 * x).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) / 2
    assert np.array_equal(loaded(path).run({"x": x})["d"], wanted)


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_80+sm_90"])
def test_fp8_is_refused_where_a_gpu_has_none(tmp_path, target: str) -> None:
    with pytest.raises(BuildError, match=r"fp8 for this target.*build with --target cuda:sm_90, or in int8"):
        builder.build_cuda(
            MODEL, output=tmp_path / "no.engine", shapes={"image": (2, 1, 8, 8)}, precision="fp8", target=target,
            calibrate=samples(2),
        )  # fmt: skip


@pytest.mark.slow
def test_the_gate_runs_on_the_gpu(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The precision best: engines of the gate are the GPU's, and the image's layer is not in its table."""
    monkeypatch.setattr(gate, "TIMED_RUNS", 1)
    monkeypatch.setattr(running, "PROFILE_LAUNCHES", 1)
    monkeypatch.setattr(shop, "load", loaded)
    path = builder.build_cuda(
        MODEL, output=tmp_path / "best.engine", shapes={"image": (2, 1, 8, 8)}, precision="best", target="cuda:sm_90",
        opt_level=0, calibrate=samples(2), min_cosine=0.5,
    )  # fmt: skip
    report = open_engine(path).header.report
    assert report["gate"]["cosine"] > 0.9 and len(report["layers"]) == 3
    assert all({"fp32_us", "int8_us", "fp8_us"} <= row.keys() for row in report["layers"]), "sm_90 has all three"
    found = loaded(path).run(samples(1)[0])["logits"]
    assert np.isfinite(found).all()


def test_int8_asks_for_samples(tmp_path) -> None:
    with pytest.raises(BuildError, match="int8 without calibration data"):
        made(tmp_path, "int8")


def test_the_server_serves_it_as_any_other(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests of one row each share a run of batch 2, and a lone one is padded."""
    path = made(tmp_path)
    monkeypatch.setattr(engines, "load", loaded)
    program = engines.EngineSet(ModelConfig("digits", max_batch_size=2), {0: path})
    instance = program.instance(1, False)
    x = image(2, seed=9)
    wanted = expected(x)["logits"]
    shared = instance.run([{"image": x[:1]}, {"image": x[1:]}]).outputs
    alone = instance.run([{"image": x[1:]}]).outputs
    for found, row in ((shared[0], 0), (shared[1], 1), (alone[0], 1)):
        assert found["logits"].shape == wanted[:1].shape
        assert np.linalg.norm(found["logits"][0] - wanted[row]) <= TOLERANCE["fp16"] * np.linalg.norm(wanted[row])
    instance.close()
    program.close()
