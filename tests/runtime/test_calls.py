"""Calls made ahead: futures, coroutines, cancellation, the bound on threads, and the end of a program in the middle of work."""

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

import redline
from redline.base.errors import EngineError, InputError
from redline.runtime.calls import Calls
from tests.small_engines import SHAPE, small_engine

X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
TIMEOUT_S = 60


@pytest.fixture
def engine(tmp_path):
    engine = redline.load(small_engine().write(tmp_path / "m.engine"))
    yield engine
    engine.close()


def right(results, x) -> bool:
    return all(np.array_equal(results[name], expected) for name, expected in small_engine().expected(x).items())


def test_futures(engine):
    pending = [engine.run_async({"x": X + i}) for i in range(200)]
    assert all(right(future.result(TIMEOUT_S), X + i) for i, future in enumerate(pending))


def test_the_callers_arrays_are_written(engine):
    y = np.empty(SHAPE, np.float32)
    assert engine.run_async({"x": X}, out={"y": y}).result(TIMEOUT_S)["y"] is y


def test_errors_arrive_where_the_result_is_asked_for(engine):
    future = engine.run_async({"x": X[:3]})
    with pytest.raises(InputError, match="float32 3x33 was given"):
        future.result(TIMEOUT_S)


def test_coroutines(engine):
    async def main():
        results = await asyncio.gather(*(ask(i) for i in range(50)))
        with pytest.raises(InputError):
            await engine.run_async({})
        return all(results)

    async def ask(i):
        return right(await engine.run_async({"x": X + i}), X + i)

    assert asyncio.run(main())


def test_loading_in_the_background(engine):
    async def main():
        other = await redline.load_async(engine.path)
        return right(other(x=X), X)

    assert asyncio.run(main())
    with pytest.raises(EngineError, match="cannot be read"):
        redline.load_async(engine.path + "x").result(TIMEOUT_S)


def test_what_has_not_begun_is_cancelled():
    calls, gate = Calls(1), threading.Event()
    running, queued, last = (calls.submit(lambda i=i: gate.wait() and i) for i in range(3))
    assert queued.cancel()
    while not running.running():
        time.sleep(0.001)
    assert not running.cancel()
    gate.set()
    assert (running.result(TIMEOUT_S), last.result(TIMEOUT_S)) == (0, 2) or last.result() == 2
    with pytest.raises(CancelledError):
        queued.result()
    calls.close()


def test_closing_cancels_what_waits_and_leaves_what_runs():
    calls, gate = Calls(2), threading.Event()
    pending = [calls.submit(lambda i=i: (gate.wait(), i)[1]) for i in range(5)]
    while not (pending[0].running() and pending[1].running()):
        time.sleep(0.001)
    calls.close()
    gate.set()
    assert [future.result(TIMEOUT_S) for future in pending[:2]] == [0, 1]
    assert all(future.cancelled() for future in pending[2:])


def test_threads_are_few_and_end():
    calls = Calls(3)
    before = threading.active_count()
    wait([calls.submit(lambda: time.sleep(0.002)) for _ in range(50)])
    assert threading.active_count() - before <= 3
    calls.close()
    deadline = time.monotonic() + TIMEOUT_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.active_count() == before


def test_a_closed_engine_takes_no_calls(engine):
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run_async({"x": X})


END = """
import threading, numpy, redline
engine = redline.load({path!r})
x = numpy.ones({shape}, numpy.float32)
def work():
    while True:
        engine(x=x)
for _ in range(8):
    threading.Thread(target=work, daemon=True).start()
pending = [engine.run_async({{"x": x}}) for _ in range(5000)]
assert pending[10].result()["z"].sum() == -198
"""


@pytest.mark.parametrize("how", ["", "engine.close()", "del engine", "raise SystemExit(0)"])
def test_a_program_ends_in_the_middle_of_work(engine, how):
    program = END.format(path=engine.path, shape=SHAPE) + how
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
        assert not done.stderr or how in ("engine.close()", "del engine"), done.stderr[-2000:]  # the program's threads object


def test_many_callers_make_few_contexts_and_stay_right(engine):
    wrong, stop = [], threading.Event()

    def work(seed):
        while not stop.is_set():
            if not right(engine(x=X + seed), X + seed):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    stop.set()
    for worker in workers:
        worker.join(TIMEOUT_S)
    assert not wrong and not any(worker.is_alive() for worker in workers)
    assert len(engine._idle) <= 17
