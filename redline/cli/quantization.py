"""Options of calibration and of the gate, shared by the verbs build and calibrate, and the table that the gate prints."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from redline.base.errors import RedlineError
from redline.cli import console

Calibrate = Annotated[
    Path | None, typer.Option(metavar="DATA", help="Samples for int8: an .npz of arrays by input name, or a folder of .npy.")
]
Cache = Annotated[
    Path | None, typer.Option("--calibration-cache", metavar="FILE", help="Ranges: read where the file exists, else written.")
]
Calibrator = Annotated[str, typer.Option(help="How ranges are chosen: minmax, percentile, mse or entropy.")]
MaxDrop = Annotated[
    str | None, typer.Option(metavar="0.5%", help="For --precision best: the most that accuracy (or agreement) may drop.")
]
MinCosine = Annotated[float | None, typer.Option(help="For --precision best: the least mean cosine of the outputs.")]


def parse_drop(text: str) -> float:
    """``0.5%`` or ``0.005`` as 0.005."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value < 1:
        raise RedlineError("--max-drop", f"{text!r} is no drop", "expected a percentage such as 0.5%")
    return value


def wishes(
    calibrate: Path | None, cache: Path | None, calibrator: str, max_drop: str | None, min_cosine: float | None
) -> dict[str, Any]:
    """The arguments of ``redline.build`` for the options that were given."""
    given = {
        "calibrate": calibrate, "calibration_cache": cache, "min_cosine": min_cosine,
        "max_drop": None if max_drop is None else parse_drop(max_drop),
        "calibrator": None if calibrator == "mse" else calibrator,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def print_gate(report: Mapping[str, Any]) -> None:
    """Layer, precision, time gained, error added; nothing for engines that passed no gate."""
    if "layers" not in report:
        return
    times = [key for key in ("fp32_us", "int8_us", "fp8_us") if any(key in row for row in report["layers"])]
    rows = [
        (row["layer"], row["precision"], *(_micro(row[key]) for key in times), f"{row['noise']:.2e}")
        for row in report["layers"]
    ]
    console.table("", ("layer", "precision", *(key.removesuffix("_us") for key in times), "noise"), rows)
    gate = report["gate"]
    console.out().print(f"{gate['limits']}: drop {gate['drop']:.3%}, mean cosine {gate['cosine']:.5f}")
    if "note" in gate:
        console.out().print(gate["note"])


def _micro(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} us"
