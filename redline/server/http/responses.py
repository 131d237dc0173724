"""Responses as bytes."""

import zlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson

from redline.server.errors import Kind, kind_of, text_of

Pieces = list[bytes | memoryview]
JSON = b"application/json"
BINARY = b"application/octet-stream"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {499: b"Client Closed Request"}
RETRY = {429: b"Retry-After: 1\r\n", 503: b"Retry-After: 1\r\n"}
COMPRESS_FROM = 1024


def head(status: int, content_type: bytes, num_bytes: int, keep_alive: bool, extra: bytes = b"") -> bytes:
    """Status line and headers; ``extra``: further lines, each with its end."""
    close = b"" if keep_alive else b"Connection: close\r\n"
    line = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (status, REASONS[status], content_type, num_bytes)
    return line + RETRY.get(status, b"") + extra + close + b"\r\n"


def plain(status: int, content_type: bytes, body: bytes, keep_alive: bool, extra: bytes = b"") -> Pieces:
    return [head(status, content_type, len(body), keep_alive, extra) + body]


def json(value: Any, keep_alive: bool, status: int = 200) -> Pieces:
    return plain(status, JSON, orjson.dumps(value), keep_alive)


def error(error: BaseException, keep_alive: bool) -> Pieces:
    kind = kind_of(error)
    extra = b"WWW-Authenticate: Bearer\r\n" if kind is Kind.UNAUTHENTICATED else b""
    return plain(kind.http, JSON, orjson.dumps({"error": text_of(error)}), keep_alive, extra)


def compress(pieces: Sequence[bytes | memoryview], coding: str) -> bytes:
    """The pieces as one body in ``coding`` (gzip or deflate)."""
    packer = zlib.compressobj(1, wbits=31 if coding == "gzip" else 15)
    return b"".join([*map(packer.compress, pieces), packer.flush()])


def asked_for(accept_encoding: str) -> str:
    """The coding that a client asks for by naming it alone; "" for none.

    A list is what HTTP libraries send by themselves: some clients cannot read what they then get, and tensors do not shrink.
    """
    return accept_encoding if accept_encoding in ("gzip", "deflate") else ""
