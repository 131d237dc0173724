"""Runs batches on engines of fixed batch extents: gathers rows, pads the last piece, hands out views of the outputs."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from redline.runtime import AnyEngine
from redline.runtime.callable import Runs
from redline.server.program import Ran
from redline.server.types import Arrays


class EngineInstance:
    """One context per batch extent, and the buffers that rows are gathered in."""

    def __init__(
        self, contexts: Mapping[int, Runs[dict[str, np.ndarray]]], engines: Mapping[int, AnyEngine], max_batch_size: int
    ) -> None:
        self._contexts, self._batching = dict(contexts), max_batch_size > 0
        self._sizes = sorted(self._contexts)
        self._buffers = {
            size: {port.name: np.zeros(port.shape, port.dtype) for port in engine.inputs} for size, engine in engines.items()
        }  # fmt: skip

    def run(self, batch: Sequence[Arrays]) -> Ran:
        if len(batch) == 1 and (not self._batching or self._rows(batch[0]) in self._contexts):
            key = self._rows(batch[0]) if self._batching else 0
            return Ran([self._contexts[key].run(batch[0])])
        started = time.perf_counter()
        counts = [self._rows(arrays) for arrays in batch]
        input_s = output_s = 0.0
        pieces: list[dict[str, np.ndarray]] = []
        rows = list(_pieces(sum(counts), self._sizes))
        walk = _Walk(batch, counts)
        for size, used in rows:
            buffers = self._buffers[size]
            walk.fill(buffers, used)
            input_s += time.perf_counter() - started
            outputs = self._contexts[size].run(buffers)
            started = time.perf_counter()
            pieces.append(outputs if used == size else {name: array[:used] for name, array in outputs.items()})
        outputs = pieces[0] if len(pieces) == 1 else {n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}
        shared = share_out(outputs, counts)
        output_s += time.perf_counter() - started
        return Ran(shared, input_s, output_s)

    @staticmethod
    def _rows(arrays: Arrays) -> int:
        return next(iter(arrays.values())).shape[0]

    def close(self) -> None:
        for context in self._contexts.values():
            context.close()


class _Walk:
    """Copies the rows of the requests, one after the other, into buffers."""

    def __init__(self, batch: Sequence[Arrays], counts: Sequence[int]) -> None:
        self._batch, self._counts = batch, counts
        self._request = self._row = 0

    def fill(self, buffers: Mapping[str, np.ndarray], rows: int) -> None:
        """The next ``rows`` rows, once each."""
        at = 0
        while at < rows:
            arrays, left = self._batch[self._request], self._counts[self._request] - self._row
            step = min(left, rows - at)
            for name, buffer in buffers.items():
                buffer[at : at + step] = arrays[name][self._row : self._row + step]
            at, self._row = at + step, self._row + step
            if self._row == self._counts[self._request]:
                self._request, self._row = self._request + 1, 0


def _pieces(rows: int, sizes: Sequence[int]) -> Sequence[tuple[int, int]]:
    """(size, rows used) of the executions for ``rows`` rows: the largest size while it is full, then what holds the rest."""
    pieces = []
    while rows:
        size = next((size for size in sizes if size >= rows), sizes[-1])
        used = min(size, rows)
        pieces.append((size, used))
        rows -= used
    return pieces


def share_out(outputs: Mapping[str, np.ndarray], counts: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Each request's rows of the outputs, as views."""
    shares, at = [], 0
    for count in counts:
        shares.append({name: array[at : at + count] for name, array in outputs.items()})
        at += count
    return shares
