"""Ensembles pass tensors on uncopied, run independent steps, and fail as one; the response cache; spans over OTLP."""

import http.server
import threading

import numpy as np
import pytest
import tritonclient.http as http_client
from serving import add_identity, add_network, running, wait_until
from tritonclient.utils import InferenceServerException

from redline.server.cache import ResponseCache, key_of
from redline.server.program import Ran, with_batch
from redline.server.types import Tensor

SPECS = """max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
"""
STEP = """step {{ model_name: "{0}" model_version: -1
  input_map {{ key: "x" value: "{1}" }} output_map {{ key: "y" value: "{2}" }} }}"""


class Recording:
    """A backend, y = x + 1, that keeps the arrays which came in and went out, by model."""

    brief, typical, fails = False, {}, ()

    def __init__(self):
        self.seen = {}

    def load(self, config, folder, progress):
        return _Recorded(self, config)


class _Recorded:
    brief, typical = False, {}

    def __init__(self, owner, config):
        self._owner, self._name = owner, config.name
        self.inputs = with_batch(config.inputs, config.max_batch_size)
        self.outputs = with_batch(config.outputs, config.max_batch_size)
        self.max_batch_size, self.sizes = config.max_batch_size, (4,)

    def instance(self, threads, isolated):
        return self

    def run(self, batch):
        if self._name in self._owner.fails and batch[0]["x"].any():
            raise RuntimeError("planted")
        results = [{"y": arrays["x"] + 1} for arrays in batch]
        self._owner.seen[self._name] = (batch[0]["x"], results[0]["y"])
        return Ran(results)

    def close(self):
        pass


def pipeline(root, steps):
    for name in ("a", "b", "c"):
        add_identity(root, name, "FP32", 'backend: "recording"\n' + SPECS.format())
    scheduling = "\n".join(STEP.format(*step) for step in steps)
    add_identity(root, "all", "FP32", f'platform: "ensemble"\n{SPECS.format()}ensemble_scheduling {{ {scheduling} }}\n')


def ask(server, x, name="all"):
    with http_client.InferenceServerClient(server.http) as client:
        given = http_client.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        return client.infer(name, [given]).as_numpy("y")


X = np.arange(1, 5, dtype=np.float32).reshape(1, 4)


def test_tensors_pass_between_steps_uncopied(tmp_path):
    pipeline(tmp_path, [("a", "x", "t"), ("b", "t", "u"), ("c", "u", "y")])
    backend = Recording()
    with running(tmp_path, {"recording": backend.load}) as server:
        np.testing.assert_array_equal(ask(server, X), X + 3)
        assert backend.seen["b"][0] is backend.seen["a"][1] and backend.seen["c"][0] is backend.seen["b"][1]


def test_steps_that_need_nothing_of_each_other(tmp_path):
    pipeline(tmp_path, [("c", "t", "y"), ("a", "x", "t"), ("b", "x", "u")])
    backend = Recording()
    with running(tmp_path, {"recording": backend.load}) as server:
        np.testing.assert_array_equal(ask(server, X), X + 2)
        assert backend.seen["a"][0] is backend.seen["b"][0]


def test_a_step_that_fails_fails_the_request_and_leaves_nothing(tmp_path):
    pipeline(tmp_path, [("a", "x", "t"), ("b", "t", "y")])
    backend = Recording()
    backend.fails = ("b",)
    with running(tmp_path, {"recording": backend.load}) as server:
        with pytest.raises(InferenceServerException, match="RuntimeError"):
            ask(server, X)
        np.testing.assert_array_equal(ask(server, X, "a"), X + 1)
        wait_until(lambda: server.server.plane.in_flight == 0)


def key(number=1, name="x", datatype="FP32", array=X):
    return key_of(number, (Tensor(name, datatype, array),))


def test_keys_of_the_cache_differ_in_everything_that_matters():
    keys = {key(), key(2), key(name="z"), key(datatype="INT32"), key(array=X.reshape(4)), key(array=X + 1)}
    assert len(keys) == 6 and key(array=X.copy()) == key()


def test_the_cache_drops_the_least_recently_used_and_keeps_copies():
    cache, outputs = ResponseCache(3 * (32 + 16)), {"y": np.ones(4, np.float32)}
    for n in range(3):
        cache.put(key(n), outputs)
    assert cache.get(key(0)) is not None
    cache.put(key(3), outputs)
    assert cache.get(key(1)) is None and cache.get(key(0)) is not None and cache.num_bytes == 3 * 48
    outputs["y"][:] = 7
    kept = cache.get(key(3))["y"]
    assert (kept == 1).all() and not kept.flags.writeable
    cache.put(key(4), {"y": np.ones(1000, np.float32)})
    assert len(cache) == 3 and cache.get(key(4)) is None
    cache.put(key(3), {"y": np.zeros(4, np.float32)})
    assert len(cache) == 3 and cache.num_bytes == 3 * 48


def test_a_reloaded_model_answers_none_of_the_old_answers(tmp_path):
    add_network(tmp_path, config="max_batch_size: 8\nresponse_cache { enable: true }\n", batches=(1,))
    (tmp_path / "network" / "config.pbtxt").write_text("max_batch_size: 1\nresponse_cache { enable: true }\n")
    with running(tmp_path, control="explicit", load=("network",), cache_bytes=1 << 20) as server:
        x = np.ones((1, 16), np.float32)
        before = ask(server, x, "network")
        np.testing.assert_array_equal(ask(server, x, "network"), before)
        from serving import engine_bytes

        (tmp_path / "new").write_bytes(engine_bytes(1, 3.0))
        (tmp_path / "new").rename(tmp_path / "network" / "1" / "model.b1.engine")
        with http_client.InferenceServerClient(server.http) as client:
            client.load_model("network")
        np.testing.assert_allclose(ask(server, x, "network"), before + 3, rtol=1e-5)


class Collector(http.server.BaseHTTPRequestHandler):
    bodies: list = []  # noqa: RUF012

    def do_POST(self):
        self.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        pass


def test_spans_arrive_over_otlp(tmp_path, monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    add_network(tmp_path, batches=(1,), config="max_batch_size: 1\n")
    Collector.bodies.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
        with running(tmp_path, otlp_endpoint=endpoint, trace_level="TIMESTAMPS", trace_rate=1) as server:
            ask(server, np.ones((1, 16), np.float32), "network")
        wait_until(lambda: Collector.bodies)
        collector.shutdown()
    assert Collector.bodies[0][0] == "/v1/traces" and b"redline.model" in b"".join(body for _, body in Collector.bodies)
