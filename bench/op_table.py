"""Runs all of ONNX's own node test cases through built engines and writes docs/ops.md from the results.

python bench/op_table.py                    all of them, in two workers; some minutes
python bench/op_table.py --only "relu|conv" --output ""
"""

import argparse
import collections
import json
import queue
import re
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import hardware
import node_cases

ROOT = Path(__file__).resolve().parent.parent
WORKER = [sys.executable, str(Path(node_cases.__file__))]
STATUSES = ("passed", "refused", "wrong", "crashed")
HEAD = """# Operators

Written by `{command}` on {day} from executed results: every node test case that the ONNX package carries is built into an
engine, run, and compared with its expected outputs by the tolerances of ONNX's own backend test. (The expected outputs of the
inverse DFT cases are recomputed in float64: ONNX's come from a float32 transform whose rounding exceeds the tolerance.)

- Machine: {machine}
- Versions: {versions}
- **passed**: the engine's outputs have the right types, shapes and values. **bound**: how many of the passed cases had inputs
  made constants with `freeze`, because Redline needs their values at build time (axes, shapes, sizes).
- **refused**: the build ends with a sentence that says why. **wrong**: other values. **crashed**: an error that is no
  sentence, a signal, or no answer in {seconds} s.
- **worst error**: the largest difference in the passed cases, as a part of the tensor's largest expected value (at least 1).
- Cases named `..._expanded`, in which ONNX writes an operator in terms of simpler ones, count for that operator.
"""


class Worker:
    """A process that runs cases, started again after it died or hung."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.process: subprocess.Popen[str] | None = None

    def run(self, name: str) -> dict[str, Any]:
        if self.process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self.process = subprocess.Popen(WORKER, text=True, **pipes)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds)
        line = self.process.stdout.readline() if ready else ""
        if line:
            result: dict[str, Any] = json.loads(line)
            return result
        return {"name": name, "operator": node_cases.operator(name), "status": "crashed", "detail": self._bury(bool(ready))}

    def _bury(self, ended: bool) -> str:
        """Ends the process; says how it came to that."""
        assert self.process
        if not ended:
            self.process.kill()
        code = self.process.wait()
        self.process = None
        return f"the process ended with {code}" if ended else f"no answer in {self.seconds:g} s"


def run_all(names: Sequence[str], num_workers: int, seconds: float) -> list[dict[str, Any]]:
    """The verdicts, in the order of the names."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    done: dict[str, dict[str, Any]] = {}

    def work() -> None:
        worker = Worker(seconds)
        while not waiting.empty():
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                break
            done[name] = worker.run(name)
            if sys.stderr.isatty():
                print(f"\r{len(done)} of {len(names)} ", end="", file=sys.stderr, flush=True)
        if worker.process and worker.process.stdin:
            worker.process.stdin.close()
            worker.process.wait()

    threads = [threading.Thread(target=work) for _ in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done[name] for name in names]


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: totals, a row an operator, then the sentences and differences."""
    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for result in results:
        groups[result["operator"]].append(result)
    counts = collections.Counter(result["status"] for result in results)
    whole = sum(all(r["status"] == "passed" for r in group) for group in groups.values())
    totals = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    folded = sum(result["status"] == "passed" and result["folded"] for result in results)
    lines = [f"{len(results)} cases: {totals}. {whole} of {len(groups)} operators pass every case."]
    lines += [f"In {folded} of the passed cases every input was bound, and the builder computed the answer.", ""]
    lines += ["| operator | cases | passed | bound | refused | wrong | crashed | worst error |", "|---" + "|---:" * 7 + "|"]
    lines += [row(name, groups[name]) for name in sorted(groups)]
    for status in ("crashed", "wrong", "refused"):
        lines += section(status, [result for result in results if result["status"] == status])
    return lines


def row(name: str, group: Sequence[dict[str, Any]]) -> str:
    counts = collections.Counter(result["status"] for result in group)
    passed = [result for result in group if result["status"] == "passed"]
    bound = sum(bool(result["bound"]) for result in passed)
    worst = f"{max(result['error'] for result in passed):.1e}" if passed else "-"
    cells = (len(group), len(passed), bound, *(counts[status] or "" for status in STATUSES[1:]), worst)
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


def section(status: str, results: Sequence[dict[str, Any]]) -> list[str]:
    """The details of the cases of one status, equal details of one operator together."""
    if not results:
        return []
    causes: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for result in results:
        causes[result["operator"], one_line(result["detail"], result["name"])].append(result["name"])
    lines = [f"- {op} ({len(names)}, as {names[0]}): {detail}" for (op, detail), names in sorted(causes.items())]
    return ["", f"## {status.capitalize()}", "", *lines]


def one_line(detail: str, name: str) -> str:
    """The sentence without line breaks and without the names that differ between cases of one cause."""
    flat = re.sub(r"\s+", " ", detail).replace(f"[{name}] ", "").replace("|", "\\|").replace("<", "&lt;")
    flat = re.sub(r"\b([A-Z]\w*?)_\d+\b", r"\1", flat)
    return flat if len(flat) <= 240 else flat[:237] + "..."


def main(options: argparse.Namespace) -> None:
    names = [name for name in node_cases.cases() if re.search(options.only, name)]
    results = run_all(names, options.workers, options.seconds)
    command = " ".join(["python bench/op_table.py", *sys.argv[1:]])
    facts = {"machine": hardware.machine(), "versions": hardware.versions("onnx", "ziglang")}
    head = HEAD.format(command=command, day=date.today(), seconds=f"{options.seconds:g}", **facts)
    text = "\n".join([head, *table(results), ""])
    print(text)
    if options.output:
        Path(options.output).write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a pattern that the names of the cases must contain")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest that a case may take")
    parser.add_argument("--output", default=str(ROOT / "docs" / "ops.md"))
    main(parser.parse_args())
