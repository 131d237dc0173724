"""Metrics, traces, access log, TLS, bearer tokens, memory, and the load driver, on a running server."""

import gc
import json
import ssl
import subprocess
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from prometheus_client.parser import text_string_to_metric_families
from serving import FEATURES, add_identity, add_network, running
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from redline.cli.app import app
from redline.server.tracing import Trace, span_sink


def ask(url, rows=1, name="network", module=http_client, **options):
    with module.InferenceServerClient(url, **options) as client:
        given = module.InferInput("x", [rows, FEATURES], "FP32")
        given.set_data_from_numpy(np.ones((rows, FEATURES), np.float32))
        return client.infer(name, [given])


def test_metrics_traces_and_access_log(tmp_path):
    root = tmp_path / "models"
    add_network(root, config="max_batch_size: 8\ndynamic_batching { }\n")
    options = {"trace_file": str(tmp_path / "trace"), "trace_level": "TIMESTAMPS", "trace_rate": 2}
    with running(root, access_log=str(tmp_path / "access"), **options) as server:
        for rows in (1, 2, 3, 4):
            ask(server.http, rows)
        with pytest.raises(InferenceServerException):
            ask(server.http, name="absent")
        ask(server.grpc, module=grpc_client)
        with pytest.raises(InferenceServerException):
            ask(server.grpc, name="absent", module=grpc_client)
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.server.metrics_port}/metrics").read().decode()
    samples = {(s.name, s.labels.get("model")): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["nv_inference_count", "network"] == 11 and samples["nv_inference_request_success", "network"] == 5
    assert samples["redline_queue_duration_seconds_count", "network"] == 5
    assert samples["nv_inference_compute_infer_duration_us", "network"] > 0
    traces = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert len(traces) == 2
    stamps = [stamp["ns"] for stamp in traces[0][1]["timestamps"]]
    assert stamps == sorted(stamps) and traces[0][0]["model_name"] == "network"
    lines = [json.loads(line) for line in (tmp_path / "access").read_text().splitlines()]
    calls = [line for line in lines if line["protocol"] == "grpc"]
    lines = [line for line in lines if line["protocol"] == "http"]
    assert [line["status"] for line in lines] == [200] * 4 + [404] and lines[0]["path"] == "/v2/models/network/infer"
    assert [(line["path"].rpartition("/")[2], line["status"]) for line in calls] == [("ModelInfer", 0), ("ModelInfer", 5)]
    assert all(line["seconds"] > 0 and line["request_bytes"] > 64 for line in calls)
    assert calls[0]["response_bytes"] > 32 and not calls[1]["response_bytes"]


@pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
def test_requests_leave_no_cycles(tmp_path, module):
    add_network(tmp_path, config="max_batch_size: 8\ndynamic_batching { }\n")
    with running(tmp_path) as server:
        url = server.http if module is http_client else server.grpc
        ask(url, module=module)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(5):
                ask(url, module=module)
            gc.collect()
            ours = [type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("redline.")]
            names = ("Call", "Item", "Exchange", "Stream", "Tensor", "InferRequest", "InferResponse")
            assert not [name for name in ours if name in names], ours
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_spans_of_opentelemetry():
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, exporter = sdk.TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace = Trace(1, "network", "1", "r")
    for name in ("REQUEST_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"):
        trace.stamp(name)
    span_sink(provider.get_tracer("t"))([trace])
    (span,) = exporter.get_finished_spans()
    assert [e.name for e in span.events] == ["COMPUTE_START", "COMPUTE_END"] and span.attributes["redline.model"] == "network"


def test_tls_and_bearer_token(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    add_network(tmp_path / "models", config="max_batch_size: 8\ndynamic_batching { }\n")
    with running(tmp_path / "models", token="secret", tls_certificate=certificate, tls_key=key) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        url = f"https://127.0.0.1:{server.server.http_port}"
        assert urllib.request.urlopen(f"{url}/v2/health/live", context=context).status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/v2/models/network", context=context)
        assert refused.value.code == 401 and "Bearer" in refused.value.headers["WWW-Authenticate"]
        asked = urllib.request.Request(f"{url}/v2/models/network", headers={"Authorization": "Bearer secret"})
        assert json.load(urllib.request.urlopen(asked, context=context))["name"] == "network"
        x = np.ones((8, FEATURES), np.float32)
        given = grpc_client.InferInput("x", [8, FEATURES], "FP32")
        given.set_data_from_numpy(x)
        options = {"ssl": True, "root_certificates": str(certificate)}
        with grpc_client.InferenceServerClient(f"localhost:{server.server.grpc_port}", **options) as client:
            with pytest.raises(InferenceServerException, match="bearer token"):
                client.infer("network", [given])
            answer = client.infer("network", [given], headers={"authorization": "Bearer secret"})
            assert answer.as_numpy("y").shape == (8, 8)


def test_large_messages_pass_the_windows(tmp_path):
    add_identity(tmp_path, "big", "FP32")
    x = np.random.default_rng(0).standard_normal((2, 6_000_000)).astype(np.float32)  # 48 MB, many times every window
    with running(tmp_path) as server:
        for module, url in ((http_client, server.http), (grpc_client, server.grpc)):
            with module.InferenceServerClient(url) as client:
                given = module.InferInput("INPUT0", list(x.shape), "FP32")
                given.set_data_from_numpy(x)
                assert np.array_equal(client.infer("big", [given]).as_numpy("OUTPUT0"), x)


def test_the_health_service_of_grpc(tmp_path):
    add_identity(tmp_path, "id", "FP32")
    with running(tmp_path) as server, grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda b: b, lambda b: b)
        assert check(b"", timeout=10) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary("/x.Y/Z", lambda b: b, lambda b: b)(b"", timeout=10)
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_bench_server(tmp_path):
    add_network(tmp_path, config="max_batch_size: 8\ndynamic_batching { }\n")
    with running(tmp_path) as server:
        url = f"http://{server.http}"
        options = ["--model", "network", "--seconds", "0.3", "--json"]
        closed = CliRunner().invoke(app, ["bench-server", url, *options, "--concurrency", "4"])
        assert closed.exit_code == 0, closed.output
        (run,) = json.loads(closed.output)["runs"]
        assert run["answers_per_s"] > 10 and not run["errors"] and run["mean_batch"] >= 1
        opened = CliRunner().invoke(app, ["bench-server", url, *options, "--rate", "50,100"])
        rates = [run["answers_per_s"] for run in json.loads(opened.output)["runs"]]
        assert len(rates) == 2 and all(rates)
        found = CliRunner().invoke(app, ["bench-server", url, "--model", "absent"])
        assert found.exit_code == 2 and "absent" in found.output


def test_a_delay_of_microseconds_is_kept(tmp_path):
    """Alone in the queue, a request waits its 300 us and not the milliseconds of an event loop's timer."""
    config = (
        'max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 300 }\n'
        'parameters: { key: "redline.auto_delay" value: { string_value: "false" } }\n'
    )  # fmt: skip
    add_network(tmp_path, config=config)
    with running(tmp_path) as server:
        for _ in range(60):
            ask(server.http)
        queue = server.server.repository.find("network").stats.queue
        assert sum(queue.counts[:2]) == 0 and sum(queue.counts[2:4]) > 0  # none below 250 us, some within a millisecond
