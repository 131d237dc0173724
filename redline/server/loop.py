"""The event loop of this package, so that only it needs to know which one that is."""

import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
YOUNG, MIDDLE, OLD = 10_000, 20, 50  # objects, and collections of the generation below, between two collections


def run_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on a loop of its own."""
    return uvloop.run(coroutine)


def settle_memory() -> None:
    """Takes everything that lives by now out of the garbage collector's sight, and lets it look seldom at the rest.

    A full collection looks at every object, for 30 ms after the imports alone, during which nothing is answered. Requests
    leave no cycles (a test holds that), so there is little for it to find.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
