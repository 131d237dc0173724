"""The verb ``run``: loads an engine, runs it once and tells what came out."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from redline.cli import arrays, console, options
from redline.runtime import load
from redline.runtime.samples import RANDOM_RULE

Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE.npy", help="Arrays of the inputs that --input does not name, in order.", show_default=False),
]
Folder = Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Save every output as DIR/NAME.npy.")]


def command(
    engine: options.EngineFile,
    files: Files = None,
    inputs: options.Inputs = None,
    output: Folder = None,
    shapes: options.CallShapes = None,
    seed: options.Seed = 0,
) -> None:
    """Runs an engine once and prints the shape, type, least, mean and greatest value of every output.

    Inputs that are not given are random.
    """
    loaded = load(engine)
    given = arrays.read_inputs([*(inputs or []), *(files or [])], [io.name for io in loaded.header.inputs])
    absent = [io.name for io in loaded.header.inputs if io.name not in given]
    if absent:
        console.note(f"random (seed {seed}): {', '.join(absent)}; {RANDOM_RULE}")
    answers = loaded.run(arrays.fill(arrays.inputs_of(loaded.header, shapes), given, seed))
    headings = ("output", "dtype", "shape", "min", "mean", "max")
    console.table("", headings, [_row(name, array) for name, array in answers.items()], numbers_from=3)
    if output is not None:
        for path in arrays.save(output, answers):
            console.out().print(f"wrote {path}")


def _row(name: str, array: np.ndarray) -> tuple[str, ...]:
    shape = "x".join(map(str, array.shape)) or "scalar"
    if array.size == 0:
        return name, str(array.dtype), shape, "-", "-", "-"
    wide = array.astype(np.float64)
    return name, str(array.dtype), shape, *(f"{value:.6g}" for value in (wide.min(), wide.mean(), wide.max()))
