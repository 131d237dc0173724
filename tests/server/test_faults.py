"""What goes wrong in operation, and that it harms nobody else: each a server with real clients."""

import asyncio
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from serving import FEATURES, Scripted, add_identity, add_network, engine_bytes, expected, network, running, wait_until
from tritonclient.utils import InferenceServerException

from redline.server.limits import Limits

SCRIPTED = """backend: "scripted"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {1} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {1} ] }} ]
dynamic_batching {{ {0} }}
"""
ISOLATED = 'max_batch_size: 8\ndynamic_batching { }\nparameters: { key: "redline.isolated" value: { string_value: "true" } }\n'


def ask(server, name, x, input_name="x", **options):
    with http_client.InferenceServerClient(server.http) as client:
        given = http_client.InferInput(input_name, list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        return client.infer(name, [given], **options)


def raw(server, name, x, timeout=20):
    """One request over a socket of its own: (status, JSON or body)."""
    head = {
        "inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    body = text + x.tobytes()
    connection = socket.create_connection(("127.0.0.1", server.server.http_port), timeout)
    with connection:
        connection.sendall(
            b"POST /v2/models/%b/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
            b"Inference-Header-Content-Length: %d\r\n\r\n" % (name.encode(), len(body), len(text)) + body
        )
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split()[1]) if answer else 0, answer.partition(b"\r\n\r\n")[2]


def scripted(tmp_path, behave, queue="", features=4, **options):
    script = Scripted(behave)
    add_identity(tmp_path, "scripted", "FP32", SCRIPTED.format(queue, features))
    return script, running(tmp_path, {"scripted": script.load}, **options)


def test_an_engine_that_raises_fails_only_the_request_at_fault(tmp_path):
    def behave(batch):
        time.sleep(0.02)
        if any((arrays["x"] < 0).any() for arrays in batch):
            raise ValueError("negative")

    script, context = scripted(tmp_path, behave, "max_queue_delay_microseconds: 20000")
    with context as server, concurrent.futures.ThreadPoolExecutor(16) as pool:
        xs = [np.full((1, 4), -1.0 if i % 5 == 0 else i, np.float32) for i in range(16)]
        found = list(pool.map(lambda x: raw(server, "scripted", x), xs))
        assert max(script.batches) > 1
        for x, (status, body) in zip(xs, found, strict=True):
            if x[0, 0] < 0:
                assert status == 500 and b"internal error" in body
            else:
                assert status == 200 and body.endswith((2 * x).tobytes())
        assert raw(server, "scripted", xs[1])[0] == 200


def test_a_client_that_vanishes_takes_its_request_along(tmp_path):
    gate = threading.Event()
    script, context = scripted(tmp_path, lambda batch: gate.wait(20))
    with context as server:
        x = np.ones((1, 4), np.float32)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            first = pool.submit(raw, server, "scripted", x)
            wait_until(lambda: len(script.batches) == 1)
            scheduler = server.server.repository.find("scripted").scheduler
            gone = [socket.create_connection(("127.0.0.1", server.server.http_port)) for _ in range(3)]
            text = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode()
            for connection in gone:
                head = b"POST /v2/models/scripted/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(text)
                connection.sendall(head + text)
            wait_until(lambda: scheduler.waiting == 3)
            half = socket.create_connection(("127.0.0.1", server.server.http_port))
            half.sendall(b"POST /v2/models/scripted/infer HTTP/1.1\r\nContent-Length: 500\r\n\r\n{")
            for connection in [*gone, half]:
                connection.close()
            wait_until(lambda: scheduler.waiting == 0)
            gate.set()
            assert first.result()[0] == 200
        assert raw(server, "scripted", x)[0] == 200
        wait_until(lambda: server.server.plane.in_flight == 0)


def test_a_cancelled_grpc_call_leaves_the_queue(tmp_path):
    gate = threading.Event()
    script, context = scripted(tmp_path, lambda batch: gate.wait(20))
    with context as server, grpc_client.InferenceServerClient(server.grpc) as client:
        given = grpc_client.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        done = []
        client.async_infer("scripted", [given], lambda result, error: done.append(error))
        wait_until(lambda: len(script.batches) == 1)
        handles = [client.async_infer("scripted", [given], lambda result, error: done.append(error)) for _ in range(4)]
        scheduler = server.server.repository.find("scripted").scheduler
        wait_until(lambda: scheduler.waiting == 4)
        for handle in handles:
            handle.cancel()
        wait_until(lambda: scheduler.waiting == 0)
        gate.set()
        wait_until(lambda: len(done) == 5)
        assert sum(error is None for error in done) == 1 and len(script.batches) == 1


def test_timeouts_and_full_queues_are_answered(tmp_path):
    gate = threading.Event()
    policy = "default_queue_policy { max_queue_size: 2 default_timeout_microseconds: 200000 }"
    script, context = scripted(tmp_path, lambda batch: gate.wait(20), policy)
    with context as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        x = np.ones((1, 4), np.float32)
        first = pool.submit(raw, server, "scripted", x)
        wait_until(lambda: len(script.batches) == 1)
        others = [pool.submit(raw, server, "scripted", x) for _ in range(5)]
        answers = [other.result() for other in others]
        assert [status for status, _ in answers] == [503] * 5
        assert sum(b"max_queue_size" in body for _, body in answers) == 3
        assert sum(b"timeout expired" in body for _, body in answers) == 2
        gate.set()
        assert first.result()[0] == 200


def test_a_client_deadline_of_grpc(tmp_path):
    gate = threading.Event()
    _, context = scripted(tmp_path, lambda batch: gate.wait(20))
    with context as server, grpc_client.InferenceServerClient(server.grpc) as client:
        given = grpc_client.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
            client.infer("scripted", [given], client_timeout=0.3)
        gate.set()
        assert np.array_equal(client.infer("scripted", [given]).as_numpy("y"), np.full((1, 4), 2, np.float32))


def test_limits_of_body_and_concurrency(tmp_path):
    gate = threading.Event()
    _, context = scripted(tmp_path, lambda batch: gate.wait(20), max_in_flight=2, limits=Limits(body_bytes=4096))
    with context as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        x = np.ones((1, 4), np.float32)
        busy = [pool.submit(raw, server, "scripted", x) for _ in range(2)]
        wait_until(lambda: server.server.plane.in_flight == 2)
        assert raw(server, "scripted", x)[0] == 429
        gate.set()
        assert [b.result()[0] for b in busy] == [200, 200]
        assert raw(server, "scripted", np.ones((8, 4096), np.float32))[0] == 413


def test_the_bytes_of_all_requests_are_limited(tmp_path):
    gate = threading.Event()
    _, context = scripted(tmp_path, lambda batch: gate.wait(20), "", 100_000, limits=Limits(held_bytes=600_000))
    with context as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        holding, x = server.server.plane.holding, np.ones((1, 100_000), np.float32)
        first = pool.submit(raw, server, "scripted", x)
        wait_until(lambda: server.server.plane.in_flight == 1)
        assert holding.num_bytes > x.nbytes
        status, body = raw(server, "scripted", x)
        assert status == 503 and b"600000" in body
        with grpc_client.InferenceServerClient(server.grpc) as client:
            given = grpc_client.InferInput("x", list(x.shape), "FP32")
            given.set_data_from_numpy(x)
            with pytest.raises(InferenceServerException, match=r"UNAVAILABLE.*no room"):
                client.infer("scripted", [given])
            gate.set()
            assert first.result()[0] == 200
            assert (client.infer("scripted", [given]).as_numpy("y") == 2).all()
        with socket.create_connection(("127.0.0.1", server.server.http_port), 20) as half:
            half.sendall(b"POST /v2/models/scripted/infer HTTP/1.1\r\nContent-Length: 400000\r\n\r\n" + bytes(200_000))
            wait_until(lambda: holding.num_bytes > 150_000)
        with socket.create_connection(("127.0.0.1", server.server.http_port), 20) as chunked:
            head = b"POST /v2/models/scripted/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            chunked.sendall(head + b"aae60\r\n" + bytes(700_000))
            assert b" 503 " in chunked.recv(1 << 16)
        wait_until(lambda: holding.num_bytes == 0)


def test_a_killed_worker_is_restarted(tmp_path):
    add_network(tmp_path, "network", config=ISOLATED)
    with running(tmp_path) as server:
        assert not server.failures
        x = np.random.default_rng(0).standard_normal((3, FEATURES)).astype(np.float32)
        np.testing.assert_allclose(ask(server, "network", x).as_numpy("y"), expected(x), rtol=1e-5, atol=1e-5)
        instance = server.server.repository.find("network").scheduler._runners[0].instance
        statuses, wrong, stop = [], [], threading.Event()

        def load():
            while not stop.is_set():
                status, body = raw(server, "network", x)
                statuses.append(status)
                if status == 200 and np.allclose(np.frombuffer(body[-96:], np.float32).reshape(3, 8), expected(x), atol=1e-4):
                    continue
                if status != 503:
                    wrong.append((status, body))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            victim = instance.pid
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda v=victim: instance.pid != v)
            time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert not wrong, wrong[:3]
        assert statuses[-1] == 200 and raw(server, "network", x)[0] == 200


def test_a_corrupt_new_version_leaves_the_old_one(tmp_path):
    folder = add_network(tmp_path, "network", config="max_batch_size: 8\ndynamic_batching { }\n")
    with running(tmp_path, control="explicit", load=("network",)) as server:
        x = np.ones((1, FEATURES), np.float32)
        (folder / "2").mkdir()
        damaged = bytearray(engine_bytes(1, 5.0))
        damaged[len(damaged) // 2] ^= 1
        (folder / "2" / "model.b1.engine").write_bytes(damaged)
        with http_client.InferenceServerClient(server.http) as client:
            with pytest.raises(InferenceServerException, match="damaged"):
                client.load_model("network")
            np.testing.assert_allclose(ask(server, "network", x).as_numpy("y"), expected(x), rtol=1e-5)
            rows = {row["version"]: row for row in client.get_model_repository_index()}
            assert rows["1"]["state"] == "READY" and rows["2"]["state"] == "UNAVAILABLE" and "damaged" in rows["2"]["reason"]
            (folder / "2" / "model.b1.engine").write_bytes(engine_bytes(1, 5.0))
            client.load_model("network")
            np.testing.assert_allclose(ask(server, "network", x).as_numpy("y"), expected(x, 5.0), rtol=1e-5)


def reload_under_load(tmp_path, times):
    """Reloads between two versions of a network while clients ask; gives (answers, resident bytes early and late)."""
    folder = add_network(tmp_path, "network", batches=(4,), config="max_batch_size: 4\ndynamic_batching { }\n")
    contents = [engine_bytes(4, 0.0), engine_bytes(4, 50.0)]
    x = np.random.default_rng(0).standard_normal((2, FEATURES)).astype(np.float32)
    allowed = [expected(x), expected(x, 50.0)]
    with running(tmp_path, control="explicit", load=("network",)) as server:
        stop, wrong, count = threading.Event(), [], [0]

        def load():
            with http_client.InferenceServerClient(server.http) as client:
                given = http_client.InferInput("x", [2, FEATURES], "FP32")
                given.set_data_from_numpy(x)
                while not stop.is_set():
                    try:
                        y = client.infer("network", [given]).as_numpy("y")
                        if not any(np.allclose(y, a, rtol=1e-4, atol=1e-4) for a in allowed):
                            wrong.append("answer")
                    except Exception as error:
                        wrong.append(repr(error))
                    count[0] += 1

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        early = 0
        with http_client.InferenceServerClient(server.http) as client:
            for n in range(times):
                scratch = folder / "1" / "next"
                scratch.write_bytes(contents[n % 2])
                scratch.rename(folder / "1" / "model.b4.engine")
                client.load_model("network")
                if n == times // 3:
                    early = resident_bytes()
        late = resident_bytes()
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not wrong, wrong[:3]
        return count[0], early, late


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_reloads_under_load(tmp_path):
    count, early, late = reload_under_load(tmp_path, 60)
    assert count > 60 and late - early < 48 << 20


@pytest.mark.slow
def test_a_thousand_reloads_under_load(tmp_path):
    count, early, late = reload_under_load(tmp_path, 1000)
    assert count > 1000 and late - early < 32 << 20, f"{early} -> {late}"


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from serving import Scripted
from redline.server.app import Options, run
import time
script = Scripted(lambda batch: time.sleep(0.05))
options = Options((Path({root!r}),), http_port=0, grpc_port=0, metrics_port=-1, grace_s=20)
announce = lambda server, failures: print(server.http_port, server.grpc_port, failures, flush=True)
sys.exit(run(options, announce, {{"scripted": script.load}}))
"""


def test_sigterm_under_load_answers_everything_accepted(tmp_path):
    add_identity(tmp_path, "scripted", "FP32", SCRIPTED.format("", 4))
    program = PROGRAM.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        http_port = int(process.stdout.readline().split()[0])
        outcomes, stop = [], threading.Event()

        class Address:
            class server:
                pass

        Address.server.http_port = http_port
        x = np.ones((1, 4), np.float32)

        def load():
            while not stop.is_set():
                try:
                    outcomes.append(raw(Address, "scripted", x))
                except ConnectionRefusedError:
                    outcomes.append((-1, b""))  # never accepted
                    return

        threads = [threading.Thread(target=load) for _ in range(24)]
        for thread in threads:
            thread.start()
        time.sleep(0.6)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert process.wait(30) == 0
        statuses = [status for status, _ in outcomes]
        assert statuses.count(200) > 24 and set(statuses) <= {200, 503, -1}, set(statuses)
        for status, body in outcomes:
            if status == 200:
                assert body.endswith((2 * x).tobytes())
    finally:
        process.kill()
        process.wait()


def test_a_build_that_fails_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    """The disk is full: the builder's process may write no file of more than a few bytes."""
    import onnx

    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "models"
    (root / "network" / "1").mkdir(parents=True)
    onnx.save(network(), root / "network" / "1" / "model.onnx")
    config = 'max_batch_size: 2\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]\ndynamic_batching { }\n'
    (root / "network" / "config.pbtxt").write_text(config)
    import redline.server.backends.building as building

    real = building.subprocess.Popen

    def limited(command, **options):
        return real(["bash", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$@"', "bash", *command], **options)

    with monkeypatch.context() as patch:
        patch.setattr(building.subprocess, "Popen", limited)
        with running(root, strict=False) as server:
            assert "does not build" in server.failures[0]
            with pytest.raises(InferenceServerException, match="no version is ready"):
                ask(server, "network", np.ones((1, FEATURES), np.float32))
    assert not list((tmp_path / "cache").rglob("*.engine"))
    with running(root) as server:
        assert not server.failures
        x = np.ones((2, FEATURES), np.float32)
        np.testing.assert_allclose(ask(server, "network", x).as_numpy("y"), expected(x), rtol=1e-5)
    assert len(list((tmp_path / "cache" / "served").glob("*.engine"))) == 2


def test_sigterm_ends_a_build_too(tmp_path):
    import onnx

    (tmp_path / "network" / "1").mkdir(parents=True)
    onnx.save(network(), tmp_path / "network" / "1" / "model.onnx")
    config = 'max_batch_size: 64\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
    (tmp_path / "network" / "config.pbtxt").write_text(config)
    command = [
        sys.executable,
        "-m",
        "redline",
        "serve",
        str(tmp_path),
        "--http-port",
        "0",
        "--grpc-port",
        "-1",
        "--metrics-port",
        "-1",
    ]
    environment = {**os.environ, "REDLINE_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert "building" in process.stderr.readline()
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert not list((tmp_path / "cache").rglob("*.engine"))


def test_polling_finds_changes(tmp_path):
    folder = add_network(tmp_path, "network", batches=(1,), config="max_batch_size: 1\n")
    with running(tmp_path, control="poll", poll_s=0.1) as server:
        x = np.ones((1, FEATURES), np.float32)
        np.testing.assert_allclose(ask(server, "network", x).as_numpy("y"), expected(x), rtol=1e-5)
        scratch = tmp_path / ".next"
        scratch.mkdir()
        (scratch / "model.b1.engine").write_bytes(engine_bytes(1, 9.0))
        scratch.rename(folder / "2")
        wait_until(lambda: np.allclose(ask(server, "network", x).as_numpy("y"), expected(x, 9.0), rtol=1e-4))
        add_identity(tmp_path, "late", "FP32")
        wait_until(lambda: server.call(lambda: server.server.plane.model_ready("late")))


def test_the_cache_answers_without_running(tmp_path):
    script, context = scripted(tmp_path, lambda batch: None, cache_bytes=1 << 20)
    path = tmp_path / "scripted" / "config.pbtxt"
    path.write_text(path.read_text() + "response_cache { enable: true }\n")
    with context as server:
        before = len(script.batches)
        for value in (1.0, 2.0, 1.0, 1.0, 2.0):
            y = ask(server, "scripted", np.full((1, 4), value, np.float32)).as_numpy("y")
            assert np.array_equal(y, np.full((1, 4), 2 * value, np.float32))
        assert len(script.batches) - before == 2


def test_answers_keep_their_order_where_asked(tmp_path):
    from redline.server.types import InferRequest, Tensor

    def behave(batch):
        time.sleep(0.15 if batch[0]["x"][0, 0] == 1 else 0.01)

    config = SCRIPTED.format("preserve_ordering: true", 4) + "instance_group { count: 2 }\n"
    script = Scripted(behave)
    add_identity(tmp_path, "scripted", "FP32", config)
    with running(tmp_path, {"scripted": script.load}) as server:

        async def ask_all():
            order = []

            async def one(n):
                x = np.full((8, 4), n, np.float32)
                await server.server.plane.infer(InferRequest("scripted", "", (Tensor("x", "FP32", x),)))
                order.append(n)

            await asyncio.gather(*[one(n) for n in range(1, 6)])
            return order

        assert server.call(ask_all) == [1, 2, 3, 4, 5]


def test_draining_refuses_what_comes_later(tmp_path):
    gate = threading.Event()
    script, context = scripted(tmp_path, lambda batch: gate.wait(20))
    with context as server:
        x = np.ones((1, 4), np.float32)
        keep = socket.create_connection(("127.0.0.1", server.server.http_port))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(raw, server, "scripted", x)
            wait_until(lambda: len(script.batches) == 1)
            server.begin_stop()
            wait_until(lambda: server.server.plane.draining)
            keep.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 503 " in keep.recv(4096)
            gate.set()
            assert first.result()[0] == 200
        keep.close()
        assert server.stop()


def test_the_async_context_does_not_leak(tmp_path):
    add_identity(tmp_path, "id", "FP32")
    with running(tmp_path) as server:
        x = np.ones((1, 4), np.float32)
        for _ in range(50):
            ask(server, "id", x, "INPUT0")
        assert server.call(lambda: len(asyncio.all_tasks())) < 10
