"""Redline, ONNX Runtime and OpenVINO on the zoo, in turns: prints the table, and writes it to --output.

python bench/cpu_models.py                              every model, two threads and one
python bench/cpu_models.py --models resnet50 --threads 1 --seconds 0.5
"""

import argparse
import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import contest
import hardware
import zoo

MIB = 2**20
HEAD = """# Models on the CPU

Written by `{command}` on {day}; run it to measure your own machine.

- Machine: {machine}
- Versions: {versions}
- Batch {batch}; Redline builds for {precision}. Every runtime has the same threads, fixed shapes and the same inputs.
- The contestants take turns in blocks of {seconds:g} s, {blocks} each, with a pause of 0.3 s between blocks; a time is the
  median of the counted calls, in ms (in brackets: the least, and the 90th percentile).
- The ratio is the median of the fastest peer over Redline's: above 1, Redline is faster. Beside it the same of the least times,
  which other guests of a shared machine disturb less.
- The error is the largest relative L2 difference of an output from ONNX Runtime's.
- Memory: what a process serving the engine takes above one that imported numpy, and weights + arena + 80 MiB.
"""


def run(name: str, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """One contest in a process of its own."""
    keys = ("precision", "batch", "seconds", "blocks", "opt_level")
    flags = [text for key in keys for text in (f"--{key.replace('_', '-')}", str(getattr(options, key)))]
    command = [sys.executable, str(Path(contest.__file__)), name, "--threads", str(threads), *flags, "--peers", *options.peers]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"refused": f"the contest ended with exit status {done.returncode}", "stats": {}, "titles": {}}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def ratio(found: dict[str, Any], statistic: str = "median_s") -> float | None:
    """How many times as fast as the fastest peer Redline is; None where one side has no time."""
    times = {name: stats[statistic] for name, stats in found["stats"].items()}
    ours = times.pop("redline", None)
    return min(times.values()) / ours if ours and times else None


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(results: dict[str, dict[str, Any]], peers: Sequence[str]) -> list[str]:
    """Markdown rows of one number of threads."""
    titles = next((found["titles"] for found in results.values() if found["titles"]), {})
    ours = ("ratio", "of the least", "error", "kernels", "memory")
    heading = ["model", "Redline", *(titles.get(peer, peer) for peer in peers), *ours]
    rows = [heading, ["---"] + ["---:"] * (len(heading) - 1)]
    for name, found in results.items():
        rows.append([zoo.MODELS[name].title, *(cell(found, key) for key in ("redline", *peers)), *facts(found)])
    ratios = [value for found in results.values() if (value := ratio(found)) is not None]
    mean = f"Geometric mean of the ratios of {len(ratios)} models: {geometric_mean(ratios):.3f}" if ratios else "No ratios"
    refused = [f"- {zoo.MODELS[n].title}: {textwrap.shorten(f['refused'], 300)}" for n, f in results.items() if "refused" in f]
    return [f"| {' | '.join(row)} |" for row in rows] + ["", mean + "."] + (["", *refused] if refused else [])


def cell(found: dict[str, Any], key: str) -> str:
    stats = found["stats"].get(key)
    if not stats:
        return "-"
    median, least, slow = (stats[name] * 1e3 for name in ("median_s", "min_s", "p90_s"))
    return f"{median:.2f} ({least:.2f}, {slow:.2f})"


def facts(found: dict[str, Any]) -> list[str]:
    value, of_least = ratio(found), ratio(found, "min_s")
    if value is None or of_least is None:
        return ["-"] * 5
    taken, allowed = found["memory"]["taken"] / MIB, found["memory"]["allowed"] / MIB
    ratios = f"**{value:.3f}**", f"{of_least:.3f}"
    return [*ratios, f"{found['relative_l2']:.1e}", str(found["kernels"]), f"{taken:.0f} of {allowed:.0f} MiB"]


def main(options: argparse.Namespace) -> None:
    head = HEAD.format(
        command=" ".join(["python bench/cpu_models.py", *sys.argv[1:]]), day=date.today(), machine=hardware.machine(),
        versions=hardware.versions("onnxruntime", "openvino", "ziglang"), **vars(options),
    )  # fmt: skip
    lines = [head]
    for threads in options.threads:
        results = {}
        for name in options.models:
            results[name] = run(name, threads, options)
            print(name, threads, *(cell(results[name], key) for key in ("redline", *options.peers)), ratio(results[name]))
        lines += [f"## {threads} thread{'s' if threads > 1 else ''}", "", *table(results, options.peers), ""]
    print("\n".join(lines))
    if options.output:
        Path(options.output).write_text("\n".join(lines))


if __name__ == "__main__":
    parser = contest.arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("--models", nargs="*", default=list(zoo.NAMES), choices=zoo.NAMES, metavar="MODEL")
    parser.add_argument("--threads", nargs="*", type=int, default=[2, 1])
    parser.add_argument("--output", help="a file for the table")
    main(parser.parse_args())
