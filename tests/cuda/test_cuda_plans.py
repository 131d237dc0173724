"""CUDA engines of several plans, with a driver that has no GPU: dispatch by shape, what plans share, graphs."""

import numpy as np
import onnxruntime
import pytest
from fake_driver import FakeDriver, as_cubins

import redline.tune.cuda as tuning
from redline.base.errors import BuildError, EngineError, InputError
from redline.builder import cuda as builder
from redline.engine import launch, open_engine
from redline.kernels.gpu import GpuTarget
from redline.runtime.cuda import context as running
from redline.runtime.cuda.engine import CudaEngine
from redline.runtime.cuda.loaded import CudaLoaded

MODEL = "models/digits.onnx"


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "compile_cubins", as_cubins)
    monkeypatch.setattr(builder, "_target", lambda arch, machine, precision: GpuTarget(arch, plain=True, tf32=False))


def built(tmp_path, **options):
    return builder.build_cuda(MODEL, output=tmp_path / "digits.engine", target="cuda:sm_80+sm_90", opt_level=0, **options)


def several(tmp_path):
    """Batches 1, 2 and 3."""
    shapes = [{"image": (1, 1, 8, 8)}, {"image": (2, 1, 8, 8)}]
    return built(tmp_path, shapes=shapes, buckets={"three": {"image": (3, 1, 8, 8)}}, precision="fp32")


def loaded(path, **options) -> tuple[CudaEngine, FakeDriver]:
    driver = FakeDriver(**options)
    return CudaEngine(CudaLoaded(open_engine(path), 0, driver)), driver


def image(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, 1, 8, 8), np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": x})[0]


def test_a_call_runs_the_plan_for_its_shape(tmp_path) -> None:
    engine, driver = loaded(several(tmp_path))
    with engine:
        for batch, name in ((3, "three"), (1, "profile 1"), (2, "profile 2"), (3, "three"), (3, "three")):
            x = image(batch, batch)
            found = engine(image=x)["logits"]
            assert found.shape == (batch, 10) and np.allclose(found, expected(x), rtol=1e-4, atol=1e-5)
            assert engine.header_at({"image": x}).name == name
    assert driver.num_captured == 1  # the shape that came again


def test_plans_share_weights_and_code(tmp_path) -> None:
    alone = open_engine(built(tmp_path, shapes={"image": (1, 1, 8, 8)}, precision="fp32"))
    lone = {name: alone.blob(name).nbytes for name in ("weights", "cubins.sm_90")}
    file = open_engine(several(tmp_path))
    assert [file.plan(number).name for number in range(3)] == ["profile 1", "profile 2", "three"]
    assert file.blob("weights").nbytes == lone["weights"]
    decoded = [
        launch.decode(file.blob(launch.blob_of("sm_90", n)).tobytes(), file.blob("cubins.sm_90").nbytes, len(plan.kernels), "x")
        for n, plan in ((n, file.plan(n)) for n in range(3))
    ]
    parts = [part for launches in decoded for part in launches.cubins]
    assert len(set(parts)) < len(parts)
    codes = [bytes(file.blob("cubins.sm_90")[p.offset : p.offset + p.num_bytes]) for p in set(parts)]
    assert len(set(codes)) == len(codes)


def test_other_shapes_are_refused_with_what_is_allowed(tmp_path) -> None:
    engine, _ = loaded(several(tmp_path))
    with pytest.raises(InputError, match=r"image 5x1x8x8 was given.*profile 1: exactly image 1x1x8x8.*three: exactly"):
        engine(image=image(5))


def test_graphs_are_kept_in_a_bounded_number(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_GRAPHS", 1)
    monkeypatch.setattr(running, "MAX_SEEN", 2)
    engine, driver = loaded(several(tmp_path))
    for batch in (1, 1, 2, 2, 1, 1):
        engine(image=image(batch))
    assert driver.num_captured == 3
    held = len(driver.memory)
    for batch in (3, 1, 2, 3, 1, 2):
        engine(image=image(batch))
    assert len(driver.memory) == held


def test_device_arrays_of_any_plan(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PROFILE_LAUNCHES", 1)
    engine, driver = loaded(several(tmp_path))
    context = engine.context()
    for batch in (1, 3):
        x = image(batch, 7)
        source, target = (f({"image": x.shape}) for f in (context.device_inputs, context.device_outputs))
        assert source["image"].shape == x.shape and target["logits"].shape == (batch, 10)
        driver.to_device(source["image"].address, x.ctypes.data, x.nbytes, None)
        context.launch(source, target)
        context.wait()
        direct = np.empty((batch, 10), np.float32)
        driver.to_host(direct.ctypes.data, target["logits"].address, direct.nbytes, None)
        assert np.allclose(direct, expected(x), rtol=1e-4, atol=1e-5)
    context.poison()
    assert np.allclose(context.run({"image": image(2)})["logits"], expected(image(2)), rtol=1e-4, atol=1e-5)
    assert context.profile({"image": image(2)}, 1).shape == (1, len(engine.header_at({"image": image(2)}).kernels))
    context.close()


def test_integers_are_for_one_plan(tmp_path) -> None:
    with pytest.raises(BuildError, match=r"int8 with open shapes or several plans.*allowed: fp32, tf32, fp16, bf16"):
        shapes = [{"image": (1, 1, 8, 8)}, {"image": (2, 1, 8, 8)}]
        built(tmp_path, shapes=shapes, precision="int8", calibrate=[{"image": image(1)}])


def test_a_gpu_of_none_of_the_architectures_is_refused(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"built for sm_80, sm_90; this GPU is sm_100 .*--target cuda:sm_100"):
        loaded(several(tmp_path), arch=100)
