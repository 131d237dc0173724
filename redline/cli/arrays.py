"""The arrays that verbs feed to engines and models: read from files, or random where none is given."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from redline.base import dtypes
from redline.base.errors import InputError
from redline.base.files import appearing
from redline.base.shapes import check_names, fixed, parse_shapes
from redline.cli.options import load_array, number_of
from redline.engine.header import IO, Header
from redline.runtime.samples import inputs_at, random_array

WHERE = "--input"


def read_inputs(items: Sequence[str] | None, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of ``NAME=FILE.npy`` items by name; a bare ``FILE.npy`` is for the first input not yet given.

    ``NAME=NUMBER`` is for an input without dimensions.

    Raises InputError for an unknown name, an input given twice, a file too many, and files that hold no array.
    """
    arrays: dict[str, np.ndarray] = {}
    bare = []
    for item in items or ():
        name, equals, path = item.partition("=")
        if not equals:
            bare.append(item)
            continue
        check_names([name], names, WHERE)
        if name in arrays:
            raise InputError(WHERE, f"input {name!r} is given twice")
        arrays[name] = _scalar(number) if (number := number_of(path)) is not None else load_array(Path(path), WHERE)
    free = [name for name in names if name not in arrays]
    if len(bare) > len(free):
        raise InputError(
            WHERE, f"{len(bare)} files without a name", f"{len(free)} inputs are left: {', '.join(free) or 'none'}"
        )
    return arrays | {name: load_array(Path(path), WHERE) for name, path in zip(free, bare, strict=False)}


def _scalar(number: int | float) -> np.ndarray:
    """What an input without dimensions takes: floats of 32 bits, integers of 64, or a boolean."""
    return np.array(number, np.float32 if isinstance(number, float) else None)


def inputs_of(header: Header, shapes: Sequence[str] | None) -> tuple[IO, ...]:
    """The inputs of an engine at the shapes of ``--shapes`` options; see ``inputs_at``."""
    return inputs_at(header, fixed(parse_shapes(shapes or []), "a call"))


def fill(inputs: Sequence[IO], given: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """An array for every input, random where none is given; the same seed gives the same arrays."""
    rng = np.random.default_rng(seed)
    return {io.name: _typed(given[io.name], io) if io.name in given else random_array(io, rng) for io in inputs}


def _typed(array: np.ndarray, io: IO) -> np.ndarray:
    """``array``, with the type that a .npy file cannot name (bfloat16 comes back as two nameless bytes)."""
    numpy = dtypes.from_name(io.dtype).numpy
    return array.view(numpy) if array.dtype.kind == "V" and array.dtype.itemsize == numpy.itemsize else array


def save(folder: Path, arrays: Mapping[str, np.ndarray]) -> list[Path]:
    """Writes each array as ``folder/NAME.npy``, whole or not at all; a slash in a name becomes an underscore."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_save_one(folder / f"{name.replace('/', '_')}.npy", array) for name, array in arrays.items()]


def _save_one(path: Path, array: np.ndarray) -> Path:
    with appearing(path) as file:
        np.save(file, array, allow_pickle=False)
    return path
