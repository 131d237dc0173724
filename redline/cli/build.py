"""The verb ``build``: ``redline.build`` with a progress bar, and a summary of the engine that it made."""

import re
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from redline.base.errors import RedlineError
from redline.base.shapes import parse_buckets, parse_profiles
from redline.builder import build, build_cuda, check_ragged
from redline.cli import console, options, quantization
from redline.cli.engine_facts import by_family
from redline.engine import Header, read_header, without_steps

Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The engine to write; without it, beside the model.")
]
Precision = Annotated[
    str, typer.Option(help="fp32; bf16x3, bf16x6: split factors; bf16, fp16: 16 bits stored; int8, best, w8, w4; fp8 on GPUs.")
]
OptLevel = Annotated[int, typer.Option(min=0, max=5, help="How many tactics are timed for a kernel: 0 none, 5 all.")]
TimingCache = Annotated[Path | None, typer.Option(metavar="FILE", help="Timings of tactics, read and added to.")]
MemoryLimit = Annotated[str | None, typer.Option(metavar="SIZE", help="The most that weights and arena may take, as in 2GiB.")]
Target = Annotated[
    str, typer.Option(help="cpu: this machine; cpu:avx512, cpu:avx2, cpu:generic: any such processor; cuda, cuda:sm_90.")
]
Ragged = Annotated[bool, typer.Option("--ragged", help="Sequences one behind the other, without padding: docs/shapes.md.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--shapes", metavar="NAME:MIN,OPT,MAX", show_default=False,
        help="The shape of an input, or its range; several inputs with ; between. Given again: another profile.",
    ),
]  # fmt: skip
Buckets = Annotated[
    list[str] | None,
    typer.Option(
        "--bucket", metavar="BUCKET=NAME:1x16", show_default=False,
        help="Shapes with a plan of their own, beside the profiles; 'opt': the profiles' tuned shapes. May be repeated.",
    ),
]  # fmt: skip
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def command(
    model: options.Model,
    output: Output = None,
    shapes: Profiles = None,
    bucket: Buckets = None,
    freeze: options.Freeze = None,
    precision: Precision = "fp32",
    opt_level: OptLevel = 3,
    timing_cache: TimingCache = None,
    memory_limit: MemoryLimit = None,
    target: Target = "cpu",
    threads: options.Threads = 0,
    calibrate: quantization.Calibrate = None,
    calibration_cache: quantization.Cache = None,
    calibrator: quantization.Calibrator = "mse",
    max_drop: quantization.MaxDrop = None,
    min_cosine: quantization.MinCosine = None,
    ragged: Ragged = False,
) -> None:
    """Builds an engine from an ONNX model.

    For every kernel several tactics are compiled and timed on this processor, and the fastest is kept. The file
    appears when it is complete: a build that is cut off leaves nothing behind.
    """
    path = output or model.with_suffix(".engine")
    started = time.perf_counter()
    if target.split(":")[0] == "cuda":  # the GPU need not be here
        check_ragged(ragged)
        with Stages() as stages:
            build_cuda(
                model, output=path, shapes=parse_profiles(shapes or []), buckets=parse_buckets(bucket or []),
                freeze=options.parse_frozen(freeze),
                precision=precision, opt_level=opt_level, timing_cache=timing_cache,
                memory_limit=parse_size(memory_limit) if memory_limit else None, target=target,
                **quantization.wishes(calibrate, calibration_cache, calibrator, max_drop, min_cosine), progress=stages,
            )  # fmt: skip
        header = read_header(path)
        print_summary(path, header, time.perf_counter() - started)
        quantization.print_gate(header.report)
        return
    with Stages() as stages:
        engine = build(
            model,
            output=path,
            shapes=parse_profiles(shapes or []),
            buckets=parse_buckets(bucket or []),
            freeze=options.parse_frozen(freeze),
            precision=precision,
            opt_level=opt_level,
            timing_cache=timing_cache,
            memory_limit=parse_size(memory_limit) if memory_limit else None,
            target=target,
            num_threads=threads,
            **quantization.wishes(calibrate, calibration_cache, calibrator, max_drop, min_cosine),
            progress=stages,
            ragged=ragged,
        )
    print_summary(path, engine.header, time.perf_counter() - started)
    quantization.print_gate(engine.header.report)


def parse_size(text: str) -> int:
    """``2GiB`` as bytes; raises RedlineError for anything but a number and one of the units."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?i?B?)", text)
    if match is None or match[2] not in UNITS:
        raise RedlineError("--memory-limit", f"{text!r} is no size", f"expected a number and one of {', '.join(UNITS)[2:]}")
    return int(float(match[1]) * UNITS[match[2]])


class Stages:
    """A bar for every stage of a build, on a terminal only; called by the build with (stage, done, total)."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        stderr = console.err()
        self._progress = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Stages":
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._complete()
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._complete()
            self._tasks[stage] = self._progress.add_task(stage)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def _complete(self) -> None:
        """What has given way to the next stage is done."""
        for task in self._progress.tasks:
            self._progress.update(task.id, completed=task.total)


def print_summary(path: Path, header: Header, seconds: float) -> None:
    out = console.out()
    totals = by_family(header.kernels)
    whole = sum(total.seconds for total in totals) or 1.0
    out.print(f"{path}: {console.num_bytes(path.stat().st_size)}, built in {console.seconds(seconds)}")
    weights = sum(blob.num_bytes for blob in header.blobs if blob.name == "weights")
    out.print(
        f"{header.report.get('nodes', '?')} nodes -> {len(header.kernels)} kernels; weights {console.num_bytes(weights)},"
        f" arena {console.num_bytes(header.arena_bytes)}, for {header.stamp.target} and {header.num_threads} threads"
    )
    if header.variants:
        out.print(f"plans: {', '.join(plan.name for plan in without_steps(header))}; what follows is of the first")
    error = header.report.get("error")
    if error:
        out.print(
            f"worst error against fp32 on random inputs: {error['relative_l2']:.1e} relative L2, output {error['output']!r}"
        )
    rows = [
        (
            t.family,
            t.kernels,
            console.seconds(t.seconds),
            f"{t.seconds / whole:.0%}",
            *console.rates(t.flops, t.num_bytes, t.seconds),
        )
        for t in totals
    ]
    console.table("", ("family", "kernels", "time", "share", "GFLOP/s", "GB/s"), rows)
    untimed = sum(kernel.seconds is None for kernel in header.kernels)
    if untimed:
        out.print(f"not timed, and not counted above: {untimed} (one tactic only, or opt-level 0)")
