"""Opens an engine file: maps it, checks sizes and hashes, and hands out the header and views of the blobs.

Nothing is copied, and no code is run. Everything that is wrong with a file is an EngineError which says what to do.
"""

import mmap
import os

import numpy as np

from redline.base.errors import EngineError, closest
from redline.engine.header import FORMAT, Blob, Header, decode
from redline.engine.layout import (
    MAGIC,
    PREAMBLE,
    PREAMBLE_BYTES,
    blobs_start,
    block_hash,
    blocks,
    header_hash,
    place,
)
from redline.engine.variants import blob_of, decode_steps, with_steps, without_steps

AGAIN = "copy it again, or build the engine again"
VERIFY = ("full", "lazy")


class EngineFile:
    """An open engine file, mapped shared and read-only; processes that open the same file hold one copy of it."""

    def __init__(self, path: str, mapping: mmap.mmap, header: Header, start: int) -> None:
        self.path, self.header = path, header
        self._mapping: mmap.mmap | None = mapping
        self._bytes = np.frombuffer(mapping, np.uint8)
        self._places = {blob.name: (blob, start + blob.offset) for blob in header.blobs}

    def blob(self, name: str) -> np.ndarray:
        """The bytes of a blob, a read-only view of the file. Raises EngineError when there is no such blob."""
        if name not in self._places:
            raise EngineError(self.path, f"it has no part {name!r}", closest(name, self._places), "build the engine again")
        blob, start = self._places[name]
        return self._bytes[start : start + blob.num_bytes]

    def verify(self, name: str) -> None:
        """Compares every block of a blob with its SHA-256; raises EngineError at the first that differs."""
        data, (blob, _) = self.blob(name).data, self._places[name]
        for index, (start, end) in enumerate(blocks(blob.num_bytes)):
            if block_hash(data[start:end]) != blob.sha256[index]:
                raise self.damaged(name, index)

    def damaged(self, name: str, block: int) -> EngineError:
        return EngineError(self.path, f"it is damaged: block {block} of {name!r} is not what was written", "", AGAIN)

    def plan(self, number: int) -> Header:
        """Plan number ``number`` as a header of its own. The blob with its steps is checked and read now."""
        bare = list(without_steps(self.header))[number]
        if not number:
            return bare
        name = blob_of(number)
        self.verify(name)
        return with_steps(bare, decode_steps(self.blob(name).tobytes(), self.path, number))

    def read_ahead(self, name: str, start: int, end: int) -> None:
        """Asks the system to have bytes ``start`` to ``end`` of a blob in memory soon; does nothing on a closed file."""
        mapping, place = self._mapping, self._places.get(name)
        if mapping is not None and place is not None and start < end:
            first = (place[1] + start) // mmap.PAGESIZE * mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, first, place[1] + end - first)

    def close(self) -> None:
        """Gives the file up; it is unmapped when the last view of a blob is gone."""
        self._mapping, self._bytes, self._places = None, np.empty(0, np.uint8), {}


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header alone, of a file whose other parts may be damaged. Raises EngineError as ``open_engine`` does."""
    name = os.fspath(path)
    with _map(name) as mapping:
        return _read_header(name, mapping)[0]


def open_engine(path: str | os.PathLike[str], verify: str = "full") -> EngineFile:
    """Opens an engine. ``verify="lazy"`` leaves weights and further plans unchecked, so that a large file opens at once.

    Raises EngineError for a file that is missing, damaged, of a newer format, or no engine.
    """
    name = os.fspath(path)
    if verify not in VERIFY:
        raise EngineError("verify", f"{verify!r} is unknown", closest(verify, VERIFY))
    mapping = _map(name)
    try:
        header, start = _read_header(name, mapping)
        _check_table(name, header.blobs, len(mapping) - start)
        _check_padding(name, mapping, header.blobs, start)
        file = EngineFile(name, mapping, header, start)
    except BaseException:
        mapping.close()
        raise
    try:
        for blob in header.blobs:
            if verify == "full" or not (blob.name == "weights" or blob.name.startswith("plan.")):
                file.verify(blob.name)
    except BaseException:
        file.close()
        raise
    return file


def _map(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < PREAMBLE_BYTES:
                _check_magic(path, file.read(len(MAGIC)))
                raise EngineError(path, f"it is cut off after {size} bytes", "", AGAIN)
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except OSError as error:
        raise EngineError(path, f"it cannot be read: {error.strerror or error}") from error


def _check_magic(path: str, start: bytes) -> None:
    if start != MAGIC[: len(start)] or not start:
        raise EngineError(path, "it is not a Redline engine", "", "make one with redline build model.onnx -o model.engine")


def _read_header(path: str, mapping: mmap.mmap) -> tuple[Header, int]:
    """The header, and where the blobs start."""
    preamble = mapping[: PREAMBLE.size]
    _check_magic(path, preamble[: len(MAGIC)])
    _, version, zero, header_bytes, file_bytes = PREAMBLE.unpack(preamble)
    if version > FORMAT:
        seen = f"its format is version {version}"
        raise EngineError(path, seen, f"this Redline reads version {FORMAT}", "upgrade Redline, or build the engine again")
    if version < FORMAT or zero:
        raise EngineError(path, f"its format version {version} is unknown", f"expected {FORMAT}", "build the engine again")
    if file_bytes != len(mapping):
        problem = "cut off" if file_bytes > len(mapping) else "longer than written"
        raise EngineError(path, f"it is {problem}: {len(mapping)} bytes instead of {file_bytes}", "", AGAIN)
    start = blobs_start(header_bytes)
    if start > len(mapping):
        raise EngineError(path, f"it is damaged: a header of {header_bytes} bytes does not fit", "", AGAIN)
    text = mapping[PREAMBLE_BYTES : PREAMBLE_BYTES + header_bytes]
    if header_hash(preamble, text) != mapping[PREAMBLE.size : PREAMBLE_BYTES]:
        raise EngineError(path, "it is damaged: the header is not what was written", "", AGAIN)
    if any(mapping[PREAMBLE_BYTES + header_bytes : start]):
        raise EngineError(path, "it is damaged: bytes between the header and the first part", "", AGAIN)
    return decode(text, path), start


def _check_table(path: str, blobs: tuple[Blob, ...], num_bytes: int) -> None:
    """The blobs tile the rest of the file in their order, and each has the right number of hashes."""
    malformed = EngineError(path, "the parts of the file have holes, overlap or do not fit", "", "build the engine again")
    if len({blob.name for blob in blobs}) < len(blobs) or any(not 0 <= blob.num_bytes <= num_bytes for blob in blobs):
        raise malformed
    offsets, end = place([blob.num_bytes for blob in blobs])
    if end != num_bytes or offsets != [blob.offset for blob in blobs]:
        raise malformed
    if any({len(blob.sha256), len(blob.checksums)} != {len(blocks(blob.num_bytes))} for blob in blobs):
        raise malformed


def _check_padding(path: str, mapping: mmap.mmap, blobs: tuple[Blob, ...], start: int) -> None:
    ends = [start + blob.offset + blob.num_bytes for blob in blobs]
    nexts = [start + blob.offset for blob in blobs[1:]] + [len(mapping)]
    for blob, end, following in zip(blobs, ends, nexts, strict=True):
        if any(mapping[end:following]):
            raise EngineError(path, f"it is damaged: bytes after {blob.name!r} that nobody wrote", "", AGAIN)
