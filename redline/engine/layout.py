"""Where the parts of an engine file lie: the preamble, and the rule that places the blobs. See SPEC.md."""

import struct
from collections.abc import Sequence

from redline.engine.checksum import checksum
from redline.engine.digest import sha256
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
    return sha256(preamble + text)


class BlockHashes:
    """The SHA-256 and the checksum of each block of a blob that arrives in pieces."""

    def __init__(self) -> None:
        self.sha256: list[str] = []
        self.checksums: list[str] = []
        self._open = bytearray()

    def update(self, piece: memoryview) -> None:
        while piece.nbytes:
            part = piece[: BLOCK_BYTES - len(self._open)]
            self._open += part
            piece = piece[part.nbytes :]
            if len(self._open) == BLOCK_BYTES:
                self._close()

    def finish(self) -> None:
        """No more pieces follow."""
        if self._open:
            self._close()

    def _close(self) -> None:
        self.sha256.append(block_hash(memoryview(self._open)))
        self.checksums.append(checksum_text(checksum(memoryview(self._open))))
        self._open = bytearray()


def checksum_text(value: int) -> str:
    return f"{value:016x}"


def block_hash(block: memoryview) -> str:
    return sha256(block).hex()


def blocks(num_bytes: int) -> list[tuple[int, int]]:
    """The (start, end) of the blocks of a blob."""
    return [(start, min(start + BLOCK_BYTES, num_bytes)) for start in range(0, num_bytes, BLOCK_BYTES)]
