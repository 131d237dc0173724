"""Many callers, forks, pinned processes: always right, and never stuck."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import redline
from redline.base import cpu
from redline.base.errors import InputError
from tests.small_engines import SHAPE, small_engine

X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
TIMEOUT_S = 60


@pytest.fixture
def engine(tmp_path):
    engine = redline.load(small_engine().write(tmp_path / "m.engine"), num_threads=4)
    yield engine
    engine.close()


def right(results, x) -> bool:
    return all(np.array_equal(results[name], expected) for name, expected in small_engine().expected(x).items())


def in_child(action) -> int:
    """The exit status of a forked child that runs ``action``: 0 when it gave True; -1 when it did not end in time."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if action() else 1
        finally:
            os._exit(status)
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


def test_many_runs_in_a_row(engine):
    assert all(right(engine(x=X + i), X + i) for i in range(2000))


@pytest.mark.parametrize("callers", [2, 5])
def test_many_callers_at_once(engine, callers):
    def call(seed):
        x = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        return all(right(engine(x=x), x) for _ in range(300))

    with ThreadPoolExecutor(callers) as threads:
        assert all(threads.map(call, range(callers)))


def test_runs_alternate_between_engines_that_share_the_pool(engine, tmp_path):
    other = redline.load(small_engine("generic").write(tmp_path / "other.engine"), num_threads=2)
    for i in range(200):
        assert right((engine, other)[i % 2](x=X + i), X + i)
    other.close()


def test_a_context_in_use_is_refused(engine):
    context = engine.context()
    context._busy.acquire()
    with pytest.raises(InputError, match=r"\[context\] it is running in another thread; make a context for each thread"):
        context.run({"x": X})
    context._busy.release()
    assert right(context.run({"x": X}), X)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_runs_the_engine(engine):
    assert right(engine(x=X), X)  # the pool's threads exist in the parent, and not in the child
    assert in_child(lambda: all(right(engine(x=X + i), X + i) for i in range(50))) == 0
    assert right(engine(x=X), X)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_others_run(engine):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            engine(x=X)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(5):
            assert in_child(lambda: all(right(engine(x=X), X) for _ in range(20))) == 0
    finally:
        stop.set()
        for worker in workers:
            worker.join()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_child(engine):
    assert in_child(lambda: right(engine(x=X), X) and in_child(lambda: right(engine(x=X), X)) == 0) == 0


def test_a_process_pinned_to_one_core(engine, tmp_path):
    program = f"""
import os, numpy, redline
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
engine = redline.load({engine.path!r}, num_threads=8)
for i in range(500):
    assert engine(x=numpy.full({SHAPE}, i, numpy.float32))["z"].sum() == -198 * i
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=TIMEOUT_S)


def test_idle_threads_use_no_processor_time(engine):
    assert right(engine(x=X), X)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_the_variable_limits_the_threads(engine, monkeypatch):
    monkeypatch.setenv("REDLINE_NUM_THREADS", "3")
    assert redline.load(engine.path).num_threads == 3
    monkeypatch.delenv("REDLINE_NUM_THREADS")
    assert redline.load(engine.path).num_threads == cpu.allowed_cores()


def test_a_run_leaves_the_interpreter_to_other_threads(engine):
    """The interpreter's lock is free during a run: another thread gets on, whatever the caller does."""
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(None)
            time.sleep(0)

    worker = threading.Thread(target=tick)
    worker.start()
    for _ in range(200):
        engine(x=X)
    stop.set()
    worker.join()
    assert ticks
