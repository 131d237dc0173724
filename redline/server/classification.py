"""The classification extension: the best classes of an output instead of its values, as ``value:index[:label]``."""

from collections.abc import Sequence

import numpy as np

from redline.server.errors import invalid
from redline.server.tensors import object_array
from redline.server.types import BYTES


def classify(name: str, array: np.ndarray, datatype: str, classes: int, batched: bool, labels: Sequence[str]) -> np.ndarray:
    """The ``classes`` greatest of each row, the greatest first; shape [rows, classes], without rows for a model without."""
    if datatype == BYTES:
        raise invalid(f"output {name!r}", "its BYTES elements have no order", "", "ask for it without classification")
    rows = array.reshape(array.shape[0], -1) if batched else array.reshape(1, -1)
    count = min(classes, rows.shape[1])
    wide = rows.astype(np.float64) if array.dtype.kind in "fV" else rows
    best = np.argsort(-wide if wide.dtype.kind == "f" else wide, axis=1, kind="stable")
    best = best[:, :count] if wide.dtype.kind == "f" else best[:, ::-1][:, :count]
    items = [_text(row[index], int(index), labels) for row, order in zip(wide, best, strict=True) for index in order]
    return object_array(items, (rows.shape[0], count) if batched else (count,))


def _text(value: float, index: int, labels: Sequence[str]) -> bytes:
    number = f"{value:f}" if isinstance(value, float | np.floating) else str(value)
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{number}:{index}{label}".encode()
