"""The known attacks on HTTP/2 servers, over real sockets: each ends its own connection, with the right error, and no other."""

import socket
import time

import hpack
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from serving import IDENTITY, add_identity, running, wait_until
from tritonclient.utils import InferenceServerException

from redline.server import listener, proto
from redline.server.grpc import http2
from redline.server.grpc.blocks import Blocks
from redline.server.grpc.budget import Budget
from redline.server.grpc.http2 import ConnectionError2, frame
from redline.server.limits import Limits

HEADS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"/{proto.SERVICE}/ModelInfer"),
    ("content-type", "application/grpc"),
]
SLOW = IDENTITY.format("FP32") + 'parameters { key: "execute_delay_ms" value { string_value: "100" } }\n'
LAST, END = http2.END_HEADERS, http2.END_STREAM
CALM, FLOW, PROTOCOL, COMPRESSION = http2.ENHANCE_YOUR_CALM, http2.FLOW_CONTROL_ERROR, http2.PROTOCOL_ERROR, 9


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    add_identity(root, "id_FP32", "FP32")
    add_identity(root, "slow", "FP32", SLOW)
    with running(root) as server:
        yield server


@pytest.fixture(autouse=True)
def alive(server):
    """After every attack the server answers others and holds no work."""
    yield
    with grpc_client.InferenceServerClient(server.grpc) as client:
        given = grpc_client.InferInput("INPUT0", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        assert (client.infer("id_FP32", [given]).as_numpy("OUTPUT0") == 1).all()
    wait_until(lambda: server.server.plane.in_flight == 0)


class Peer:
    """A raw HTTP/2 client."""

    def __init__(self, server):
        self._socket = socket.create_connection(("127.0.0.1", server.server.grpc_port), 20)
        self._socket.settimeout(20)
        self._data = b""
        self.encoder = hpack.Encoder()
        self.send(http2.PREFACE + frame(http2.SETTINGS, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._socket.close()

    def send(self, data):
        """False when the server has closed."""
        try:
            self._socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def head(self, heads=HEADS):
        return self.encoder.encode(heads)

    def flood(self, make, count, first=0):
        """Sends ``make(n)`` so many times, in pieces; ends early when the server has closed."""
        for start in range(first, count, 256):
            if not self.send(b"".join(make(n) for n in range(start, min(count, start + 256)))):
                return

    def frames(self):
        """(kind, flags, stream, payload) until the server closes."""
        while True:
            while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3], "big"):
                try:
                    piece = self._socket.recv(1 << 16)
                except ConnectionError:
                    piece = b""
                if not piece:
                    return
                self._data += piece
            size = int.from_bytes(self._data[:3], "big")
            kind, flags, stream = self._data[3], self._data[4], int.from_bytes(self._data[5:9], "big")
            payload, self._data = self._data[9 : 9 + size], self._data[9 + size :]
            yield kind, flags, stream, payload

    def goaway(self):
        """The error code with which the server ends the connection; None when it only closed."""
        codes = [int.from_bytes(payload[4:8], "big") for kind, _, _, payload in self.frames() if kind == http2.GOAWAY]
        return codes[0] if codes else None


def reset_stream(number):
    return frame(http2.RST_STREAM, 0, number, (8).to_bytes(4, "big"))


def window_update(number, more):
    return frame(http2.WINDOW_UPDATE, 0, number, more.to_bytes(4, "big"))


def message(name="slow"):
    request = proto.ModelInferRequest(model_name=name)
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(bytes(16))
    data = request.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def ends_with(peer, code):
    """The connection ended with the code; where the peer still sent, the reset may have overtaken the frame that says so."""
    assert peer.goaway() in (code, None)


def test_rapid_reset(server):
    """CVE-2023-44487: calls that are begun and cancelled at once."""
    body = message()
    with Peer(server) as peer:
        head = peer.head()
        repeated = peer.head()

        def call(n):
            number = 2 * n + 1
            opened = frame(http2.HEADERS, LAST, number, repeated if n else head)
            return opened + frame(http2.DATA, END, number, body) + reset_stream(number)

        peer.flood(call, 30_000)
        ends_with(peer, CALM)
        assert not peer.send(b"x") or peer.goaway() is None


def test_streams_beyond_the_limit_are_refused_and_then_the_peer_is(server):
    with Peer(server) as peer:
        first, rest = peer.head(), peer.head()
        peer.flood(lambda n: frame(http2.HEADERS, LAST, 2 * n + 1, rest if n else first), 5_000)
        ends_with(peer, CALM)


def test_a_call_that_the_peer_makes_the_server_fail_leaves_no_work(server):
    """CVE-2025-8671: the server ends the stream because of the peer's own fault, while the work goes on."""
    with Peer(server) as peer:
        for n in range(8):
            number = 2 * n + 1
            opened = frame(http2.HEADERS, LAST, number, peer.head()) + frame(http2.DATA, 0, number, message())
            peer.send(opened + (frame(http2.DATA, 0, number, message()) if n % 2 else window_update(number, 2**31 - 1)))
        seen = set()
        for kind, flags, stream, _ in peer.frames():
            if kind == http2.RST_STREAM or flags & END:
                seen.add(stream)
            if len(seen) == 8:
                break
        wait_until(lambda: server.server.plane.in_flight == 0, 5)


@pytest.mark.parametrize("size", [0, 1])
def test_endless_continuation(server, size):
    """CVE-2024-27316 and its like: a header block of CONTINUATION frames without end."""
    with Peer(server) as peer:
        peer.send(frame(http2.HEADERS, 0, 1, peer.head()))
        peer.flood(lambda n: frame(http2.CONTINUATION, 0, 1, b"\x00" * size), 20_000)
        ends_with(peer, CALM)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_block_that_is_too_long(server, pieces):
    block = hpack.Encoder().encode([*HEADS, ("x", "y" * 40_000)], huffman=False)
    part = len(block) // pieces + 1
    with Peer(server) as peer:
        for at in range(0, len(block), part):
            flags = LAST if at + part >= len(block) else 0
            peer.send(frame(http2.CONTINUATION if at else http2.HEADERS, flags, 1, block[at : at + part]))
        ends_with(peer, CALM)


def test_other_frames_inside_a_block(server):
    with Peer(server) as peer:
        peer.send(frame(http2.HEADERS, 0, 1, peer.head()) + frame(http2.PING, 0, 0, bytes(8)))
        assert peer.goaway() == PROTOCOL


def test_a_header_bomb(server):
    """CVE-2016-6581: a table entry of 4 KiB, named by a thousand bytes."""
    with Peer(server) as peer:
        peer.send(frame(http2.HEADERS, LAST | END, 1, peer.head([*HEADS, ("x-bomb", "a" * 3_900)])))
        index = peer.head([("x-bomb", "a" * 3_900)])
        assert len(index) == 1
        peer.send(frame(http2.HEADERS, LAST | END, 3, peer.head() + index * 1000))
        assert peer.goaway() == COMPRESSION


def test_of_headers_only_the_wanted_are_kept():
    encoder, blocks = hpack.Encoder(), Blocks()
    for _ in range(2):
        _, headers = blocks.begin(LAST, 1, memoryview(encoder.encode([*HEADS, ("x", "y" * 3_000)])))
        assert set(headers) == {":method", ":path", "content-type"}
    for n in range(1000):
        blocks.begin(LAST, 1, memoryview(encoder.encode(HEADS) + bytes([0x80 | 2 + n % 6])))
    assert len(blocks._known) <= 64


@pytest.mark.parametrize(
    "flood",
    [
        frame(http2.PING, 0, 0, bytes(8)), frame(http2.SETTINGS, 0, 0), frame(http2.SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff" * 3),
        frame(http2.PRIORITY, 0, 1, bytes(5)), frame(http2.DATA, 0, 1), frame(77, 0, 1),
    ],
    ids=["ping", "settings", "full settings", "priority", "empty data", "unknown"],
)  # fmt: skip
def test_frames_that_carry_nothing(server, flood):
    """CVE-2019-9512, 9513, 9515, 9518."""
    with Peer(server) as peer:
        peer.send(frame(http2.HEADERS, LAST, 1, peer.head()))
        peer.flood(lambda n: flood, 40_000)
        ends_with(peer, CALM)


def test_the_connection_window_overflows(server):
    with Peer(server) as peer:
        peer.send(window_update(0, 2**31 - 1))
        assert peer.goaway() == FLOW


def test_the_window_of_a_stream_overflows(server):
    with Peer(server) as peer:
        peer.send(frame(http2.HEADERS, LAST, 1, peer.head()) + window_update(1, 2**31 - 1))
        kinds = []
        for kind, _, stream, payload in peer.frames():
            kinds.append(kind)
            if kind == http2.RST_STREAM:
                assert (stream, int.from_bytes(payload, "big")) == (1, FLOW)
                return
        raise AssertionError(kinds)


def test_settings_that_overflow_the_window_of_a_stream(server):
    with Peer(server) as peer:
        peer.send(frame(http2.HEADERS, LAST, 1, peer.head()) + window_update(1, 2**30))
        peer.send(frame(http2.SETTINGS, 0, 0, b"\0\x04" + (2**31 - 1).to_bytes(4, "big")))
        assert peer.goaway() == FLOW


def test_a_message_that_is_too_large_is_refused_by_its_prefix(server):
    with Peer(server) as peer:
        body = b"\0" + (300 << 20).to_bytes(4, "big")
        peer.send(frame(http2.HEADERS, LAST, 1, peer.head()) + frame(http2.DATA, 0, 1, body))
        assert any(stream == 1 and b"grpc-status\x018" in payload for _, _, stream, payload in take_until(peer, http2.HEADERS))


def test_a_peer_that_opens_no_window_costs_one_look_an_update(server):
    """CVE-2019-9511, 9517: answers that wait for a window which opens by single bytes."""
    with Peer(server) as peer:
        peer.send(frame(http2.SETTINGS, 0, 0, b"\0\x04" + (0).to_bytes(4, "big")))
        for n in range(200):
            number = 2 * n + 1
            peer.send(frame(http2.HEADERS, LAST, number, peer.head()) + frame(http2.DATA, END, number, message("id_FP32")))
        peer.flood(lambda n: window_update(0, 1), 5_000)
        peer.flood(lambda n: window_update(2 * (n % 200) + 1, 1), 5_000)
        peer.send(frame(http2.PING, 0, 0, b"are you?"))
        assert any(kind == http2.PING and payload == b"are you?" for kind, _, _, payload in take_until(peer, http2.PING))


def take_until(peer, kind):
    for each in peer.frames():
        yield each
        if each[0] == kind:
            return


def test_what_never_arrives_is_ended(tmp_path, monkeypatch):
    add_identity(tmp_path, "id_FP32", "FP32")
    monkeypatch.setattr(listener, "SWEEP_S", 0.1)
    with running(tmp_path, limits=Limits(read_timeout_s=0.3)) as server:
        with socket.create_connection(("127.0.0.1", server.server.grpc_port), 20) as silent:
            assert silent.recv(1 << 16)  # its settings
            assert silent.recv(1 << 16) == b""
        with Peer(server) as peer:
            peer.send(frame(http2.HEADERS, 0, 1, peer.head()))
            assert peer.goaway() is None
        with Peer(server) as peer:
            peer.send(frame(http2.HEADERS, LAST, 1, peer.head()))
            assert any(kind == http2.RST_STREAM for kind, *_ in take_until(peer, http2.RST_STREAM))
        with Peer(server) as peer:  # one that is only idle stays
            time.sleep(0.8)
            peer.send(frame(http2.PING, 0, 0, bytes(8)))
            assert any(kind == http2.PING for kind, *_ in take_until(peer, http2.PING))


def test_a_frame_that_trickles_in_is_looked_at_once(monkeypatch):
    looks, seen = [], []

    class Header:
        @staticmethod
        def unpack_from(data, at):
            looks.append(at)
            return real.unpack_from(data, at)

    data = http2.PREFACE + frame(http2.DATA, 0, 1, bytes(1 << 20)) + frame(http2.PING, 0, 0, b"12345678")
    real = http2.HEADER
    monkeypatch.setattr(http2, "HEADER", Header)
    incoming = http2.Incoming(lambda kind, flags, stream, payload: seen.append((kind, bytes(payload))))
    for at in range(0, len(data), 64):
        incoming.feed(data[at : at + 64])
    assert [kind for kind, _ in seen] == [http2.DATA, http2.PING] and seen[1][1] == b"12345678"
    assert len(looks) <= 4


def test_budgets():
    now = [0.0]
    budget = Budget("things", 10, 2.0, lambda: now[0])
    budget.spend(10)
    with pytest.raises(ConnectionError2, match="too many things"):
        budget.spend(5)
    now[0] = 10.0
    budget.spend(5)
    for _ in range(3):
        budget.earn()
    budget.spend(3)


def test_a_client_may_cancel_many_calls(server):
    with grpc_client.InferenceServerClient(server.grpc) as client:
        given = grpc_client.InferInput("INPUT0", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        calls = [client.async_infer("slow", [given], lambda result, error: None) for _ in range(900)]
        for call in calls:
            call.cancel()
        with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
            client.infer("slow", [given], client_timeout=0.02)
        assert client.is_server_live()
