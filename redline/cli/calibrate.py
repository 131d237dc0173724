"""The verb ``calibrate``: the ranges that ``build --precision int8 --calibration-cache`` reads, without a build."""

from pathlib import Path
from typing import Annotated

import typer

from redline.base.shapes import fixed, parse_shapes
from redline.builder.quantization import calibrate
from redline.cli import console, options
from redline.cli.build import Stages
from redline.cli.quantization import Calibrator

Data = Annotated[
    Path, typer.Option("--data", "-d", metavar="DATA", help="An .npz of arrays by input name, or a folder of .npy.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The cache to write; without it, beside the model.")
]


def command(
    model: options.Model,
    data: Data,
    output: Output = None,
    shapes: options.Shapes = None,
    freeze: options.Freeze = None,
    calibrator: Calibrator = "mse",
    threads: options.Threads = 0,
) -> None:
    """Measures the ranges of a model's tensors on real inputs and writes them to a file that can be read and edited.

    100 to 500 samples are enough. The file serves the model it was made from, and is refused for any other.
    """
    path = output or model.with_suffix(".calibration.json")
    with Stages() as stages:
        cache = calibrate(
            model, data, path,
            shapes=fixed(parse_shapes(shapes or []), "calibrate"), freeze=options.parse_frozen(freeze),
            calibrator=calibrator, num_threads=threads, progress=stages,
        )  # fmt: skip
    console.out().print(f"{path}: ranges of {len(cache.tensors)} tensors from {cache.samples} samples ({cache.calibrator})")
