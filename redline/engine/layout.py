"""Where the parts of an engine file lie: the preamble, and the rule that places the blobs. See SPEC.md."""

import hashlib
import struct
from collections.abc import Sequence

from redline.engine.header import ALIGNMENT

MAGIC = b"\x89RDLN\r\n\x1a"
PREAMBLE = struct.Struct("<8sIIQQ")  # magic, format, zero, bytes of the header, bytes of the file
PREAMBLE_BYTES = 64
BLOCK_BYTES = 4 << 20


def round_up(num_bytes: int, alignment: int = ALIGNMENT) -> int:
    return -(-num_bytes // alignment) * alignment


def place(blob_bytes: Sequence[int]) -> tuple[list[int], int]:
    """The offsets of blobs of these lengths from the start of the first, and the length of them all."""
    offsets, end = [], 0
    for num_bytes in blob_bytes:
        offsets.append(end)
        end = round_up(end + num_bytes)
    return offsets, end


def blobs_start(header_bytes: int) -> int:
    """Where the first blob lies in a file whose header text has this length."""
    return round_up(PREAMBLE_BYTES + header_bytes)


def header_hash(preamble: bytes, text: bytes) -> bytes:
    return hashlib.sha256(preamble + text).digest()


class BlockHashes:
    """The SHA-256 of each block of a blob that arrives in pieces."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._open, self._bytes = hashlib.sha256(), 0

    def update(self, piece: memoryview) -> None:
        while piece.nbytes:
            part = piece[: BLOCK_BYTES - self._bytes]
            self._open.update(part)
            self._bytes += part.nbytes
            piece = piece[part.nbytes :]
            if self._bytes == BLOCK_BYTES:
                self._close()

    def digests(self) -> tuple[str, ...]:
        """The hashes; no more pieces may follow."""
        if self._bytes:
            self._close()
        return tuple(self._done)

    def _close(self) -> None:
        self._done.append(self._open.hexdigest())
        self._open, self._bytes = hashlib.sha256(), 0


def block_hash(block: memoryview) -> str:
    return hashlib.sha256(block).hexdigest()


def blocks(num_bytes: int) -> list[tuple[int, int]]:
    """The (start, end) of the blocks of a blob."""
    return [(start, min(start + BLOCK_BYTES, num_bytes)) for start in range(0, num_bytes, BLOCK_BYTES)]
