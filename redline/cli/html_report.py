"""What ``bench --html`` writes: the answer of the verb, every step's time and the machine's ceilings, as one page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from redline.base.ceilings import Ceilings
from redline.base.errors import CompilerError
from redline.base.files import appearing
from redline.cli import console, extras
from redline.engine import Header
from redline.runtime import Engine
from redline.viz.report import Contestant, Measured, report

REPEATS = 20
NO_CEILINGS = "The machine's ceilings were not measured: that takes a C compiler."


def write(path: Path, engine: Engine, feed: Mapping[str, np.ndarray], answer: Mapping[str, Any]) -> None:
    """Profiles the engine, measures the machine and writes the page to ``path``."""
    steps = np.median(engine.profile(feed, REPEATS), axis=0)
    ceilings = measure_ceilings(engine.header)
    page = report(
        Measured(
            f"Redline: {Path(engine.path).name}",
            answer["hardware"],
            engine.header,
            [float(s) for s in steps],
            _contestants(Path(engine.path).name, answer),
            ceilings,
            () if ceilings else (NO_CEILINGS,),
        )
    )
    with appearing(path) as file:
        file.write(page.encode())
    console.note(f"wrote {path}")


def measure_ceilings(header: Header) -> Ceilings | None:
    """Of this machine, for the engine's instructions and threads; None without a compiler, and for other processors."""
    try:
        isa = extras.load("redline.codegen.c.isa", "bench --html")
        found = extras.load("redline.codegen.c.toolchain", "bench --html").find()
        if header.stamp.target.split("+")[0] not in isa.BY_NAME:
            return None
        measured: Ceilings = extras.load("redline.tune.ceilings", "bench --html").measure(
            isa.target(header.stamp.target, header.num_threads), found
        )
    except (extras.MissingPackage, CompilerError):
        return None
    return measured


def _contestants(name: str, answer: Mapping[str, Any]) -> list[Contestant]:
    if "contest" in answer:
        return [Contestant(title, found["median_s"], found["p99_s"]) for title, found in answer["contest"].items()]
    return [Contestant(name, answer["latency"]["median"], answer["latency"]["p99"])]
