"""Loading: what is refused, what is freed, and what is not needed."""

import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import redline
from redline.base.errors import EngineError
from redline.engine import write_engine
from redline.runtime.loaded import check_processor
from tests.small_engines import SHAPE, small_engine

X = np.linspace(-3, 3, SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def path(tmp_path):
    return small_engine().write(tmp_path / "m.engine")


def test_an_engine_computes(path):
    with redline.load(path) as engine:
        assert [port.name for port in engine.inputs] == ["x"]
        assert [(port.name, port.dtype, port.shape) for port in engine.outputs] == [(n, np.float32, SHAPE) for n in "yz"]
        assert engine.report == {"model": "small"}
        assert repr(engine) == f"Engine({path}: x: float32 6x33 -> y: float32 6x33, z: float32 6x33)"
        for name, array in engine(x=X).items():
            np.testing.assert_array_equal(array, small_engine().expected(X)[name])


@pytest.mark.parametrize("target", ["generic", "avx2"])
def test_targets_below_the_host_compute_the_same(tmp_path, target):
    engine = redline.load(small_engine(target).write(tmp_path / "m.engine"))
    np.testing.assert_array_equal(engine(x=X)["y"], small_engine().expected(X)["y"])
    engine.close()


def test_another_processor_is_told_what_it_lacks():
    header = small_engine().header
    stamp = replace(header.stamp, target="avx512+vnni", features=("avx2", "avx512_vnni", "avx512f"))
    with pytest.raises(EngineError) as error:
        check_processor(replace(header, stamp=stamp), "m.engine", frozenset({"avx2"}))
    assert str(error.value) == (
        "[m.engine] it was built for avx512+vnni; this processor lacks avx512_vnni, avx512f; "
        "rebuild here with redline build --target cpu"
    )
    assert error.value.exit_code == 2


def test_a_plan_that_is_wrong_is_refused_before_its_code_is_loaded(tmp_path):
    small = small_engine()
    header = replace(small.header, arena_bytes=0)
    write_engine(tmp_path / "m.engine", header, {"code": [b"no code at all"], "weights": [small.weights.data]})
    with pytest.raises(EngineError, match="its plan is wrong: tensor 't' at bytes"):
        redline.load(tmp_path / "m.engine")


@pytest.mark.parametrize("code", [b"", b"no code at all", b"\x7fELF" + bytes(100)], ids=["empty", "text", "zeros"])
def test_code_that_cannot_be_loaded(tmp_path, code):
    small = small_engine()
    write_engine(tmp_path / "m.engine", small.header, {"code": [code], "weights": [small.weights.data]})
    with pytest.raises(EngineError, match=r"its code cannot be loaded: .*; build the engine again"):
        redline.load(tmp_path / "m.engine")


def test_code_of_another_build(tmp_path):
    small = small_engine()
    extra = replace(small.header.kernels[3], barrier=True)
    header = replace(small.header, kernels=(*small.header.kernels, extra))
    write_engine(tmp_path / "m.engine", header, {"code": [small.code], "weights": [small.weights.data]})
    with pytest.raises(EngineError, match="its code and its header are not of the same build"):
        redline.load(tmp_path / "m.engine")


def test_a_part_that_is_missing(tmp_path):
    write_engine(tmp_path / "m.engine", small_engine().header, {"code": [small_engine().code]})
    with pytest.raises(EngineError, match="it has no part 'weights'"):
        redline.load(tmp_path / "m.engine")


def test_a_number_of_threads_below_zero(path):
    with pytest.raises(EngineError, match=r"\[num_threads\] -1 is out of range"):
        redline.load(path, num_threads=-1)


def test_two_engines_loaded_one_after_the_other_keep_their_own_code(tmp_path):
    """The loader would take the second for the first if both had the same path under /proc/self/fd."""
    small = small_engine()
    first = redline.load(small.write(tmp_path / "a.engine"))
    doubled = replace(small, weights=small.weights * 2)
    second = redline.load(doubled.write(tmp_path / "b.engine"))
    np.testing.assert_array_equal(2 * first(x=X)["y"], second(x=X)["y"])
    first.close()
    third = redline.load(small_engine("generic").write(tmp_path / "c.engine"))
    np.testing.assert_array_equal(2 * third(x=X)["y"], second(x=X)["y"])


def test_the_file_may_be_replaced_or_removed_while_it_is_loaded(path):
    engine = redline.load(path)
    replace(small_engine(), weights=small_engine().weights * 0).write(path)
    np.testing.assert_array_equal(engine(x=X)["y"], small_engine().expected(X)["y"])
    path.unlink()
    np.testing.assert_array_equal(engine(x=X)["y"], small_engine().expected(X)["y"])


def open_things() -> tuple[int, int]:
    """Open files and mappings of engine files of this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count("redline-engine") + maps.count(".engine")


def test_closed_engines_leave_nothing_behind(path, tmp_path):
    keeper = redline.load(path)  # may own the thread pool
    before = open_things()
    for _ in range(5):
        engine = redline.load(small_engine("generic").write(tmp_path / "n.engine"))
        engine(x=X)
        context = engine.context()
        engine.close()
        engine.close()
        context.run({"x": X})  # a context keeps what it needs
        context.close()
        del engine, context
    redline.load(path)  # forgotten without close
    assert open_things() == before
    keeper.close()


def test_a_closed_engine_says_so(path):
    engine = redline.load(path)
    context = engine.context()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine(x=X)
    context.close()
    with pytest.raises(EngineError, match=r"\[context\] it is closed"):
        context.run({"x": X})


def test_a_process_that_runs_an_engine_imports_no_part_of_the_compiler(path):
    program = f"""
import sys, numpy, redline
engine = redline.load({str(path)!r})
assert engine(x=numpy.ones({SHAPE}, numpy.float32))["z"].sum() == -198
wrong = [m for m in sys.modules if m.startswith(("onnx", "ziglang", "redline.codegen", "redline.kernels", "redline.ops"))]
assert not wrong, wrong
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PATH": "/nonexistent"}, timeout=60)


def test_names_of_the_front_door():
    with pytest.raises(AttributeError, match="module 'redline' has no attribute 'laod'"):
        redline.laod  # noqa: B018


LEAN = """
import sys, numpy, redline
engine = redline.load({path!r})
engine(x=numpy.ones({shape}, numpy.float32))
print(sorted(set(sys.modules) & set("ml_dtypes hashlib concurrent.futures difflib redline.runtime.cuda.engine".split())))
"""


def test_a_process_that_serves_imports_little(path):
    program = LEAN.format(path=str(path), shape=SHAPE)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
