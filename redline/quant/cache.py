"""The calibration cache: a JSON file with the range of every tensor, to be read, edited and used again.

It holds the hash of the model it was made from and is refused for any other. Written whole and renamed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.base.errors import BuildError
from redline.base.files import appearing
from redline.quant.statistics import Tensor

FORMAT = 1
MAX_BYTES = 256 << 20
REMEDY = "calibrate again with --calibrate DATA"


@dataclass(frozen=True)
class CalibrationCache:
    """``tensors`` by name. ``model`` is the SHA-256 of the model."""

    model: str
    calibrator: str
    samples: int
    tensors: Mapping[str, Tensor]

    @staticmethod
    def open(path: Path, model: str) -> "CalibrationCache":
        """The file at ``path``; raises BuildError where it is no calibration cache, or one of another model."""
        where = f"calibration cache {path}"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            data = json.loads(path.read_bytes())
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']}, this version reads {FORMAT}")
            tensors = {str(name): _tensor(entry) for name, entry in data["tensors"].items()}
            found = CalibrationCache(str(data["model"]), str(data["calibrator"]), int(data["samples"]), tensors)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BuildError(where, f"it is no calibration cache ({error})", "", REMEDY) from error
        if found.model != model:
            seen = f"it was made from the model {found.model[:12]}..., this one is {model[:12]}..."
            raise BuildError(where, seen, "a cache serves its own model only", REMEDY)
        return found

    def save(self, path: Path) -> None:
        text = json.dumps(
            {
                "format": FORMAT, "model": self.model, "calibrator": self.calibrator, "samples": self.samples,
                "tensors": {name: _entry(tensor) for name, tensor in self.tensors.items()},
            },
            indent=1,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as file:
            file.write(text.encode())


def _entry(tensor: Tensor) -> dict[str, Any]:
    entry: dict[str, Any] = {"low": tensor.low, "high": tensor.high}
    if tensor.wide:
        entry["wide"] = True
    if tensor.peak:
        entry["peak"] = tensor.peak
    for key, array in (("mean", tensor.mean), ("divisor", tensor.divisor)):
        if array is not None:
            entry[key] = [float(f"{value:.6g}") for value in array]
    return entry


def _tensor(entry: Any) -> Tensor:
    low, high = float(entry["low"]), float(entry["high"])
    if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
        raise ValueError(f"a range from {low} to {high}: it must hold 0 and be finite")
    arrays = {}
    for key in ("mean", "divisor"):
        arrays[key] = np.array(entry[key], np.float64) if key in entry else None
    divisor = arrays["divisor"]
    if divisor is not None and not (np.isfinite(divisor).all() and (divisor > 0).all()):
        raise ValueError("a divisor that is not positive")
    peak = float(entry.get("peak", 0.0))
    if not (math.isfinite(peak) and peak >= 0):
        raise ValueError(f"a peak of {peak}: it must be a finite size")
    return Tensor(low, high, arrays["mean"], divisor, bool(entry.get("wide", False)), peak)
