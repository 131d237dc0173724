"""What the server writes: its own log on standard error, and a line of JSON for every HTTP request where asked."""

import json
import logging
import sys
import time
from typing import TextIO

from redline.base.log import logger
from redline.server.http.connection import Exchange

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
        line = {
            "time": round(time.time(), 6),
            "method": head.method,
            "path": head.path,
            "status": exchange.status,
            "seconds": round(time.perf_counter() - exchange.started, 6) if exchange.started else None,
            "request_bytes": len(exchange.body),
            "response_bytes": sum(map(len, exchange.pieces or ())),
        }
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()
