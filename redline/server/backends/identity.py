"""The identity backend: the n-th output is the n-th input. Parameter ``execute_delay_ms`` makes it take its time."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from redline.server.config import ModelConfig
from redline.server.errors import invalid
from redline.server.program import Instance, Program, Progress, Ran, with_batch
from redline.server.types import Arrays, Shape


class Identity:
    """Program and instance in one: it has no state."""

    def __init__(self, config: ModelConfig) -> None:
        where = f"model {config.name!r}"
        if not config.inputs or len(config.inputs) != len(config.outputs):
            raise invalid(where, "the identity backend needs as many outputs as inputs in its configuration")
        for source, target in zip(config.inputs, config.outputs, strict=True):
            if source.datatype != target.datatype:
                raise invalid(
                    where, f"{source.name!r} is {source.datatype}, {target.name!r} {target.datatype}", "they must agree"
                )
        delay = config.parameters.get("execute_delay_ms", "0")
        if not delay.isdecimal():
            raise invalid(where, f"execute_delay_ms is {delay!r}", "allowed: a whole number")
        self.inputs = with_batch(config.inputs, config.max_batch_size)
        self.outputs = with_batch(config.outputs, config.max_batch_size)
        self.max_batch_size = config.max_batch_size
        self.sizes: tuple[int, ...] = (max(1, config.max_batch_size),)
        self.typical: Mapping[str, Shape] = {}
        self._delay_s = int(delay) / 1e3
        self.brief = not self._delay_s
        self._names = [(i.name, o.name) for i, o in zip(config.inputs, config.outputs, strict=True)]

    def instance(self, threads: int, isolated: bool) -> Instance:
        return self

    def run(self, batch: Sequence[Arrays]) -> Ran:
        if self._delay_s:
            time.sleep(self._delay_s)
        return Ran([{target: arrays[source] for source, target in self._names if source in arrays} for arrays in batch])

    def close(self) -> None:
        pass


def load_identity(config: ModelConfig, folder: Path, progress: Progress) -> Program:
    return Identity(config)
