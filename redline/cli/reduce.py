"""The verb ``reduce``: the smallest piece of a model that still fails, with the inputs on which it does.

A piece fails when it does not build or when its engine answers otherwise than ONNX Runtime. First the earliest value that
fails is found, by bisection over the model's order; then the piece grows from the node that gives it, against the data flow,
until it fails by itself.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from redline.base.errors import RedlineError
from redline.base.shapes import fixed, parse_shapes
from redline.builder import build
from redline.cli import arrays, comparison, console, extras, options, witness
from redline.engine.header import IO

Arrays = Mapping[str, np.ndarray]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The piece; without it, beside the model.")]


def command(
    model: options.Model,
    output: Output = None,
    shapes: options.Shapes = None,
    inputs: options.Inputs = None,
    precision: Annotated[str, typer.Option(help="Precision of the engine: fp32, bf16 or fp16.")] = "fp32",
    seed: options.Seed = 0,
) -> None:
    """Cuts a model that fails to the smallest piece that still does.

    Writes the piece, and its inputs beside it as an .npz. Exits with 1 when nothing fails.
    """
    path = output or model.with_suffix(".reduced.onnx")
    reducer = Reducer(
        model, fixed(parse_shapes(shapes or []), "reduce"), arrays.read_inputs(inputs, _names(model)), precision, seed
    )
    found = reducer.smallest()
    if found is None:
        console.out().print(f"{model}: nothing fails")
        raise typer.Exit(1)
    reducer.write(found, path)
    console.out().print(
        f"{path}: {found.size} nodes from {', '.join(found.inputs) or 'constants'} to {found.output}: {found.reason}"
    )


def _names(model: Path) -> list[str]:
    return list(witness.onnx_runtime(model).inputs)


@dataclass(frozen=True)
class Piece:
    """The nodes between ``inputs`` and ``output``, and why they fail."""

    inputs: tuple[str, ...]
    output: str
    size: int
    reason: str


class Reducer:
    """A model with all its values on one set of inputs."""

    def __init__(self, model: Path, shapes: Mapping[str, tuple[int, ...]], given: Arrays, precision: str, seed: int) -> None:
        self.model, self.precision = model, precision
        self.expose = extras.load("redline.frontend.expose", "reduce")
        self.reads: dict[str, tuple[str, ...]] = self.expose.reads(model)
        self.feed = self._fill(shapes, given, seed)
        self.values = {**self.feed, **self._run()}

    def smallest(self) -> Piece | None:
        """The piece, or None where the whole model passes."""
        order = [name for name in self.reads if name in self.values]
        last = self._first_failing(order)
        return None if last is None else self._grown(last)

    def write(self, piece: Piece, path: Path) -> None:
        self.expose.piece(self.model, piece.inputs, [piece.output], path)
        np.savez(path.with_suffix(".npz"), **{name: self.values[name] for name in piece.inputs})  # type: ignore[arg-type]

    def _first_failing(self, order: list[str]) -> str | None:
        """The earliest value such that the model cut off behind it fails."""
        low, high = 0, len(order) - 1
        if high < 0 or not self._reason(tuple(self.feed), order[high]):
            return None
        while low < high:
            middle = (low + high) // 2
            if self._reason(tuple(self.feed), order[middle]):
                high = middle
            else:
                low = middle + 1
        return order[low]

    def _grown(self, output: str) -> Piece:
        """From the node that gives ``output`` back towards the inputs, until what is taken fails."""
        taken, frontier = {output}, set(self.reads[output])
        while True:
            inputs = tuple(sorted(frontier))
            reason = self._reason(inputs, output)
            inner = [name for name in inputs if name in self.reads]
            if reason or not inner:
                return Piece(inputs, output, len(taken), reason or self._reason(tuple(self.feed), output))
            taken |= set(inner)
            frontier = (frontier - set(inner)) | {source for name in inner for source in self.reads[name]} - taken

    def _reason(self, inputs: tuple[str, ...], output: str) -> str:
        """Why the piece from ``inputs`` to ``output`` fails; empty where it does not."""
        needed = self._needed(inputs, output)
        with tempfile.TemporaryDirectory(prefix="redline-") as folder:
            file = Path(folder) / "piece.onnx"
            try:
                self.expose.piece(self.model, needed, [output], file)
                feed = {name: self.values[name] for name in needed}
                engine = build(file, shapes={n: a.shape for n, a in feed.items()}, precision=self.precision, opt_level=0)
                found = engine.run({io.name: feed[io.name] for io in engine.header.inputs})
            except RedlineError as error:
                return str(error)
        verdict = comparison.compare_arrays(output, self.values[output], found[output])
        return verdict.difference

    def _needed(self, inputs: tuple[str, ...], output: str) -> tuple[str, ...]:
        """Those of ``inputs`` that ``output`` depends on."""
        found, stack, seen = [], [output], set()
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in inputs:
                found.append(name)
            else:
                stack += self.reads.get(name, ())
        return tuple(found)

    def _fill(self, shapes: Mapping[str, tuple[int, ...]], given: Arrays, seed: int) -> Arrays:
        graph = extras.load("redline.frontend", "reduce").load(self.model, shapes=shapes)
        ports = [IO(node.name, node.types[0].dtype.name, node.types[0].shape) for node in graph.inputs]
        return arrays.fill(ports, given, seed)

    def _run(self) -> Arrays:
        names = list(self.reads)
        runtime = extras.load("onnxruntime", "reduce")
        settings = runtime.SessionOptions()
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.log_severity_level = 3
        whole = self.expose.with_outputs(self.model, names)
        session = runtime.InferenceSession(whole, settings, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, dict(self.feed)), strict=True))
