"""The verb ``bench``: how fast an engine is, alone, kernel by kernel, or in turns with other runtimes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from redline.base import cpu
from redline.base.errors import RedlineError
from redline.cli import arrays, console, html_report, options
from redline.cli.latency import Latency, measure
from redline.cli.peers import open_peer
from redline.cli.timing import Stats, alternate
from redline.runtime import Engine, load

MODEL_HELP = "The ONNX model that the engine was built from; needed by --vs."
Model = Annotated[Path | None, typer.Argument(metavar="MODEL.onnx", help=MODEL_HELP, show_default=False)]
Seconds = Annotated[float, typer.Option(min=0, help="How long to measure; with --vs, for each runtime.")]
Warmup = Annotated[float, typer.Option(min=0, help="Seconds of calls that are not counted.")]
Peers = Annotated[str | None, typer.Option("--vs", metavar="NAMES", help="Runtimes to take turns with: onnxruntime,openvino.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with all of it, and pictures.")]
Profile = Annotated[bool, typer.Option("--profile", help="Time every kernel on its own.")]
BLOCK_S = 0.5
PROFILE_REPEATS = 20
Answer = dict[str, Any]


def command(
    engine: options.EngineFile,
    model: Model = None,
    seconds: Seconds = 3.0,
    warmup: Warmup = 0.5,
    threads: options.Threads = 0,
    vs: Peers = None,
    profile: Profile = False,
    html: Html = None,
    inputs: options.Inputs = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measures an engine: throughput, and the spread of its latency.

    With --vs the engine and other runtimes take turns in blocks of half a second with pauses between them, on the same
    inputs and threads. With --profile every kernel's time, GFLOP/s, GB/s and share follow. With --html a page is written that
    shows latency, steps, roofline and memory plan.
    """
    loaded = load(engine, threads)
    given = arrays.read_inputs(inputs, [io.name for io in loaded.header.inputs])
    feed = arrays.fill(loaded.header.inputs, given, seed)
    contestants = _peers(vs, model, loaded, feed)
    answer: Answer = {"engine": str(engine), "hardware": hardware(loaded.num_threads)}
    run = _caller(loaded, feed)
    if contestants:
        blocks = max(1, round(seconds / BLOCK_S))
        stats = alternate({f"Redline {engine.name}": run, **contestants}, BLOCK_S, blocks=blocks)
        answer["contest"] = {name: asdict(found) for name, found in stats.items()}
    else:
        latency = measure(run, seconds, warmup)
        answer["latency"] = asdict(latency)
    if profile:
        answer["profile"] = profile_kernels(loaded, feed)
    if html is not None:
        html_report.write(html, loaded, feed, answer)
    if json:
        console.print_json(answer)
        return
    console.out().print(answer["hardware"])
    _print_contest(stats) if contestants else _print_latency(latency, warmup)
    if profile:
        _print_profile(answer["profile"])


def hardware(num_threads: int) -> str:
    """The line that every measurement carries."""
    return f"{cpu.model_name()}, {cpu.allowed_cores()} cores allowed, {num_threads} threads used"


def _caller(engine: Engine, feed: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """A call that allocates nothing: the outputs go into the same arrays every time."""
    out = engine.run(feed)
    return lambda: engine.run(feed, out)


def _peers(
    names: str | None, model: Path | None, engine: Engine, feed: Mapping[str, np.ndarray]
) -> dict[str, Callable[[], object]]:
    """A call of every runtime in ``names``, by its title. Raises RedlineError when there is no model to give them."""
    if not names:
        return {}
    if model is None:
        raise RedlineError(
            "--vs", "no model is given", "", "name it after the engine: redline bench ENGINE MODEL.onnx --vs ..."
        )
    shapes = {io.name: io.shape for io in engine.header.inputs}
    peers = [open_peer(name.strip(), model, shapes, engine.num_threads) for name in names.split(",")]
    return {peer.title: (lambda run=peer.run: run(feed)) for peer in peers}  # type: ignore[misc]


def profile_kernels(engine: Engine, feed: Mapping[str, np.ndarray]) -> Answer:
    """The median time of every kernel, the slowest first, with its rates and its share of their sum.

    ``coverage`` is the part of the calls' time that the kernels' times add up to. Well below 1 where kernels take
    milliseconds, it says that the times of the kernels are not to be trusted.
    """
    started = time.perf_counter()
    samples = engine.profile(feed, PROFILE_REPEATS)
    wall = time.perf_counter() - started
    seconds = np.median(samples, axis=0)
    whole = float(seconds.sum()) or 1.0
    rows: list[Answer] = [
        {
            "step": step, "family": kernel.family, "seconds": float(s), "share": float(s) / whole,
            "flops": kernel.flops, "num_bytes": kernel.num_bytes, "nodes": list(kernel.nodes),
        }
        for step, (kernel, s) in enumerate(zip(engine.header.kernels, seconds, strict=True))
    ]  # fmt: skip
    slowest_first = sorted(rows, key=lambda row: -row["seconds"])
    return {"coverage": float(samples.sum()) / wall, "kernels": slowest_first}


def _print_latency(latency: Latency, warmup_s: float) -> None:
    out = console.out()
    out.print(f"warm-up    {latency.warmup_calls} calls in {warmup_s:g} s, not counted; then {latency.calls} calls")
    out.print(f"throughput {latency.throughput:.1f} inferences/s")
    out.print("latency    " + ", ".join(f"{name} {console.seconds(value)}" for name, value in latency.times().items()))


def _print_contest(stats: Mapping[str, Stats]) -> None:
    own = next(iter(stats.values()))
    rows = [
        (name, found.calls, *(f"{1e3 * s:.3f}" for s in (found.min_s, found.median_s, found.mean_s, found.p90_s, found.p99_s)),
         f"{found.median_s / own.median_s:.2f}")
        for name, found in stats.items()
    ]  # fmt: skip
    headings = ("in turns, ms", "calls", "min", "median", "mean", "p90", "p99", "x Redline")
    console.table("", headings, rows)


def _print_profile(profile: Answer) -> None:
    rows = [
        (k["step"], k["family"], console.seconds(k["seconds"]), f"{k['share']:.1%}",
         *console.rates(k["flops"], k["num_bytes"], k["seconds"]), ", ".join(k["nodes"]))
        for k in profile["kernels"]
    ]  # fmt: skip
    title = f"kernels, each waiting for the one before; they cover {profile['coverage']:.0%} of the calls' time"
    console.table(title, ("step", "family", "time", "share", "GFLOP/s", "GB/s", "nodes"), rows)
