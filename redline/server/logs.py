"""What the server writes: its own log on standard error, and a line of JSON for every request and call where asked."""

import json
import logging
import sys
import time
from typing import Any, TextIO

from redline.base.log import logger
from redline.server.http.exchange import Exchange

FORMAT = "%(asctime)s %(levelname).1s %(message)s"


def configure() -> None:
    """Sends the package's log to standard error, once."""
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT))
        logger.addHandler(handler)
    logger.propagate = False


class AccessLog:
    """Appends to a file; "-" is standard output."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = sys.stdout if path == "-" else open(path, "a", buffering=1)  # noqa: SIM115  (lives with the server)

    def http(self, exchange: Exchange) -> None:
        head = exchange.head
        self._write(
            {
                "protocol": "http",
                "method": head.method,
                "path": head.path,
                "status": exchange.status,
                "seconds": _since(exchange.started),
                "request_bytes": len(exchange.body),
                "response_bytes": sum(map(len, exchange.pieces or ())),
            }
        )

    def grpc(self, path: str, status: int, started_s: float, request_bytes: int, response_bytes: int) -> None:
        self._write(
            {
                "protocol": "grpc",
                "path": path,
                "status": status,
                "seconds": _since(started_s),
                "request_bytes": request_bytes,
                "response_bytes": response_bytes,
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps({"time": round(time.time(), 6), **line}) + "\n")

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


def _since(started_s: float) -> float | None:
    return round(time.perf_counter() - started_s, 6) if started_s else None
