"""Runs batches on one engine of open shapes: the rows of the requests side by side, as many as there are, without padding."""

import time
from collections.abc import Sequence

import numpy as np

from redline.runtime.callable import Runs
from redline.server.backends.engine_instance import share_out
from redline.server.program import Ran
from redline.server.types import Arrays


class OpenInstance:
    """One context. Batches of several requests come only where the first axis of every input and output counts rows."""

    def __init__(self, context: Runs[dict[str, np.ndarray]]) -> None:
        self._context = context

    def run(self, batch: Sequence[Arrays]) -> Ran:
        if len(batch) == 1:
            return Ran([self._context.run(batch[0])])
        started = time.perf_counter()
        joined = {name: np.concatenate([arrays[name] for arrays in batch]) for name in batch[0]}
        counts = [next(iter(arrays.values())).shape[0] for arrays in batch]
        gathered = time.perf_counter()
        outputs = self._context.run(joined)
        ran = time.perf_counter()
        return Ran(share_out(outputs, counts), gathered - started, time.perf_counter() - ran)

    def close(self) -> None:
        self._context.close()
