"""The load driver's HTTP connections: one request at a time, as little work as can be for each."""

import asyncio
from typing import Any

import orjson

from redline.base.errors import RedlineError


class Connection(asyncio.Protocol):
    """One HTTP connection that sends a request at a time."""

    def __init__(self) -> None:
        self._data = self.body = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._data) < end + 4 + length:
            return
        self.body, self._data = self._data[end + 4 : end + 4 + length], b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was closed"))

    @property
    def open(self) -> bool:
        return self._transport is not None

    async def ask(self, request: bytes) -> int:
        """Sends a request; the status of its answer, whose body is in ``body``."""
        if self._transport is None:
            raise ConnectionError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int) -> Connection:
    """Raises RedlineError when nobody listens there."""
    try:
        return (await asyncio.get_running_loop().create_connection(Connection, host, port))[1]
    except OSError as error:
        raise RedlineError("bench-server", f"{host}:{port} cannot be reached: {error.strerror or error}") from error


async def fetch(host: str, port: int, path: str) -> Any:
    """The JSON at a path."""
    connection = await connect(host, port)
    status = await connection.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    connection.close()
    value = orjson.loads(connection.body) if connection.body else {}
    if status != 200:
        raise RedlineError("bench-server", f"{path}: {value.get('error', f'status {status}')}")
    return value
