"""Arguments and options that several verbs share, and the reading of their values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from redline.base.errors import InputError, RedlineError

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX model.", show_default=False)]
EngineFile = Annotated[Path, typer.Argument(metavar="ENGINE", help="The engine file.", show_default=False)]
Shapes = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:1x3x224x224", help="Fixes the shape of an input; may be repeated.", show_default=False),
]
CallShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shapes", metavar="NAME:1x16", help="The shape of an input, of an engine that takes several.", show_default=False
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE.npy|NUMBER", help="Makes an input a constant; may be repeated.", show_default=False),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="[NAME=]FILE.npy", help="The array of an input; may be repeated.", show_default=False
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random arrays for inputs that are not given.", min=0)]
Threads = Annotated[int, typer.Option(help="Threads to use; 0: one for every core that the process may use.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_array(path: Path, where: str) -> np.ndarray:
    """The array of a .npy file. Raises InputError when there is none; never unpickles."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(where, f"there is no file {str(path)!r}") from error
    except (ValueError, EOFError) as error:
        raise InputError(where, f"{str(path)!r} is not a .npy file", "allowed: an array saved with numpy.save") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(where, f"{str(path)!r} holds several arrays", "allowed: one array, saved with numpy.save")
    return array


def parse_frozen(items: Sequence[str] | None) -> dict[str, np.ndarray | int | float]:
    """``["mask=m.npy", "rate=16000"]`` as an array and a number by name; raises RedlineError for anything else."""
    where = "--freeze"
    found: dict[str, np.ndarray | int | float] = {}
    for item in items or ():
        name, equals, text = item.partition("=")
        if not (name and equals and text):
            raise RedlineError(where, f"{item!r} names no input and value", "expected NAME=FILE.npy or NAME=NUMBER")
        if name in found:
            raise RedlineError(where, f"input {name!r} is given twice")
        number = number_of(text)
        found[name] = load_array(Path(text), where) if number is None else number
    return found


def number_of(text: str) -> int | float | None:
    """The number that ``text`` spells; None where it spells something else. There is a file of that name only by ``./``."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower())
