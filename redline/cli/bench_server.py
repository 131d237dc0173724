"""The verb ``bench-server``: drives load at a running server and reports what it stood."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from redline.base import cpu
from redline.base.errors import RedlineError
from redline.base.shapes import fixed, parse_shapes
from redline.cli import console, options
from redline.server import load_client
from redline.server.load_client import Run, Target
from redline.server.loop import run_loop

Url = Annotated[str, typer.Argument(metavar="URL", help="http://HOST:PORT of the server.", show_default=False)]
Model = Annotated[str, typer.Option("--model", "-m", help="The model to ask.")]
Concurrency = Annotated[str, typer.Option(metavar="N,N", help="Closed loop: so many callers at a time.")]
Rates = Annotated[str, typer.Option("--rate", metavar="R,R", help="Open loop: requests a second, at random times.")]
P99 = Annotated[float, typer.Option("--find-limit-ms", min=0, help="Find the largest rate whose p99 stays under so many ms.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="Seconds of each run.")]
Rows = Annotated[int, typer.Option(min=1, help="Batch extent of each request.")]


def command(
    url: Url,
    model: Model,
    concurrency: Concurrency = "1,16,64",
    rate: Rates = "",
    find_limit_ms: P99 = 0.0,
    seconds: Seconds = 3.0,
    rows: Rows = 1,
    shapes: options.Shapes = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measures a server that speaks the KServe v2 protocol, with binary tensors over HTTP.

    Reports answers a second, latencies (in an open loop from the moment at which a request was due), errors, and the mean
    size of the batches that the server made of the requests.
    """

    async def measure() -> list[Run]:
        target = await load_client.make_target(url, model, fixed(parse_shapes(shapes or []), "a load"), rows, seed)
        if find_limit_ms:
            return await load_client.find_limit(target, find_limit_ms / 1e3, seconds)
        if rate:
            return await _each(numbers(rate, "--rate"), lambda r: load_client.open_loop(target, r, seconds, seed))
        return await _each(numbers(concurrency, "--concurrency"), lambda c: _closed(target, c, seconds))

    runs = run_loop(measure())
    if json:
        console.print_json({"url": url, "model": model, "hardware": cpu.model_name(), "runs": [summary(run) for run in runs]})
        return
    console.out().print(f"{model} at {url}; client on {cpu.model_name()}, {cpu.allowed_cores()} cores allowed")
    headings = ("asked", "answers/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "errors", "mean batch")
    console.table("", headings, [_row(run) for run in runs])
    if find_limit_ms:
        good = runs[-1] if runs[-1].percentile_s(99) <= find_limit_ms / 1e3 else None
        console.out().print(
            f"largest rate with p99 under {find_limit_ms:g} ms: {good.asked:.0f} requests/s" if good else "no rate held"
        )


async def _closed(target: Target, concurrency: float, seconds: float) -> Run:
    return await load_client.closed_loop(target, int(concurrency), seconds)


async def _each(values: list[float], run: Callable[[float], Awaitable[Run]]) -> list[Run]:
    return [await run(value) for value in values]


def numbers(text: str, where: str) -> list[float]:
    """``1,16`` as numbers; raises RedlineError for anything else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RedlineError(where, f"{text!r} is no list of numbers", "expected numbers with commas between") from error
    if not values or min(values) <= 0 or max(values) > 1e6:
        raise RedlineError(where, f"{text!r} is out of range", "allowed: more than 0, at most 1000000")
    return values


def summary(run: Run) -> dict[str, Any]:
    """A run as JSON values; latencies in seconds."""
    percentiles = {f"p{p:g}_s": run.percentile_s(p) if run.latencies_s else None for p in (50, 90, 99, 99.9)}
    return {
        "mode": run.mode, "asked": run.asked, "answers_per_s": run.rate, **percentiles, "errors": run.errors,
        "mean_batch": run.mean_batch,
    }  # fmt: skip


def _row(run: Run) -> tuple[str, ...]:
    asked = f"{run.asked:g} {'callers' if run.mode == 'concurrency' else 'requests/s'}"
    times = [f"{run.percentile_s(p) * 1e3:.3f}" for p in (50, 90, 99, 99.9)]
    errors = ", ".join(f"{count} x {what}" for what, count in run.errors.items()) or "0"
    return asked, f"{run.rate:.1f}", *times, errors, f"{run.mean_batch:.2f}"
