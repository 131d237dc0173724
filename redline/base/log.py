"""Logging: one logger for the package, whose verbosity follows REDLINE_DEBUG."""

import logging
import sys

from redline.base import env

logger = logging.getLogger("redline")


def debug(level: int, message: str) -> None:
    """Prints ``message`` to standard error when REDLINE_DEBUG is at least ``level``."""
    if env.debug_level() >= level:
        print(message, file=sys.stderr, flush=True)
