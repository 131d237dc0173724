"""The checksum of a block, quick enough to be made while a model starts; checksum.c is the same in C.

The block, padded with zeros, is a matrix of 64-bit words with 64 columns. Each column is a polynomial in P modulo 2^64, and
the columns are folded one after the other. It finds damage, not malice: that is what the SHA-256 beside it is for.
"""

import functools

import numpy as np

COLUMNS = 64
P = 0x9E3779B97F4A7C15
Q = 0xD6E8FEB86659FD93
MASK = (1 << 64) - 1


def checksum(block: memoryview | bytes) -> int:
    """The 64-bit checksum of ``block``."""
    data = np.frombuffer(block, np.uint8)
    rows = -(-data.size // (8 * COLUMNS))
    padded = np.pad(data, (0, rows * 8 * COLUMNS - data.size)) if data.size % (8 * COLUMNS) else data
    words = padded.view("<u8").reshape(rows, COLUMNS)
    columns = (words * _powers(rows)[:, None]).sum(axis=0, dtype=np.uint64)
    result = data.size
    for word in columns.tolist():
        result = ((result ^ word) * Q) & MASK
        result ^= result >> 29
    return result


@functools.cache
def _powers(rows: int) -> np.ndarray:
    """P^(rows - 1), ..., P, 1."""
    powers = np.ones(rows, np.uint64)
    if rows > 1:
        powers[1:] = P
    return np.multiply.accumulate(powers)[::-1].copy()
