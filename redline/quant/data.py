"""Calibration data: an .npz, a folder of .npy files or any iterable of input dicts, checked against the model's inputs.

An array of the input's own shape is one sample; one with more along the first axis, or with an axis in front, is several.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.base.errors import InputError
from redline.base.shapes import StaticShape, check_names, text

WHERE = "--calibrate"
FEW_SAMPLES = 16
LABELS = "labels"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Port:
    """An input as calibration data must fit it."""

    name: str
    dtype: np.dtype
    shape: StaticShape


@dataclass(frozen=True)
class Samples:
    """Checked inputs, and what looks unlike real data, in sentences."""

    feeds: tuple[Arrays, ...]
    warnings: tuple[str, ...]
    labels: np.ndarray | None = None  # the array ``labels`` of an .npz whose model has no such input


def read_samples(data: Any, ports: Sequence[Port], limit: int = 500) -> Samples:
    """At most ``limit`` samples of ``data``. Raises InputError for wrong names, shapes, types, values, and for no samples."""
    data, labels = _with_labels(data, ports)
    feeds = tuple(itertools.islice(_feeds(data, ports), limit))
    if not feeds:
        raise InputError(WHERE, "the calibration data are empty", "100 to 500 samples are enough")
    return Samples(feeds, tuple(_suspicions(feeds, ports)), labels)


def _with_labels(data: Any, ports: Sequence[Port]) -> tuple[Any, np.ndarray | None]:
    """The data, and the labels that an .npz or a dict of arrays holds beside them."""
    if isinstance(data, str | os.PathLike) and Path(data).is_file():
        data = _archive(Path(data))
    if isinstance(data, Mapping) and LABELS in data and all(port.name != LABELS for port in ports):
        return {name: array for name, array in data.items() if name != LABELS}, np.asarray(data[LABELS])
    return data, None


def _feeds(data: Any, ports: Sequence[Port]) -> Iterator[Arrays]:
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if not path.exists():
            raise InputError(WHERE, f"there is no file or folder {str(path)!r}")
        stacks = _folder(path, ports) if path.is_dir() else _archive(path)
        yield from _unstacked(stacks, ports)
    elif isinstance(data, Mapping):
        yield from _unstacked(dict(data), ports)
    elif isinstance(data, Iterable):
        for feed in data:
            if not isinstance(feed, Mapping):
                raise InputError(WHERE, f"a sample is a {type(feed).__name__}", "expected a dict of arrays by input name")
            yield from _unstacked(dict(feed), ports)
    else:
        raise InputError(WHERE, f"a {type(data).__name__}", "expected an .npz, a folder of .npy, or an iterable of dicts")


def _archive(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, KeyError) as error:
        raise InputError(
            WHERE, f"{str(path)!r} is not an .npz of arrays", "allowed: numpy.savez, or a folder of .npy"
        ) from error


def _folder(path: Path, ports: Sequence[Port]) -> Arrays:
    """NAME.npy for each input; or, for a model of one input, files of any names, each with some samples."""
    files = sorted(path.glob("*.npy"))
    if not files:
        raise InputError(WHERE, f"the folder {str(path)!r} holds no .npy file")
    named = {file.stem: file for file in files}
    if len(ports) == 1 and ports[0].name not in named:
        return {ports[0].name: np.concatenate([_stacked(_array(file), ports[0]) for file in files])}
    return {name: _array(file) for name, file in named.items()}


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(WHERE, f"{str(path)!r} is not a .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise InputError(WHERE, f"{str(path)!r} holds several arrays", "allowed: one array a file")
    return array


def _stacked(array: np.ndarray, port: Port) -> np.ndarray:
    """[samples, *shape]; raises InputError where the array holds no whole number of samples of the port's type."""
    where = f"{WHERE}, input {port.name!r}"
    array = np.asarray(array)
    if array.dtype != port.dtype:
        raise InputError(
            where, f"data of type {array.dtype}", f"the model takes {port.dtype}", f"convert it with .astype('{port.dtype}')"
        )
    shape = port.shape
    if array.shape[1:] == shape:
        stack = array
    elif shape and array.ndim == len(shape) and array.shape[1:] == shape[1:] and array.shape[0] % shape[0] == 0:
        stack = array.reshape(-1, *shape)
    elif array.shape == shape:
        stack = array[None]
    else:
        raise InputError(
            where, f"data of shape {text(array.shape)}", f"a sample is {text(shape)}, several are stacked before it"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(where, "the data hold NaN or infinity", "calibration needs numbers", "leave these samples out")
    return stack


def _unstacked(stacks: Mapping[str, np.ndarray], ports: Sequence[Port]) -> Iterator[Arrays]:
    check_names(stacks, [port.name for port in ports], WHERE)
    missing = [port.name for port in ports if port.name not in stacks]
    if missing:
        raise InputError(WHERE, f"no data for the inputs {', '.join(missing)}", "every input needs an array")
    arrays = {port.name: _stacked(stacks[port.name], port) for port in ports}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise InputError(WHERE, f"different numbers of samples: {counts}", "every input has as many")
    for i in range(next(iter(counts.values()), 0)):
        yield {name: np.ascontiguousarray(array[i]) for name, array in arrays.items()}


def _suspicions(feeds: Sequence[Arrays], ports: Sequence[Port]) -> Iterator[str]:
    if len(feeds) < FEW_SAMPLES:
        yield f"only {len(feeds)} calibration samples: 100 to 500 give ranges that can be trusted"
    for port in ports:
        arrays = [feed[port.name] for feed in feeds]
        if port.dtype.kind != "f" or not arrays[0].size:
            continue
        if not any(array.any() for array in arrays):
            yield f"the calibration data of {port.name!r} are all zero"
        elif all(np.ptp(array) == 0 for array in arrays):
            yield f"every calibration sample of {port.name!r} is constant"
        elif len(arrays) > 1 and all(np.array_equal(array, arrays[0]) for array in arrays[1:]):
            yield f"all calibration samples of {port.name!r} are the same"
