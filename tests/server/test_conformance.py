"""Drives a running server with the unmodified client of Triton: HTTP and gRPC, sync and async, every call that it offers."""

import asyncio
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from serving import CLASSES, FEATURES, add_identity, add_network, expected, running
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
KINDS = ("http", "grpc")

PRIORITY = """backend: "identity"
max_batch_size: 4
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
dynamic_batching { priority_levels: 3 default_priority_level: 2
  default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 10000000 } }
"""
NO_BATCH = """backend: "identity"
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 2, -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 2, -1 ] } ]
"""
LABELLED = """max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 8 ] label_filename: "labels.txt" } ]
dynamic_batching { }
"""
ENSEMBLE = """platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 8 ] } ]
ensemble_scheduling { step [
  { model_name: "id_FP32" model_version: -1 input_map { key: "INPUT0" value: "IN" }
    output_map { key: "OUTPUT0" value: "middle" } },
  { model_name: "network" model_version: -1 input_map { key: "x" value: "middle" } output_map { key: "y" value: "OUT" } } ] }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root: Path = tmp_path_factory.mktemp("models")
    for datatype in DATATYPES:
        add_identity(root, f"id_{datatype}", datatype)
    add_identity(root, "id_BF16", "BF16")
    add_identity(root, "id_BYTES", "STRING")
    add_identity(root, "priority", "FP32", PRIORITY)
    add_identity(root, "no_batch", "FP32", NO_BATCH)
    folder = add_network(root, "network", config=LABELLED)
    (folder / "labels.txt").write_text("".join(f"label{i}\n" for i in range(CLASSES)))
    add_network(root, "versions", batches=(1,), config="max_batch_size: 1\nversion_policy { all { } }\n")
    add_network(root, "versions", batches=(1,), version=3, shift=100.0)
    add_identity(root, "pipeline", "FP32", ENSEMBLE)
    every = [p.name for p in root.iterdir() if p.name != "pipeline"]
    with running(root, control="explicit", load=tuple(sorted([*every, "pipeline"])), allow_uploads=True) as server:
        assert not server.failures
        yield server


@pytest.fixture(params=KINDS)
def client(server, request):
    module, address = (http_client, server.http) if request.param == "http" else (grpc_client, server.grpc)
    with module.InferenceServerClient(address) as client:
        client.module, client.kind = module, request.param
        yield client


def plain(value, kind):
    """A client's answer as JSON values: gRPC's messages are turned into dictionaries."""
    if kind == "http":
        return value
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(value, preserving_proto_field_name=True)


def tensor(module, name, array, datatype, **options):
    given = module.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, **options)
    return given


def sample(datatype, shape=(2, 5)):
    dtype = triton_to_np_dtype(datatype)
    rng = np.random.default_rng(3)
    if datatype == "BYTES":
        return np.array([f"text {i} \u00e9".encode() for i in range(np.prod(shape))], object).reshape(shape)
    if datatype == "BOOL":
        return rng.integers(0, 2, shape).astype(bool)
    if datatype.startswith("FP") or datatype == "BF16":
        return rng.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    array = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    array.flat[:2] = limits.min, limits.max
    return array


def test_health(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("network") and client.is_model_ready("versions", "3")
    assert not client.is_model_ready("absent") and not client.is_model_ready("versions", "2")


def test_metadata(client):
    server = plain(client.get_server_metadata(), client.kind)
    assert server["name"] == "redline" and "binary_tensor_data" in server["extensions"]
    model = plain(client.get_model_metadata("versions"), client.kind)
    assert model["versions"] == ["1", "3"]
    shape = [int(d) for d in model["inputs"][0]["shape"]]
    assert (model["inputs"][0]["name"], model["inputs"][0]["datatype"], shape) == ("x", "FP32", [-1, FEATURES])


def test_configuration(client):
    found = plain(client.get_model_config("network"), client.kind)
    config = found if client.kind == "http" else found["config"]
    assert config["name"] == "network" and config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32" and [int(d) for d in config["input"][0]["dims"]] == [16]


@pytest.mark.parametrize("datatype", [*DATATYPES, "BYTES"])
def test_every_data_type_comes_back(client, datatype):
    array = sample(datatype)
    answer = client.infer(f"id_{datatype}", [tensor(client.module, "INPUT0", array, datatype)])
    found = answer.as_numpy("OUTPUT0")
    assert found.dtype == array.dtype and np.array_equal(found, array)


def test_bfloat16_comes_back(client):
    array = sample("FP32").astype(ml_dtypes.bfloat16)
    answer = client.infer("id_BF16", [tensor(client.module, "INPUT0", array, "BF16")])
    assert np.array_equal(answer.as_numpy("OUTPUT0").astype(np.float32), array.astype(np.float32))


@pytest.mark.parametrize("datatype", [d for d in (*DATATYPES, "BYTES") if d != "FP16"])
@pytest.mark.parametrize("binary_out", [False, True])
def test_json_tensors(server, datatype, binary_out):
    array = sample(datatype)
    if datatype.startswith("FP"):
        array = np.round(array, 3).astype(array.dtype)
    with http_client.InferenceServerClient(server.http) as client:
        given = tensor(http_client, "INPUT0", array, datatype, binary_data=False)
        wanted = http_client.InferRequestedOutput("OUTPUT0", binary_data=binary_out)
        found = client.infer(f"id_{datatype}", [given], outputs=[wanted]).as_numpy("OUTPUT0")
    if datatype == "BYTES" and not binary_out:
        found = np.array([str(item).encode() if isinstance(item, str) else item for item in found.flat], object).reshape(
            array.shape
        )
    assert np.array_equal(found, array)


def test_bytes_of_any_content(client):
    array = np.array([[b"", b"\0\0", b"\xff\xfe", bytes(range(256))]], object)
    found = client.infer("id_BYTES", [tensor(client.module, "INPUT0", array, "BYTES")]).as_numpy("OUTPUT0")
    assert found.tolist() == array.tolist()


def test_an_engine_in_batches(client):
    for rows in (1, 2, 3, 4, 5, 8):
        x = np.random.default_rng(rows).standard_normal((rows, FEATURES)).astype(np.float32)
        answer = client.infer("network", [tensor(client.module, "x", x, "FP32")], request_id=f"r{rows}")
        np.testing.assert_allclose(answer.as_numpy("y"), expected(x), rtol=1e-5, atol=1e-5)
        head = answer.get_response()
        assert (head["id"] if client.kind == "http" else head.id) == f"r{rows}"


def test_versions(client):
    x = np.ones((1, FEATURES), np.float32)
    for version, shift in (("1", 0.0), ("3", 100.0), ("", 100.0)):
        answer = client.infer("versions", [tensor(client.module, "x", x, "FP32")], model_version=version)
        np.testing.assert_allclose(answer.as_numpy("y"), expected(x, shift), rtol=1e-5)


def test_a_model_without_batches(client):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(client.infer("no_batch", [tensor(client.module, "INPUT0", x, "FP32")]).as_numpy("OUTPUT0"), x)


def test_classification(client):
    x = np.random.default_rng(1).standard_normal((2, FEATURES)).astype(np.float32)
    wanted = client.module.InferRequestedOutput("y", class_count=3)
    found = client.infer("network", [tensor(client.module, "x", x, "FP32")], outputs=[wanted]).as_numpy("y")
    assert found.shape == (2, 3)
    for row, values in zip(found, expected(x), strict=True):
        best = np.argsort(-values)[:3]
        assert [item.decode().split(":")[1:] for item in row] == [[str(i), f"label{i}"] for i in best]


def test_an_ensemble(client):
    x = np.random.default_rng(2).standard_normal((3, FEATURES)).astype(np.float32)
    found = client.infer("pipeline", [tensor(client.module, "IN", x, "FP32")]).as_numpy("OUT")
    np.testing.assert_allclose(found, expected(x), rtol=1e-5, atol=1e-5)


def test_priority_timeout_and_parameters(client):
    x = np.ones((1, 3), np.float32)
    given = [tensor(client.module, "INPUT0", x, "FP32")]
    answer = client.infer("priority", given, priority=1, timeout=5_000_000, parameters={"colour": "red", "n": 3, "flag": True})
    assert np.array_equal(answer.as_numpy("OUTPUT0"), x)
    with pytest.raises(InferenceServerException, match="priority"):
        client.infer("priority", given, priority=9)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(server, algorithm):
    x = np.zeros((2, 5000), np.float32)
    with http_client.InferenceServerClient(server.http) as client:
        answer = client.infer(
            "id_FP32", [tensor(http_client, "INPUT0", x, "FP32")],
            request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
        )  # fmt: skip
        assert np.array_equal(answer.as_numpy("OUTPUT0"), x)
    with grpc_client.InferenceServerClient(server.grpc) as client:
        answer = client.infer("id_FP32", [tensor(grpc_client, "INPUT0", x, "FP32")], compression_algorithm=algorithm)
        assert np.array_equal(answer.as_numpy("OUTPUT0"), x)


def test_statistics(client):
    x = np.ones((2, FEATURES), np.float32)
    before = plain(client.get_inference_statistics("network", "1"), client.kind)["model_stats"][0]
    client.infer("network", [tensor(client.module, "x", x, "FP32")])
    after = plain(client.get_inference_statistics("network"), client.kind)["model_stats"][0]
    grown = {key: int(after.get(key, 0)) - int(before.get(key, 0)) for key in ("inference_count", "execution_count")}
    assert grown == {"inference_count": 2, "execution_count": 1}
    success = [int(s["inference_stats"]["success"].get("count", 0)) for s in (before, after)]
    assert success[1] == success[0] + 1
    assert len(plain(client.get_inference_statistics(), client.kind)["model_stats"]) > 10


def test_repository_control(client):
    def states():
        index = plain(client.get_model_repository_index(), client.kind)
        rows = index if client.kind == "http" else index["models"]
        return {(row["name"], row.get("version")): row.get("state") for row in rows}

    assert states()["id_INT8", "1"] == "READY"
    client.unload_model("id_INT8")
    assert states()["id_INT8", "1"] == "UNAVAILABLE" and not client.is_model_ready("id_INT8")
    x = np.ones((1, 1), np.int8)
    with pytest.raises(InferenceServerException, match="no version is ready"):
        client.infer("id_INT8", [tensor(client.module, "INPUT0", x, "INT8")])
    client.load_model("id_INT8")
    assert states()["id_INT8", "1"] == "READY"
    changed = {
        "backend": "identity", "max_batch_size": 2,
        "input": [{"name": "A", "data_type": "TYPE_INT8", "dims": [1]}],
        "output": [{"name": "B", "data_type": "TYPE_INT8", "dims": [1]}],
    }  # fmt: skip
    client.load_model("id_INT8", config=json.dumps(changed))
    assert client.infer("id_INT8", [tensor(client.module, "A", x, "INT8")]).as_numpy("B").tolist() == [[1]]
    client.load_model("id_INT8")
    with pytest.raises(InferenceServerException, match="not in the repository"):
        client.load_model("absent")


def test_a_model_in_the_load_request(client):
    from serving import engine_bytes

    config = json.dumps({"max_batch_size": 4, "dynamic_batching": {}})
    client.load_model("uploaded", config=config, files={"file:1/model.b4.engine": engine_bytes(4)})
    x = np.ones((2, FEATURES), np.float32)
    np.testing.assert_allclose(
        client.infer("uploaded", [tensor(client.module, "x", x, "FP32")]).as_numpy("y"), expected(x), rtol=1e-5
    )
    client.unload_model("uploaded")
    for path in ("file:1/../../x", "file:../x", "file:x", "file:0/x"):
        with pytest.raises(InferenceServerException):
            client.load_model("uploaded", config=config, files={path: b"x"})


def test_trace_and_log_settings(client):
    start = plain(client.get_trace_settings(), client.kind)
    client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"], "trace_rate": "5"})
    client.update_trace_settings("network", settings={"trace_count": "7"})
    found = plain(client.get_trace_settings("network"), client.kind)
    flat = found if client.kind == "http" else {k: v["value"][0] for k, v in found["settings"].items()}
    assert flat["trace_rate"] == "5" and flat["trace_count"] == "7"
    client.update_trace_settings("network", settings={"trace_count": None})
    client.update_trace_settings(settings={"trace_level": None, "trace_rate": None})
    assert plain(client.get_trace_settings(), client.kind) == start
    with pytest.raises(InferenceServerException, match="trace_rate"):
        client.update_trace_settings(settings={"trace_rate": "0"})
    logs = plain(client.get_log_settings(), client.kind)
    assert ("log_info" in logs) if client.kind == "http" else ("log_info" in logs["settings"])
    client.update_log_settings({"log_verbose_level": 1, "log_info": False})
    client.update_log_settings({"log_verbose_level": 0, "log_info": True})
    with pytest.raises(InferenceServerException):
        client.update_log_settings({"log_colour": 1})


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_system_shared_memory(client, datatype):
    array = sample(datatype, (2, 4))
    module = client.module
    payload = array
    if datatype == "BYTES":
        from tritonclient.utils import serialize_byte_tensor

        payload = serialize_byte_tensor(array)
        size = len(payload.item())
    else:
        size = array.nbytes
    source, target = f"in_{client.kind}{datatype}", f"out_{client.kind}{datatype}"
    handles = [shm.create_shared_memory_region(name, f"/rl_{name}", size) for name in (source, target)]
    try:
        shm.set_shared_memory_region(handles[0], [payload])
        for name in (source, target):
            client.register_system_shared_memory(name, f"/rl_{name}", size)
        status = plain(client.get_system_shared_memory_status(), client.kind)
        assert len(status if client.kind == "http" else status["regions"]) == 2
        given = module.InferInput("INPUT0", list(array.shape), datatype)
        given.set_shared_memory(source, size)
        wanted = module.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(target, size)
        answer = client.infer(f"id_{datatype}", [given], outputs=[wanted])
        output = answer.get_output("OUTPUT0")
        shape = output["shape"] if client.kind == "http" else list(output.shape)
        found = shm.get_contents_as_numpy(handles[1], triton_to_np_dtype(datatype), shape)
        assert np.array_equal(found, array)
        with pytest.raises(InferenceServerException, match="registered already"):
            client.register_system_shared_memory(source, f"/rl_{source}", size)
        client.unregister_system_shared_memory(source)
        with pytest.raises(InferenceServerException, match="not registered"):
            client.infer(f"id_{datatype}", [given], outputs=[wanted])
    finally:
        client.unregister_system_shared_memory()
        for handle in handles:
            shm.destroy_shared_memory_region(handle)
    assert not plain(client.get_system_shared_memory_status(), client.kind)


def test_cuda_shared_memory_is_refused_politely(client):
    assert not plain(client.get_cuda_shared_memory_status(), client.kind)
    with pytest.raises(InferenceServerException, match="CUDA"):
        client.register_cuda_shared_memory("gpu", b"aGFuZGxl", 0, 64)
    client.unregister_cuda_shared_memory()


def test_async_infer_of_the_sync_clients(server):
    x = np.ones((1, FEATURES), np.float32)
    with http_client.InferenceServerClient(server.http, concurrency=4) as client:
        pending = [client.async_infer("network", [tensor(http_client, "x", x * i, "FP32")]) for i in range(8)]
        for i, handle in enumerate(pending):
            np.testing.assert_allclose(handle.get_result().as_numpy("y"), expected(x * i), rtol=1e-5, atol=1e-5)
    import queue

    done: queue.Queue = queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc) as client:
        for _ in range(8):
            client.async_infer(
                "network", [tensor(grpc_client, "x", x, "FP32")], lambda result, error: done.put((result, error))
            )
        for _ in range(8):
            result, error = done.get(timeout=20)
            assert error is None
            np.testing.assert_allclose(result.as_numpy("y"), expected(x), rtol=1e-5)


def test_the_stream_of_grpc(server):
    import queue

    x, done = np.ones((1, FEATURES), np.float32), queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for i in range(6):
            client.async_stream_infer("network", [tensor(grpc_client, "x", x * i, "FP32")], request_id=str(i))
        client.async_stream_infer("absent", [tensor(grpc_client, "x", x, "FP32")])
        client.async_stream_infer("network", [tensor(grpc_client, "x", x, "FP32")], request_id="last")
        answers = [done.get(timeout=20) for _ in range(8)]
        client.stop_stream()
    for i, (result, error) in enumerate(answers[:6]):
        assert error is None and result.get_response().id == str(i)
        np.testing.assert_allclose(result.as_numpy("y"), expected(x * i), rtol=1e-5, atol=1e-5)
    assert "absent" in str(answers[6][1]) and answers[7][0].get_response().id == "last"


@pytest.mark.parametrize("kind", KINDS)
def test_the_async_clients(server, kind):
    module, address = (http_aio, server.http) if kind == "http" else (grpc_aio, server.grpc)

    async def talk():
        client = module.InferenceServerClient(address)
        try:
            assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("network")
            assert await client.get_server_metadata() and await client.get_model_metadata("network")
            assert await client.get_model_config("network") and await client.get_model_repository_index()
            assert await client.get_inference_statistics("network") is not None
            assert await client.get_trace_settings() and await client.get_log_settings()
            await client.get_system_shared_memory_status()
            await client.load_model("id_INT16")
            xs = [np.full((1 + i % 3, FEATURES), i, np.float32) for i in range(40)]
            answers = await asyncio.gather(*[client.infer("network", [tensor(module, "x", x, "FP32")]) for x in xs])
            for x, answer in zip(xs, answers, strict=True):
                np.testing.assert_allclose(answer.as_numpy("y"), expected(x), rtol=1e-5, atol=1e-4)
            with pytest.raises(InferenceServerException, match="absent"):
                await client.infer("absent", [tensor(module, "x", xs[0], "FP32")])
        finally:
            await client.close()

    asyncio.run(talk())


def test_the_async_stream(server):
    x = np.ones((1, FEATURES), np.float32)

    async def requests():
        for i in range(5):
            yield {"model_name": "network", "inputs": [tensor(grpc_aio, "x", x * i, "FP32")], "request_id": str(i)}

    async def talk():
        client = grpc_aio.InferenceServerClient(server.grpc)
        found = [(result, error) async for result, error in client.stream_infer(requests())]
        await client.close()
        return found

    for i, (result, error) in enumerate(asyncio.run(talk())):
        assert error is None and result.get_response().id == str(i)


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("network", {"name": "z"}, "no input 'z'"),
        ("network", {"datatype": "FP64"}, "data type is FP64"),
        ("network", {"shape": (1, 15)}, "shape is 1x15"),
        ("network", {"shape": (9, 16)}, "9 rows"),
        ("network", {"outputs": ["q"]}, "no output 'q'"),
        ("absent", {}, "not served"),
    ],
)
def test_errors_name_the_fault(client, model, change, words):
    datatype = change.get("datatype", "FP32")
    array = np.zeros(change.get("shape", (1, 16)), triton_to_np_dtype(datatype))
    assert np_to_triton_dtype(array.dtype) == datatype
    outputs = [client.module.InferRequestedOutput(name) for name in change.get("outputs", [])] or None
    with pytest.raises(InferenceServerException, match=words):
        client.infer(model, [tensor(client.module, change.get("name", "x"), array, datatype)], outputs=outputs)
