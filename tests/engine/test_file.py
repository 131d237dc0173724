"""The engine file: the bytes of the specification, and every way in which a file can be wrong."""

import hashlib
import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest

from redline.base.errors import EngineError
from redline.engine import open_engine, write_engine
from redline.engine.header import encode
from redline.engine.layout import BLOCK_BYTES, blobs_start
from tests.small_engines import small_engine


@pytest.fixture
def path(tmp_path):
    return small_engine().write(tmp_path / "m.engine")


def refused(path, message, verify="full"):
    with pytest.raises(EngineError) as error:
        open_engine(path, verify)
    assert message in str(error.value)
    assert str(error.value).startswith(f"[{path}] ")
    assert error.value.remedy


def rewrite(path, text=None, version=5, **fields):
    """The file again with another header text or other fields of the preamble, its hash made anew."""
    data = path.read_bytes()
    old_bytes = struct.unpack_from("<Q", data, 16)[0]
    body = data[blobs_start(old_bytes) :]
    text = data[64 : 64 + old_bytes] if text is None else text
    header_bytes = fields.get("header_bytes", len(text))
    padded = text + bytes(-len(text) % 64)
    file_bytes = fields.get("file_bytes", 64 + len(padded) + len(body))
    preamble = struct.pack("<8sIIQQ", data[:8], version, fields.get("zero", 0), header_bytes, file_bytes)
    path.write_bytes(preamble + hashlib.sha256(preamble + text).digest() + padded + body)


def blobs_changed(path, change):
    data = path.read_bytes()
    text = json.loads(data[64 : 64 + struct.unpack_from("<Q", data, 16)[0]])
    change(text["blobs"])
    rewrite(path, json.dumps(text).encode())


def test_there_and_back(path):
    small = small_engine()
    file = open_engine(path)
    assert replace(file.header, blobs=()) == small.header
    assert file.blob("code").tobytes() == small.code
    np.testing.assert_array_equal(file.blob("weights").view(np.float32), small.weights)
    assert not file.blob("weights").flags.writeable
    file.close()


def test_the_layout_is_that_of_the_specification(path):
    data = path.read_bytes()
    magic, version, zero, header_bytes, file_bytes = struct.unpack_from("<8sIIQQ", data)
    assert (magic, version, zero, file_bytes) == (b"\x89RDLN\r\n\x1a", 5, 0, len(data))
    assert hashlib.sha256(data[:32] + data[64 : 64 + header_bytes]).digest() == data[32:64]
    header = json.loads(data[64 : 64 + header_bytes])
    end = blobs_start(header_bytes)
    start = end
    for blob in header["blobs"]:
        assert (start + blob["offset"], blob["offset"] % 64) == (end, 0)
        content = data[start + blob["offset"] :][: blob["num_bytes"]]
        assert [hashlib.sha256(content).hexdigest()] == blob["sha256"]
        end = -(-(start + blob["offset"] + blob["num_bytes"]) // 64) * 64
    assert end == len(data)


def test_the_same_engine_gives_the_same_file(path, tmp_path):
    assert small_engine().write(tmp_path / "again.engine").read_bytes() == path.read_bytes()


def test_pieces_of_any_size_give_the_same_file(path, tmp_path):
    small = small_engine()
    pieces = [small.code[i : i + 7] for i in range(0, len(small.code), 7)]
    write_engine(
        tmp_path / "pieces.engine", small.header, {"code": pieces, "weights": iter([small.weights[:3], small.weights[3:]])}
    )
    assert (tmp_path / "pieces.engine").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("num_bytes", [0, 1, 63, 64, 65, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 7])
def test_blobs_of_sizes_around_alignment_and_blocks(tmp_path, num_bytes):
    content = np.random.default_rng(0).integers(0, 256, num_bytes, np.uint8)
    header = write_engine(tmp_path / "m.engine", small_engine().header, {"weights": [content.data], "code": [b"x"]})
    assert len(header.blobs[0].sha256) == -(-num_bytes // BLOCK_BYTES)
    file = open_engine(tmp_path / "m.engine")
    np.testing.assert_array_equal(file.blob("weights"), content)
    file.close()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, tmp_path):
    def broken():
        yield b"x"
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_engine(path, small_engine().header, {"code": broken()})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.engine"]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(EngineError, match=r"it cannot be written: No such file or directory"):
        small_engine().write(tmp_path / "none" / "m.engine")


def test_missing(tmp_path):
    with pytest.raises(EngineError) as error:
        open_engine(tmp_path / "m.engine")
    assert str(error.value) == f"[{tmp_path}/m.engine] it cannot be read: No such file or directory"


def test_a_folder(tmp_path):
    with pytest.raises(EngineError, match="it cannot be read: Is a directory"):
        open_engine(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x07\x12\x04test", b"PK\x03\x04" + bytes(100), bytes(1000), b"\x89RDLN\n\x1a" + bytes(99)]
)
def test_no_engine(path, content):
    path.write_bytes(content)
    refused(path, "it is not a Redline engine; make one with redline build")


@pytest.mark.parametrize("keep", [4, 8, 63, 64, 65, 500, -64, -1])
def test_cut_off(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "it is cut off")


def test_longer_than_written(path):
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "it is longer than written")


def test_a_newer_format(path):
    rewrite(path, version=6)
    refused(path, "its format is version 6; this Redline reads version 5; upgrade Redline, or build the engine again")


@pytest.mark.parametrize("version", [0, 1, 4])
def test_an_older_format(path, version):
    rewrite(path, version=version)
    refused(path, f"its format version {version} is unknown")


@pytest.mark.parametrize("header_bytes", [1 << 40, (1 << 64) - 1])
def test_a_header_length_beyond_the_file(path, header_bytes):
    rewrite(path, header_bytes=header_bytes)
    refused(path, f"a header of {header_bytes} bytes does not fit")


def test_a_flipped_bit_in_the_header(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    refused(path, "it is damaged: the header is not what was written; copy it again, or build the engine again", "lazy")


def test_a_flipped_bit_in_a_blob(path):
    start = path.read_bytes().index(b"\x7fELF")
    data = bytearray(path.read_bytes())
    data[start + 1000] ^= 0x80
    path.write_bytes(data)
    refused(path, "it is damaged: block 0 of 'code' is not what was written", "lazy")


def test_lazy_leaves_the_weights_unchecked(path):
    data = bytearray(path.read_bytes())
    data[-64] ^= 1
    path.write_bytes(data)
    refused(path, "block 0 of 'weights' is not what was written")
    file = open_engine(path, "lazy")
    with pytest.raises(EngineError, match="block 0 of 'weights'"):
        file.verify("weights")
    file.close()


def test_bytes_in_the_padding(path, tmp_path):
    write_engine(path, small_engine().header, {"code": [b"xyz"], "weights": [b"12345"]})
    data = bytearray(path.read_bytes())
    for at, message in ((-1, "bytes after 'weights' that nobody wrote"), (-65, "bytes after 'code' that nobody wrote")):
        changed = bytearray(data)
        changed[at] = 1
        path.write_bytes(changed)
        refused(path, message)
    header_end = 64 + struct.unpack_from("<Q", data, 16)[0]
    if header_end % 64:
        data[header_end] = 1
        path.write_bytes(data)
        refused(path, "bytes between the header and the first part")


@pytest.mark.parametrize(
    "change",
    [
        lambda blobs: blobs[0].update(num_bytes=blobs[0]["num_bytes"] - 64),
        lambda blobs: blobs[1].update(num_bytes=1 << 60),
        lambda blobs: blobs[1].update(num_bytes=-64),
        lambda blobs: blobs[1].update(offset=0),
        lambda blobs: blobs[1].update(offset=blobs[1]["offset"] + 64),
        lambda blobs: blobs[1].update(sha256=[]),
        lambda blobs: blobs[1].update(name="code"),
        lambda blobs: blobs.reverse(),
        lambda blobs: blobs.pop(),
        lambda blobs: blobs.clear(),
    ],
)
def test_holes_and_overlaps(path, change):
    blobs_changed(path, change)
    refused(path, "the parts of the file have holes, overlap or do not fit")


def test_a_missing_part(path):
    file = open_engine(path)
    with pytest.raises(EngineError, match=r"it has no part 'weihgts'; did you mean 'weights'\?"):
        file.blob("weihgts")
    file.close()


def test_an_unknown_way_to_verify(path):
    with pytest.raises(EngineError, match=r"\[verify\] 'none' is unknown; known: full, lazy"):
        open_engine(path, "none")


def test_the_header_of_the_file_is_the_encoded_one(path):
    file = open_engine(path)
    assert encode(file.header) in path.read_bytes()
    file.close()
