"""Weights are checked before they are used, whoever comes first: the thread that reads ahead, a run, a child, or preload."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import redline
from redline.base.errors import EngineError
from redline.engine import Access, TensorPlan, open_engine, write_engine
from redline.engine.checksum import checksum
from redline.engine.layout import BLOCK_BYTES
from redline.runtime.loaded import Loaded
from redline.runtime.weights import Weights, plan_order
from tests.small_engines import SHAPE, small_engine

X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
BLOCKS = 6


@pytest.fixture
def path(tmp_path):
    """The small engine with weights of several blocks; its third step reads the first block."""
    small = small_engine()
    weights = np.resize(small.weights, BLOCKS * BLOCK_BYTES // 4 - 5)
    weights[: small.weights.size] = small.weights
    write_engine(tmp_path / "m.engine", small.header, {"code": [small.code], "weights": [weights.data]})
    return tmp_path / "m.engine"


def damage(path, block):
    data = bytearray(path.read_bytes())
    start = len(data) - -(-(BLOCKS * BLOCK_BYTES - 20) // 64) * 64
    data[start + block * BLOCK_BYTES + 1000] ^= 1
    path.write_bytes(data)


def asleep(monkeypatch):
    """No thread checks in the background: the run itself has to."""
    monkeypatch.setattr(Weights, "_add_readers", lambda self, count: None)


def test_a_run_checks_what_it_needs_and_no_more(path, monkeypatch):
    asleep(monkeypatch)
    engine = redline.load(path)
    weights = engine._loaded.plan(0).weights
    assert weights.needs == [0, 0, 1, 1] and not weights.is_checked
    np.testing.assert_array_equal(engine(x=X)["y"], small_engine().expected(X)["y"])
    assert weights._prefix == 1 and not weights.is_checked
    assert engine.profile({"x": X}, 2).shape == (2, 4)


def test_everything_is_checked_in_the_background(path):
    engine = redline.load(path)
    deadline = time.monotonic() + 60
    while not engine._loaded.plan(0).weights.is_checked and time.monotonic() < deadline:
        time.sleep(0.001)
    assert engine._loaded.plan(0).weights.is_checked


def test_a_damaged_block_that_a_step_reads_stops_every_run(path, monkeypatch):
    damage(path, 0)
    asleep(monkeypatch)
    engine = redline.load(path)
    for _ in range(2):
        with pytest.raises(EngineError, match="it is damaged: block 0 of 'weights' is not what was written"):
            engine(x=X)


@pytest.mark.parametrize("block", [0, 3, BLOCKS - 1])
def test_preload_and_full_find_every_damaged_block(path, block):
    damage(path, block)
    for options in ({"preload": True}, {"verify": "full"}):
        with pytest.raises(EngineError, match=f"block {block} of 'weights'"):
            redline.load(path, **options)


def test_preload_and_full_leave_nothing_to_check(path):
    for options in ({"preload": True}, {"verify": "full"}):
        assert redline.load(path, **options)._loaded.plan(0).weights.is_checked


def test_a_child_forked_while_blocks_are_being_checked(path, monkeypatch):
    asleep(monkeypatch)
    engine = redline.load(path)
    next(engine._loaded.plan(0).weights._next)  # somebody has begun the first block and is not in the child
    pid = os.fork()
    if pid == 0:
        os._exit(not np.array_equal(engine(x=X)["y"], small_engine().expected(X)["y"]))
    assert os.waitpid(pid, 0)[1] == 0


def test_an_engine_closed_while_blocks_are_being_checked(path):
    for _ in range(30):
        redline.load(path).close()
    loaded = Loaded(open_engine(path, "lazy"), "lazy", False)
    threads = loaded.plan(0).weights._threads
    del loaded
    assert not any(thread.is_alive() for thread in threads)


def test_the_order_is_that_of_the_first_use():
    header = small_engine().header
    tensors = tuple(TensorPlan(f"w{i}", "weights", i * 64, 64, 0, 3) for i in range(5))
    reads = [[2], [4, 0], [], [2, 1]]
    kernels = tuple(
        replace(kernel, reads=tuple(Access("weights", t, 0, "float32", (16,), (1,)) for t in which))
        for kernel, which in zip(header.kernels, reads, strict=True)
    )
    needs, order = plan_order(replace(header, tensors=tensors, kernels=kernels), [(i * 64, i * 64 + 64) for i in range(5)])
    assert (needs, order) == ([1, 3, 3, 4], [2, 4, 0, 1, 3])


@pytest.mark.parametrize("num_bytes", [0, 1, 8, 511, 512, 513, 4096, 100_003])
def test_the_checksum_is_the_same_in_c(path, num_bytes):
    engine = redline.load(path)
    data = np.random.default_rng(num_bytes).integers(0, 256, num_bytes + 1, np.uint8)[1:]
    assert engine._loaded.library.checksum(data.ctypes.data, num_bytes) == checksum(data.tobytes())


def test_the_checksum_sees_every_single_bit_and_the_length():
    block = bytearray(np.random.default_rng(0).integers(0, 256, 1500, np.uint8).tobytes())
    whole = checksum(block)
    for bit in range(0, 12000, 7):
        block[bit // 8] ^= 1 << bit % 8
        assert checksum(block) != whole
        block[bit // 8] ^= 1 << bit % 8
    assert checksum(block + b"\0") != whole


CYCLES = """
import gc, numpy, redline
def resident():
    return int(open("/proc/self/statm").read().split()[1]) << 2
keeper = redline.load({path!r})
x = numpy.ones({shape}, numpy.float32)
for cycle in range({cycles}):
    with redline.load({path!r}) as engine:
        engine(x=x)
        engine.run_async({{"x": x}}).result()
    if cycle == 20:
        gc.collect()
        before = resident()
gc.collect()
print(resident() - before)
"""


@pytest.mark.parametrize("cycles", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_loading_again_and_again_takes_no_more_memory(path, cycles):
    program = CYCLES.format(path=str(path), shape=SHAPE, cycles=cycles)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) < 1024, f"{done.stdout} KiB more"
