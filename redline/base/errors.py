"""Errors that a user can act on.

Every message has the form ``[where] what was seen; what is allowed; what to do next``. An exception that is not a
``RedlineError`` is a bug in Redline, never a fault of the user's input.
"""

import importlib
from collections.abc import Iterable


class RedlineError(Exception):
    """An error of the user's input or machine, told in one sentence. The command line exits with ``exit_code``."""

    exit_code = 2

    def __init__(self, where: str, seen: str, allowed: str = "", remedy: str = "") -> None:
        self.where, self.seen, self.allowed, self.remedy = where, seen, allowed, remedy
        super().__init__(f"[{where}] " + "; ".join(part for part in (seen, allowed, remedy) if part))


class ModelError(RedlineError):
    """The ONNX model is malformed, inconsistent or unsafe to read."""


class UnsupportedError(ModelError):
    """The model is valid but holds something that Redline does not build."""


class BuildError(RedlineError):
    """A build cannot be done as asked (options, memory limit, target)."""


class CompilerError(BuildError):
    """No usable C compiler, or the compiler failed."""


class EngineError(RedlineError):
    """The engine file cannot be used: corrupt, newer, or made for another machine."""


class InputError(RedlineError):
    """An inference was called with inputs that the engine does not take."""


def closest(name: str, known: Iterable[str]) -> str:
    """The sentence part that offers the nearest known name, or lists the known names: for errors of look-ups by name."""
    known = sorted(known)
    match = importlib.import_module("difflib").get_close_matches(name, known, n=1)  # of no use to who makes no mistake
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(known) or 'none'}"
