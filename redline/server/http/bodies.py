"""Compressed request bodies, with their limit held while they grow."""

import zlib

from redline.server.errors import Kind, ServeError, invalid

WINDOW = {"gzip": 31, "deflate": 15}


def decompress(coding: str, body: memoryview, limit_bytes: int) -> memoryview:
    """The body in the clear; raises ServeError for an unknown coding, damaged data, and more than ``limit_bytes``."""
    if coding not in WINDOW:
        seen = f"content encoding {coding[:40]!r}"
        raise ServeError(Kind.MEDIA_TYPE, "http", seen, f"allowed: {', '.join(WINDOW)}")
    unpacker = zlib.decompressobj(WINDOW[coding])
    try:
        data = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise invalid("http", f"the body is not {coding}: {error}") from error
    if len(data) > limit_bytes:
        raise ServeError(Kind.TOO_LARGE, "http", "the body is too large when decompressed", f"allowed: {limit_bytes} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise invalid("http", f"the body is not {coding}: it is cut off or longer than its end")
    return memoryview(data)
