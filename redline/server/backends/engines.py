"""The redline backend: a model version is one engine, or several that differ in the batch extent only.

``model.engine`` alone serves its own shapes, and where these are a range, every batch of it without padding. Several,
``model.b1.engine``, ``model.b8.engine`` ..., are one model for those batches: a batch runs on the smallest that holds it. A
``model.onnx`` is built first (see building.py).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from redline.base import dtypes
from redline.engine import spans
from redline.runtime import AnyEngine, load
from redline.runtime.ports import Port
from redline.server.backends.building import batch_sizes, build_engines
from redline.server.backends.instances import largest_batch, make_instance, takes_several
from redline.server.backends.worker import WorkerInstance
from redline.server.config import ModelConfig
from redline.server.errors import invalid, not_found
from redline.server.program import Instance, Progress, with_batch
from redline.server.types import Shape, TensorSpec

SIZED = re.compile(r"model\.b(\d{1,6})\.engine")


class EngineSet:
    """The engines of one model version by batch extent; a model without batches has one under 0."""

    brief = True

    def __init__(self, config: ModelConfig, files: Mapping[int, Path]) -> None:
        self._where, self._files = f"model {config.name!r}", dict(sorted(files.items()))
        self._engines: dict[int, AnyEngine] = {}
        self.typical: Mapping[str, Shape] = {}
        try:
            for key, path in self._files.items():
                self._engines[key] = load(path)
            self._check(config)
        except BaseException:
            self.close()
            raise

    def _check(self, config: ModelConfig) -> None:
        """Sets the specs: those of the engines, which the configuration must agree with and may reorder."""
        if self._is_open:
            self._check_open(config, self._engines[0])
            return
        declared = config.max_batch_size
        if not declared and list(self._engines) != [0]:
            declared = max(self._engines)
        if declared and list(self._engines) == [0]:
            engine = self._engines.pop(0)
            size = self._extent(engine)
            self._engines[size], self._files = engine, {size: self._files[0]}
        self.max_batch_size, self.sizes = declared, tuple(self._engines)
        for size, engine in self._engines.items():
            if declared and self._extent(engine) != size:
                raise invalid(self._where, f"{engine.path} has batch {self._extent(engine)}", f"its name says {size}")
        first = next(iter(self._engines.values()))
        self.inputs = self._specs(first.inputs, config.inputs, "input")
        self.outputs = self._specs(first.outputs, config.outputs, "output")

    @property
    def _is_open(self) -> bool:
        return list(self._engines) == [0] and takes_several(self._engines[0].header)

    def _check_open(self, config: ModelConfig, engine: AnyEngine) -> None:
        """As ``_check``, for an engine of open shapes: batches go up to the largest that it takes."""
        usual, largest = largest_batch(engine.header)
        if config.max_batch_size > largest:
            allowed = (
                f"{engine.path} takes batches of 1 to {largest}" if largest else f"{engine.path} has no open batch from 1 on"
            )
            raise invalid(self._where, f"max_batch_size is {config.max_batch_size}", allowed, "build it with a wider --shapes")
        self.max_batch_size = config.max_batch_size or usual
        self.sizes = tuple(batch_sizes(self.max_batch_size))
        opened = {
            name: tuple(-1 if low < most else most for low, most in axes) for name, axes in spans(engine.header).items()
        }  # fmt: skip
        self.inputs = self._specs(engine.inputs, config.inputs, "input", opened)
        self.outputs = self._specs(engine.outputs, config.outputs, "output", opened)
        self.typical = {port.name: port.shape for port in engine.inputs}

    def _extent(self, engine: AnyEngine) -> int:
        """The batch extent that all inputs and outputs of an engine share."""
        extents = {port.shape[0] if port.shape else None for port in (*engine.inputs, *engine.outputs)}
        size = extents.pop()
        if extents or size is None:
            remedy = "set max_batch_size: 0, or build it with one batch extent"
            raise invalid(self._where, f"the inputs and outputs of {engine.path} share no first extent", "", remedy)
        return int(size)

    def _specs(
        self, ports: tuple[Port, ...], declared: tuple[TensorSpec, ...], kind: str, opened: Mapping[str, Shape] | None = None
    ) -> tuple[TensorSpec, ...]:  # fmt: skip
        front, opened = 1 if self.max_batch_size else 0, opened or {}
        found = {
            p.name: TensorSpec(p.name, dtypes.from_numpy(p.dtype).v2, opened.get(p.name, p.shape)[front:]) for p in ports
        }  # fmt: skip
        for spec in declared:
            match = found.get(spec.name)
            if match is None:
                raise invalid(self._where, f"the engine has no {kind} {spec.name!r}", f"it has {', '.join(found)}")
            fits = len(spec.shape) == len(match.shape) and all(
                d in (-1, e) for d, e in zip(spec.shape, match.shape, strict=True)
            )
            if spec.datatype != match.datatype or not fits:
                raise invalid(self._where, f"{kind} {spec.name!r} is {spec} in the configuration", f"{match} in the engine")
        names = [spec.name for spec in declared] if kind == "output" and declared else list(found)
        return with_batch([found[name] for name in names], self.max_batch_size)

    def instance(self, threads: int, isolated: bool) -> Instance:
        if isolated:
            return WorkerInstance(self._where, self._files, self.max_batch_size, threads)
        return make_instance(self._engines, self.max_batch_size, threads)

    def close(self) -> None:
        while self._engines:
            self._engines.popitem()[1].close()


def find_engines(config: ModelConfig, folder: Path) -> dict[int, Path]:
    """The engine files in a version's folder by batch extent (0: whatever it has)."""
    if config.default_file.endswith(".engine"):
        return {0: folder / config.default_file}
    sized = {int(m[1]): path for path in folder.iterdir() if (m := SIZED.fullmatch(path.name))}
    if sized:
        return sized
    return {0: folder / "model.engine"} if (folder / "model.engine").is_file() else {}


def load_engines(config: ModelConfig, folder: Path, progress: Progress) -> EngineSet:
    """Loads a version's engines, building them first where it has only a model.onnx."""
    files = find_engines(config, folder)
    onnx = folder / (config.default_file if config.default_file.endswith(".onnx") else "model.onnx")
    if not files and onnx.is_file():
        files = build_engines(config, onnx, progress)
    if not files:
        expected = "expected model.engine, model.b1.engine, ... or model.onnx"
        raise not_found(f"model {config.name!r}", f"{folder} holds no model", expected)
    return EngineSet(config, files)
