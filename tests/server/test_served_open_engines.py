"""Engines of open shapes behind the server: every batch without padding, other open axes, limits, worker processes."""

import threading

import numpy as np
import onnx
import pytest
import tritonclient.http as http_client
from onnx import TensorProto, helper, numpy_helper
from serving import FEATURES, WEIGHTS, expected, network, running
from tritonclient.utils import InferenceServerException

import redline
from redline.base.shapes import ShapeRange

CONFIG = 'max_batch_size: 8\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]\ndynamic_batching { }\n'


def ask(server, x, name="network"):
    with http_client.InferenceServerClient(server.http) as client:
        given = http_client.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        return client.infer(name, [given]).as_numpy("y")


def add(root, name, model, shapes, config=""):
    folder = root / name / "1"
    folder.mkdir(parents=True)
    redline.build(model, output=folder / "model.engine", shapes=shapes, opt_level=0).close()
    if config:
        (root / name / "config.pbtxt").write_text(config)


def rows(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    add(root, "network", network(), {"x": ShapeRange((1, FEATURES), (4, FEATURES), (8, FEATURES))})
    return root


def test_every_batch_runs_as_it_is(root):
    with running(root) as server:
        for n in range(1, 9):
            np.testing.assert_allclose(ask(server, rows(n, n)), expected(rows(n, n)), rtol=1e-4, atol=1e-5)
        with http_client.InferenceServerClient(server.http) as client:
            assert client.get_model_metadata("network")["inputs"][0]["shape"] == [-1, FEATURES]
            assert client.get_model_config("network")["max_batch_size"] == 8
        with pytest.raises(InferenceServerException, match="9"):
            ask(server, rows(9))


@pytest.mark.parametrize("isolated", [False, True])
def test_requests_of_several_callers_share_batches(root, tmp_path, isolated):
    folder = tmp_path / "network"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.engine").write_bytes((root / "network" / "1" / "model.engine").read_bytes())
    (folder / "redline.toml").write_text(
        "max_batch_size = 8\n[batching]\nmax_delay_us = 20000\nadaptive = false\nauto_delay = false\n"
        f"[instances]\nisolated = {str(isolated).lower()}\n"
    )
    wrong = []

    def caller(seed):
        for n in (1, 2, 3):
            x = rows(n, 10 * seed + n)
            if not np.allclose(ask(server, x), expected(x), rtol=1e-4, atol=1e-5):
                wrong.append((seed, n))

    with running(tmp_path) as server:
        threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        with http_client.InferenceServerClient(server.http) as client:
            counts = client.get_inference_statistics("network")["model_stats"][0]
    assert not wrong and counts["inference_count"] == 24 and counts["execution_count"] < 12


def test_a_second_open_axis(tmp_path):
    """x[n, t, 16] -> y[n, t, 8]: requests of equal t share batches; the model is measured at its tuned shape."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t", 8])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    add(tmp_path, "sequence", model, {"x": ShapeRange((1, 1, FEATURES), (2, 5, FEATURES), (4, 9, FEATURES))})
    with running(tmp_path) as server:
        for n, t in ((1, 1), (4, 9), (3, 7)):
            x = np.random.default_rng(n).standard_normal((n, t, FEATURES)).astype(np.float32)
            np.testing.assert_allclose(ask(server, x, "sequence"), x @ WEIGHTS, rtol=1e-4, atol=1e-5)
        with pytest.raises(InferenceServerException, match="t"):
            ask(server, np.ones((1, 10, FEATURES), np.float32), "sequence")


def test_a_configuration_that_asks_for_more(root, tmp_path):
    folder = tmp_path / "network"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.engine").write_bytes((root / "network" / "1" / "model.engine").read_bytes())
    (folder / "config.pbtxt").write_text(CONFIG.replace("8", "16", 1))
    with running(tmp_path, strict=False) as server:
        assert "takes batches of 1 to 8" in server.failures[0]


@pytest.mark.slow
def test_a_model_of_fixed_shapes_only_is_built_for_each_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path / "cache"))
    graph = helper.make_graph(
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        "scan",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", FEATURES])],
        [numpy_helper.from_array(np.array(1), "axis")],
    )
    folder = tmp_path / "models" / "scan" / "1"
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(CONFIG.replace("8", "4", 1))
    with running(tmp_path / "models") as server:
        assert not server.failures
        np.testing.assert_allclose(ask(server, rows(2), "scan"), rows(2).cumsum(1), rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "cache" / "served").glob("*.engine"))) == 3


def test_a_model_is_built_once_for_every_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "models" / "network" / "1"
    folder.mkdir(parents=True)
    onnx.save(network(), folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    for _ in range(2):
        with running(tmp_path / "models") as server:
            assert not server.failures
            for n in (1, 5, 8):
                np.testing.assert_allclose(ask(server, rows(n)), expected(rows(n)), rtol=1e-4, atol=1e-5)
        assert len(list((tmp_path / "cache" / "served").glob("*.engine"))) == 1


def test_an_engine_of_several_plans_serves_their_widest_range(tmp_path):
    """A profile of batches 1-6 and a bucket of 8 beside it; two profiles, of which the narrower bounds the batches."""
    profiles = [{"x": ShapeRange((1, FEATURES), (2, FEATURES), (most, FEATURES))} for most in (4, 6)]
    folder = tmp_path / "network" / "1"
    folder.mkdir(parents=True)
    buckets = {"eight": {"x": (8, FEATURES)}, "opt": None}
    redline.build(network(), output=folder / "model.engine", shapes=profiles[1:], buckets=buckets, opt_level=0).close()
    with running(tmp_path) as server:
        for n in range(1, 7):
            np.testing.assert_allclose(ask(server, rows(n, n)), expected(rows(n, n)), rtol=1e-4, atol=1e-5)
        with http_client.InferenceServerClient(server.http) as client:
            assert client.get_model_metadata("network")["inputs"][0]["shape"] == [-1, FEATURES]
            assert client.get_model_config("network")["max_batch_size"] == 6
        with pytest.raises(InferenceServerException, match="7"):
            ask(server, rows(7))
    redline.build(network(), output=folder / "model.engine", shapes=profiles, opt_level=0).close()
    with running(tmp_path) as server, http_client.InferenceServerClient(server.http) as client:
        assert client.get_model_config("network")["max_batch_size"] == 4
        np.testing.assert_allclose(ask(server, rows(4)), expected(rows(4)), rtol=1e-4, atol=1e-5)
