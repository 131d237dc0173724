"""Shared memory, chunked bodies, configuration files and load requests: what must be refused is, in words."""

import os
from pathlib import Path

import numpy as np
import pytest
from serving import IDENTITY, add_identity, running

from redline.server import config_files, folders, tensors
from redline.server.config import Versions
from redline.server.errors import ServeError
from redline.server.http.bodies import decompress
from redline.server.http.chunks import Chunks
from redline.server.http.head import parse
from redline.server.memory import Regions
from redline.server.types import Region


@pytest.fixture
def shared():
    path = Path(f"/dev/shm/redline-test-{os.getpid()}")
    path.write_bytes(bytes(range(256)) * 16)
    yield path
    path.unlink(missing_ok=True)


def test_regions_are_read_and_written(shared):
    regions = Regions()
    regions.register("r", f"/{shared.name}", 256, 1024)
    assert bytes(regions.read(Region("r", 2, 3))) == b"\x02\x03\x04"
    regions.write(Region("r", 0, 8), b"answers!")
    assert shared.read_bytes()[256:264] == b"answers!"


@pytest.mark.parametrize("key", ["/../etc/passwd", "..", "/", "", "a/b", "/a\0b", "/.", "x" * 300])
def test_keys_with_path_tricks(key):
    with pytest.raises(ServeError, match="its key is"):
        Regions().register("r", key, 0, 1)


def test_links_and_folders_are_no_shared_memory(shared):
    link = Path("/dev/shm/redline-link")
    link.symlink_to("/etc/passwd")
    try:
        with pytest.raises(ServeError, match="cannot be opened"):
            Regions().register("r", "/redline-link", 0, 1)
    finally:
        link.unlink()


def test_regions_too_small_twice_or_overlapping(shared):
    regions = Regions()
    with pytest.raises(ServeError, match="4096 bytes"):
        regions.register("r", shared.name, 4000, 100)
    for offset, size in ((-1, 10), (0, 0), (0, -5)):
        with pytest.raises(ServeError, match="byte_size"):
            regions.register("r", shared.name, offset, size)
    regions.register("r", shared.name, 0, 100)
    with pytest.raises(ServeError, match="registered already"):
        regions.register("r", shared.name, 200, 100)
    with pytest.raises(ServeError, match="overlaps region 'r'"):
        regions.register("s", shared.name, 99, 100)
    regions.register("s", shared.name, 100, 100)
    with pytest.raises(ServeError, match="it has 100"):
        regions.read(Region("s", 50, 51))
    with pytest.raises(ServeError, match="overlap in it"):
        regions.check_apart([Region("r", 0, 10), Region("r", 9, 10)], [])


def test_a_region_that_shrinks_meanwhile(shared):
    regions = Regions()
    regions.register("r", shared.name, 0, 4096)
    os.truncate(shared, 100)
    with pytest.raises(ServeError, match="only 100 of 200"):
        regions.read(Region("r", 0, 200))
    with pytest.raises(ServeError, match="has shrunk"):
        regions.write(Region("r", 0, 200), bytes(200))
    shared.unlink()
    assert len(regions.read(Region("r", 0, 50))) == 50


def feed(data, limit=1000, step=1):
    chunks = Chunks(limit)
    for at in range(0, len(data), step):
        chunks.feed(data[at : at + step])
    return chunks


@pytest.mark.parametrize("step", [1, 2, 7, 100])
def test_chunked_bodies(step):
    chunks = feed(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n", step=step)
    assert chunks.complete and chunks.body == b"abcde" and chunks.rest == b""
    whole = feed(b"1\r\na\r\n0\r\n\r\nGET /", step=100)
    assert whole.complete and whole.rest == b"GET /"


@pytest.mark.parametrize(
    "data", [b"x\r\n", b"-1\r\n", b"+3\r\n", b"0x3\r\n", b" 3\r\n", b"3\r\nabcd\r\n", b"\r\n", b"f" * 20 + b"\r\n"]
)
def test_malformed_chunks(data):
    with pytest.raises(ServeError):
        feed(data)


def test_limits_of_bodies():
    with pytest.raises(ServeError, match="too large"):
        feed(b"ffff\r\n")
    import zlib

    bomb = zlib.compress(bytes(10_000_000))
    with pytest.raises(ServeError, match="too large"):
        decompress("deflate", memoryview(bomb), 1000)
    with pytest.raises(ServeError, match="cut off"):
        decompress("deflate", memoryview(zlib.compress(b"abc")[:-2]), 1000)


@pytest.mark.parametrize(
    "lines",
    ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Content-Length: 3\r\nContent-Length: 4",
     "Transfer-Encoding: gzip, chunked",
     "Content-Length: -1", "Content-Length: 3x", "Bad Header: x", "Inference-Header-Content-Length: 1e3"],
)  # fmt: skip
def test_heads_that_two_readers_might_read_differently(lines):
    with pytest.raises(ServeError):
        parse(f"POST /v2 HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode())


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", ".x", "a\0", "x" * 256, "a\n"])
def test_names_with_path_tricks(name):
    with pytest.raises(ServeError, match="no name of a model"):
        folders.check_name(name)


@pytest.mark.parametrize("version", ["0", "-1", "01", "1.0", "x", "", "9" * 30, "1/..", "\u0661"])
def test_versions_that_are_none(version):
    with pytest.raises(ServeError, match="no version"):
        folders.check_version(version)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: -1", "max_batch_size is -1"), ("nonsense", "cannot be read"),
        ("sequence_batching { }", "sequence_batching"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }", "allowed: 1..4"),
        ("instance_group { kind: KIND_GPU }", "KIND_GPU"), ("model_transaction_policy { decoupled: true }", "decoupled"),
        ("max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "allowed: 1..2"),
        ('input { name: "x" dims: [ 1 ] }', "data_type"), ('input { name: "x" data_type: TYPE_FP32 dims: [ -2 ] }', "dims"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_served(text, words):
    with pytest.raises(ServeError, match=words):
        config_files.to_config(config_files.parse_text(text, "config.pbtxt"))


@pytest.mark.parametrize("text", ["x = 1", "[batching]\nx = 1", "versions = 1.5", "max_batch_size = 'a'", "[batching"])
def test_short_configurations_that_are_wrong(text):
    with pytest.raises(ServeError):
        config_files.to_config(config_files.parse_toml(text, "redline.toml"))


def test_short_configurations():
    text = 'max_batch_size = 8\nversions = "all"\ncache = true\n[batching]\nmax_delay_us = 5\nauto_delay = true\n'
    text += "[instances]\ncount = 2\nthreads = 1\n"
    config = config_files.to_config(config_files.parse_toml(text, "redline.toml"))
    assert config.batching.max_delay_us == 5 and config.batching.auto_delay and config.cache and config.versions.all
    assert (config.instances.count, config.instances.threads) == (2, 1)


def test_version_policies():
    assert Versions().select([1, 3, 2]) == [3] and Versions(latest=2).select([1, 3, 2]) == [2, 3]
    assert Versions(all=True).select([3, 1]) == [1, 3] and Versions(specific=(1, 9)).select([1, 2]) == [1]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("INT8", (2,), [1, 300], "300"), ("INT8", (2,), [1, 1.5], "1.5"), ("UINT8", (1,), [-1], "-1"),
        ("FP32", (1,), ["a"], "a"),
        ("FP32", (2,), [1.0], "1 elements"), ("FP32", (2,), [[1.0], 2.0], "mixes"), ("BOOL", (1,), [2], "2"),
        ("BYTES", (1,), [1], "int"),
        ("FP32", (1,), [None], "null|None"), ("INT32", (1,), [True], "True"),
    ],
)  # fmt: skip
def test_json_tensors_that_are_wrong(datatype, shape, data, words):
    with pytest.raises(ServeError, match=words):
        tensors.from_json("input", datatype, shape, data)


@pytest.mark.parametrize(
    "data", [b"", b"\x05\0\0\0abc", b"\x01\0\0\0a", b"\x01\0\0\0a\x01\0\0\0bx", b"\xff\xff\xff\xff" + bytes(20)]
)
def test_binary_strings_that_are_wrong(data):
    with pytest.raises(ServeError):
        tensors.from_bytes("input", "BYTES", (2,), data)


def test_shapes_that_are_wrong():
    for shape in ([-1], [1.0], [True], "12", None, [1] * 40, [2**30, 2**30], [2**62], [0, 2**39, 2**39]):
        with pytest.raises(ServeError):
            tensors.check_shape("input", shape)


def test_a_model_that_fails_to_load_keeps_the_server_from_being_ready(tmp_path):
    add_identity(tmp_path, "good", "FP32")
    add_identity(tmp_path, "bad", "FP32", IDENTITY.format("FP32").replace("OUTPUT0", "O").replace("TYPE_FP32", "TYPE_INT8", 1))
    (tmp_path / "empty").mkdir()
    with running(tmp_path) as server:
        assert len(server.failures) == 2 and not server.call(server.server.plane.ready)
        assert server.call(lambda: server.server.plane.model_ready("good"))
        with pytest.raises(ServeError, match="INT8"):
            server.call(lambda: server.server.repository.find("bad"))
    assert np.dtype(np.float32).itemsize == 4
