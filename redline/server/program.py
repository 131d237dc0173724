"""What the server needs of a model, whatever runs it: a Program makes instances, an instance runs batches of requests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from redline.server.config import ModelConfig
from redline.server.types import Arrays, Shape, TensorSpec


@dataclass(slots=True)
class Ran:
    """The outputs of each request of a batch, and the seconds spent on gathering inputs and on sharing out outputs."""

    outputs: list[dict[str, np.ndarray]]
    input_s: float = 0.0
    output_s: float = 0.0


class Instance(Protocol):
    """Runs one batch at a time, on whichever thread calls."""

    def run(self, batch: Sequence[Arrays]) -> Ran:
        """The outputs of every request. The arrays of a batching model differ in their first extent only."""

    def close(self) -> None:
        """Frees what the instance holds; nothing runs any more."""


class Program(Protocol):
    """A model version that is loaded. ``inputs`` and ``outputs`` have the batch extent (-1) where ``max_batch_size`` > 0.

    ``sizes``: the batch extents it runs without padding. ``brief``: it may run on the event loop when measured to be quick.
    ``typical``: the shapes to measure inputs at whose specs have open extents besides the batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    sizes: tuple[int, ...]
    brief: bool
    typical: Mapping[str, Shape]

    def instance(self, threads: int, isolated: bool) -> Instance:
        """A new instance with an arena of its own."""

    def close(self) -> None:
        """Frees what the instances share."""


Progress = Callable[[str], None]  # told what is going on ("" for nothing new); raises when the load is to be given up
Loader = Callable[[ModelConfig, Path, Progress], Program]


def with_batch(specs: Sequence[TensorSpec], max_batch_size: int) -> tuple[TensorSpec, ...]:
    """The specs of a configuration, with the batch extent in front where there is one."""
    front = (-1,) if max_batch_size > 0 else ()
    return tuple(TensorSpec(s.name, s.datatype, front + s.shape, s.optional) for s in specs)
