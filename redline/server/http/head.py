"""The head of a request, parsed by a C parser. Clients repeat theirs byte by byte, so the last thousand are remembered."""

from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from redline.server.errors import invalid

MAX_HEAD_BYTES = 64 << 10
MAX_URL_BYTES = 8 << 10
REMEMBERED = 1024
REMEMBERED_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class Head:
    """What of a head matters. ``body_bytes`` -1: chunked. ``json_bytes`` -1: the whole body is JSON."""

    method: str
    path: str
    segments: tuple[str, ...]
    query: str
    keep_alive: bool
    body_bytes: int
    json_bytes: int = -1
    content_encoding: str = ""
    accept_encoding: str = ""
    authorization: str = ""
    expects_continue: bool = False


class _Collector:
    """The parser's callbacks."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        self.headers[key] = self.headers[key] + b", " + value if key in self.headers else value

    def on_headers_complete(self) -> None:
        self.complete = True


def parse(data: bytes) -> Head:
    """The head in ``data``, which ends with an empty line; raises ServeError for anything that is no HTTP/1 request."""
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # a server may ignore an offer to speak another protocol
    except httptools.HttpParserError as error:
        raise invalid("http", f"the request is malformed: {error}") from error
    if not collector.complete:
        raise invalid("http", "the request is malformed: its head is incomplete")
    return _head(parser, collector)


def _head(parser: httptools.HttpRequestParser, collector: _Collector) -> Head:
    headers, where = collector.headers, "http"
    if len(collector.url) > MAX_URL_BYTES:
        raise invalid(where, "the URL is too long", f"allowed: {MAX_URL_BYTES} bytes")
    try:
        url = httptools.parse_url(collector.url)
        path = url.path.decode("ascii") if url.path else "/"
        segments = tuple(unquote(part, errors="strict") for part in path.strip("/").split("/"))
        query = url.query.decode("ascii") if url.query else ""
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
        raise invalid(where, "the URL is malformed") from error
    coding = headers.get(b"transfer-encoding", b"").lower().strip()
    if coding not in (b"", b"chunked"):
        raise invalid(where, f"transfer encoding {coding[:40]!r}", "allowed: chunked")
    return Head(
        method=parser.get_method().decode("ascii", "replace"),
        path=path,
        segments=segments,
        query=query,
        keep_alive=bool(parser.should_keep_alive()),
        body_bytes=-1 if coding else _number(headers.get(b"content-length", b"0"), "Content-Length"),
        json_bytes=_number(headers.get(b"inference-header-content-length", b"-1"), "Inference-Header-Content-Length"),
        content_encoding=headers.get(b"content-encoding", b"").decode("latin-1").lower().strip(),
        accept_encoding=headers.get(b"accept-encoding", b"").decode("latin-1").lower().strip(),
        authorization=headers.get(b"authorization", b"").decode("latin-1").strip(),
        expects_continue=headers.get(b"expect", b"").lower() == b"100-continue",
    )


def _number(text: bytes, name: str) -> int:
    text = text.strip()
    if text == b"-1" and name.startswith("Inference"):
        return -1
    if not text.isdigit() or len(text) > 15:
        raise invalid("http", f"{name} is {text[:40]!r}", "expected a whole number")
    return int(text)


class Heads:
    """``parse`` with a memory."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def __call__(self, data: bytes) -> Head:
        known = self._known.get(data)
        if known is not None:
            return known
        head = parse(data)
        if len(data) <= REMEMBERED_BYTES:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[data] = head
        return head
