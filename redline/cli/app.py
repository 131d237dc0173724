"""The ``redline`` command: finds a verb's file when the verb is asked for, and turns user errors into one sentence.

A verb is imported only when it is used, so that ``run`` and ``bench`` work on a serving machine that has neither onnx
nor a compiler, and start fast on one that has.
"""

import errno
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from redline.base.errors import RedlineError
from redline.cli import console, extras

VERBS = (
    "build",
    "calibrate",
    "run",
    "bench",
    "inspect",
    "check",
    "compare",
    "reduce",
    "serve",
    "bench-server",
    "doctor",
    "cache",
)


def load_verb(name: str) -> typer.Typer:
    """The Typer application of one verb; one that raises MissingPackage where an extra is not installed."""
    verb = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    try:
        verb.command(name)(extras.load(f"redline.cli.{name.replace('-', '_')}", name).command)
    except extras.MissingPackage as missing:
        anything = {"allow_extra_args": True, "ignore_unknown_options": True}
        verb.command(name, context_settings=anything)(_unavailable(missing))
    return verb


def _unavailable(missing: extras.MissingPackage) -> Callable[[], None]:
    def command() -> None:
        raise missing

    command.__doc__ = f"Not available: {escape(missing.remedy)}"
    return command


class Verbs(TyperGroup):
    """The group whose commands are the files of this package."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        return typer.main.get_command(load_verb(cmd_name))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RedlineError as error:
            console.error(str(error))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.filename is None or error.errno == errno.EPIPE:
                raise
            console.error(f"[{error.filename}] {error.strerror}")
            raise typer.Exit(RedlineError.exit_code) from error


app = typer.Typer(
    cls=Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
)  # fmt: skip


def _print_version(asked: bool) -> None:
    if asked:
        console.out().print(f"redline {metadata.version('redline')}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version)] = False,
) -> None:
    """Compiles ONNX models into engines that run at the processor's limit, and runs them."""


def main() -> None:
    app()
