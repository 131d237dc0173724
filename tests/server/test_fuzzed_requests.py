"""Random requests by a grammar, over real sockets: every answer is a 4xx that names the fault, or right; none is a 5xx.

The HTTP grammar makes almost-valid requests (a mutation somewhere in head, JSON or tensors) and wild ones; gRPC gets mutated
messages and mutated frames. Every request that is complete must be answered.
"""

import json
import random
import re
import socket
import struct

import grpc
import pytest
from serving import add_identity, add_network, running, wait_until

from redline.server import proto
from redline.server.grpc import http2

NAMES = ["id_FP32", "id_BYTES", "network", "absent", "..", "%2e%2e", "a%2fb", "", "x" * 300, "\u00e9", ".hidden", "stats"]
DATATYPES = ["FP32", "BYTES", "INT8", "BF16", "FP99", "", None, 7]
KEYS = (
    "outputs", "inputs", "shape", "datatype", "data", "binary_data_size", "priority", "timeout", "classification",
    "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "sequence_id",
)  # fmt: skip
ALLOWED = {200, 400, 404, 405, 409, 413, 415}
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CODED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    add_identity(root, "id_FP32", "FP32")
    add_identity(root, "id_BYTES", "STRING")
    add_network(root, "network", config="max_batch_size: 8\ndynamic_batching { }\n")
    with running(root, control="explicit", load=("id_FP32", "id_BYTES", "network")) as server:
        yield server


def value(rng, depth=0):
    """Any JSON value."""
    simple = [0, 1, -1, 2**31, 2**63, 2**64, 1.5, -0.0, 1e308, True, False, None, "", "x", "\u0000", "FP32", [], {}]
    if depth < 3 and rng.random() < 0.3:
        if rng.random() < 0.5:
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return {
            rng.choice(["name", "shape", "data", "parameters", "x"]): value(rng, depth + 1) for _ in range(rng.randrange(4))
        }
    return rng.choice(simple)


def inference(rng):
    """JSON and binary part of an inference, with perhaps a few things wrong."""
    rows, columns = rng.choice([1, 1, 2, 8, 9, 0]), rng.choice([16, 16, 4, 0])
    datatype = rng.choice(["FP32", "FP32", "BYTES", *DATATYPES])
    data = b"\0" * (4 * rows * columns) if datatype != "BYTES" else (struct.pack("<I", 1) + b"a") * (rows * columns)
    entry = {"name": rng.choice(["INPUT0", "x", "z"]), "shape": [rows, columns], "datatype": datatype}
    binary = b""
    if rng.random() < 0.6:
        binary = data
        entry["parameters"] = {"binary_data_size": len(data)}
    else:
        entry["data"] = [value(rng) if rng.random() < 0.02 else 1.0 for _ in range(rows * columns)]
    root = {"inputs": [entry], "parameters": {"binary_data_output": rng.random() < 0.5}, "id": "f"}
    for _ in range(rng.choice([0, 1, 1, 2])):
        target = rng.choice([t for t in (root, entry, entry.setdefault("parameters", {})) if isinstance(t, dict)])
        key = rng.choice([*target, *KEYS])
        target[key] = value(rng)
    return json.dumps(root).encode(), binary


def path(rng):
    name, version = rng.choice(NAMES), rng.choice(["1", "0", "-1", "x", "9" * 30])
    region = rng.choice(["r", "..", "a%00b"])
    return rng.choice([
        f"/v2/models/{name}/infer", f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/{version}/infer",
        f"/v2/models/{name}", f"/v2/models/{name}/{rng.choice(['ready', 'config', 'stats', 'nothing', 'trace/setting'])}",
        "/v2", "/", "//", "/v2/health/ready", "/v2/repository/index", f"/v2/repository/models/{name}/load", "/v2/logging",
        "/v2/trace/setting", f"/v2/systemsharedmemory/region/{region}/register", "/v2/systemsharedmemory/status", "/metrics",
        "*", "/v2/../v2", "/%zz", "/v2?x=%ff",
    ])  # fmt: skip


def request(rng):
    """The bytes of a request, and whether it is framed so that the connection may go on."""
    text, binary = inference(rng) if rng.random() < 0.8 else (json.dumps(value(rng)).encode(), b"")
    if rng.random() < 0.2 and text:
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    body = text + binary
    if rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)]
    method = rng.choice(["POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "POS T"])
    headers = [("Host", "fuzz"), ("Content-Length", str(len(body)))]
    if binary or rng.random() < 0.3:
        headers.append(
            ("Inference-Header-Content-Length", str(rng.choice([len(text), len(text), len(text), 0, len(body) + 1, "x", -5])))
        )
    if rng.random() < 0.1:
        headers.append(rng.choice([
            ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Transfer-Encoding", "chunked"), ("Content-Length", "1"),
            ("Transfer-Encoding", "gzip"), ("Expect", "100-continue"), ("Upgrade", "h2c"), ("X", "\x01"),
            ("Accept-Encoding", "gzip"),
        ]))  # fmt: skip
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers)
    head = f"{method} {path(rng)} HTTP/{rng.choice(['1.1', '1.1', '1.1', '1.0', '3.7'])}\r\n{lines}\r\n".encode(
        "utf-8", "replace"
    )
    if rng.random() < 0.03:
        at = rng.randrange(len(head))
        head = head[:at] + bytes([rng.randrange(256)]) + head[at + 1 :]
    return head + body


def answer(connection):
    """One response: (status, body), or None where the server only closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
        if data.startswith(b"HTTP/1.1 100"):
            data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), body, b"connection: close" in head.lower()


def may_wait(data):
    """Whether the bytes are perhaps no whole request: the server may wait for more of it."""
    head, end, body = data.partition(b"\r\n\r\n")
    return not end or bool(CODED.search(head)) or max(map(int, LENGTH.findall(head)), default=0) > len(body)


def ask_raw(server, data):
    """The answer to a request; None where it may be incomplete and the server waits for the rest."""
    waits = may_wait(data)
    with socket.create_connection(("127.0.0.1", server.server.http_port), 20) as connection:
        connection.sendall(data)
        connection.settimeout(0.2 if waits else 30)
        try:
            found = answer(connection)
        except TimeoutError:
            assert waits, ("no answer", data)
            return None
        assert found is not None, ("closed without an answer", data)
        return found


def fuzz_http(server, count, seed):
    rng = random.Random(seed)
    statuses = {}
    for _ in range(count):
        data = request(rng)
        found = ask_raw(server, data)
        if found is None:
            statuses["waits"] = statuses.get("waits", 0) + 1
            continue
        status, body, _ = found
        statuses[status] = statuses.get(status, 0) + 1
        assert status in ALLOWED, (status, data, body)
        if status >= 400 and body:
            assert json.loads(body)["error"].startswith("["), (data, body)
    return statuses


def grpc_message(rng):
    text = proto.ModelInferRequest(model_name=rng.choice(["id_FP32", "network", "absent", "../x"]), id="f")
    rows, columns = rng.choice([1, 2, 9]), rng.choice([16, 4, 0])
    entry = text.inputs.add(
        name=rng.choice(["INPUT0", "x", "z"]), datatype=rng.choice(["FP32", "BYTES", "?"]), shape=[rows, columns]
    )
    if rng.random() < 0.2:
        entry.shape.append(rng.choice([-1, 0, 2**62]))
    if rng.random() < 0.2:
        entry.parameters[rng.choice(["shared_memory_region", "shared_memory_byte_size", "q"])].string_param = "r"
    if rng.random() < 0.2:
        entry.contents.fp32_contents.extend([1.0] * rng.choice([0, rows * columns]))
    if rng.random() < 0.2:
        text.outputs.add(name=rng.choice(["OUTPUT0", "y", ""])).parameters["classification"].int64_param = rng.choice(
            [-1, 0, 3, 2**62]
        )
    if rng.random() < 0.1:
        text.parameters[rng.choice(["priority", "timeout", "sequence_id"])].int64_param = rng.choice([-1, 5, 2**62])
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        text.raw_input_contents.append(bytes(rng.choice([4 * rows * columns, 0, 7])))
    data = text.SerializeToString()
    for _ in range(rng.choice([0, 0, 1, 3])):
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + rng.randrange(2) :]
    return data


GOOD_CODES = {grpc.StatusCode[c] for c in ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS")}


def fuzz_grpc(server, count, seed):
    rng = random.Random(seed)
    with grpc.insecure_channel(server.grpc) as channel:
        methods = {}
        for name in proto.METHODS:
            if name != "ModelStreamInfer":
                methods[name] = channel.unary_unary(f"/{proto.SERVICE}/{name}", lambda b: b, lambda b: b)
        others = [
            name for name in methods if name not in ("ModelInfer", "LogSettings", "TraceSetting", "RepositoryModelUnload")
        ]
        for _ in range(count):
            name = "ModelInfer" if rng.random() < 0.85 else rng.choice(others)
            data = grpc_message(rng) if rng.random() < 0.9 else rng.randbytes(rng.randrange(40))
            try:
                methods[name](data, timeout=20)
            except grpc.RpcError as error:
                refused = name == "CudaSharedMemoryRegister" and error.code() is grpc.StatusCode.UNIMPLEMENTED
                assert refused or error.code() in GOOD_CODES, (name, data, error.code(), error.details())
                assert error.details().startswith("["), error.details()


def fuzz_frames(server, count, seed):
    """Mutated HTTP/2 frames: the server answers or ends the connection, and serves others."""
    rng = random.Random(seed)
    for _ in range(count):
        frames = [http2.PREFACE, http2.frame(http2.SETTINGS, 0, 0)]
        for _ in range(rng.randrange(1, 8)):
            kind, flags = rng.randrange(12), rng.choice([0, 1, 4, 5, 8, 0x20, rng.randrange(256)])
            frames.append(
                http2.frame(kind, flags, rng.choice([0, 1, 1, 3, 2, 2**31 - 1]), rng.randbytes(rng.choice([0, 4, 5, 6, 8, 40])))
            )
        data = b"".join(frames)
        if rng.random() < 0.3:
            at = rng.randrange(len(data))
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        with socket.create_connection(("127.0.0.1", server.server.grpc_port), 20) as connection:
            connection.settimeout(5)
            try:
                connection.sendall(data)
                connection.recv(4096)
            except (TimeoutError, ConnectionError):
                pass


def settle(server):
    wait_until(lambda: server.server.plane.in_flight == 0)
    assert server.call(lambda: server.server.plane.ready())


def test_fuzzed_http(server):
    statuses = fuzz_http(server, 3000, 1)
    assert statuses[200] > 50 and statuses[400] > 500 and statuses.get("waits", 0) < 300, statuses
    settle(server)


def test_fuzzed_grpc(server):
    fuzz_grpc(server, 2000, 1)
    settle(server)


def test_fuzzed_frames(server):
    fuzz_frames(server, 500, 1)
    settle(server)
    fuzz_grpc(server, 20, 2)


@pytest.mark.slow
def test_fifty_thousand_requests_and_no_growth(server):
    from test_faults import resident_bytes

    fuzz_http(server, 3000, 7)
    fuzz_grpc(server, 3000, 7)
    before = resident_bytes()
    print(fuzz_http(server, 30_000, 8))
    fuzz_grpc(server, 20_000, 8)
    fuzz_frames(server, 2000, 8)
    settle(server)
    assert resident_bytes() - before < 32 << 20
