"""How soon a new process gives its first answer, and what several processes that serve one model take.

Every start is a process of its own, timed from its creation to the line that says that the answer is there; Redline and ONNX
Runtime take turns. Cold: the model's file was dropped from the page cache before. Memory is the proportional set size (PSS,
shared pages divided among those who share them), read when every process has answered.

    python bench/cold_start.py                          BERT-base, sequence 128
    python bench/cold_start.py --model minilm --runs 9
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import hardware
import zoo

import redline

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "engines"
CONTESTANTS = {
    "Redline": """
import redline
engine = redline.load({engine!r})
run = lambda feed: engine.run(feed)
""",
    "Redline, preload=True": """
import redline
engine = redline.load({engine!r}, preload=True)
run = lambda feed: engine.run(feed)
""",
    "ONNX Runtime": """
import onnxruntime
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
run = lambda feed: session.run(None, feed)
""",
}
BODY = """
import sys
import numpy as np
feed = {{name: np.ones(shape, np.int64) for name, shape in {shapes!r}.items()}}
{setup}
run(feed)
print("answered", flush=True)
sys.stdin.read()
"""


class Server:
    """A process that loads a model, answers once and waits."""

    def __init__(self, program: str) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "answered\n":
            raise SystemExit("a process gave no answer")
        self.seconds = time.perf_counter() - began

    def pss_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10

    def end(self) -> None:
        self.process.communicate()


def drop_from_cache(path: Path) -> None:
    """Written pages of a file that nobody maps leave the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def starts(programs: dict[str, str], files: list[Path], runs: int, cold: bool) -> dict[str, float]:
    """The median seconds to the first answer of each contestant."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(runs):
        for name, program in programs.items():
            for file in files if cold else []:
                drop_from_cache(file)
            server = Server(program)
            server.end()
            seconds[name].append(server.seconds)
            time.sleep(0.2)
    return {name: statistics.median(times) for name, times in seconds.items()}


def memory(program: str, count: int) -> float:
    """The PSS of ``count`` processes together, in MiB."""
    servers = [Server(program) for _ in range(count)]
    total = sum(server.pss_bytes() for server in servers)
    for server in servers:
        server.end()
    return total / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bert_base", choices=[n for n in zoo.NAMES if zoo.MODELS[n].vocabulary])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    model, engine = zoo.path(options.model).resolve(), FOLDER / f"{options.model}.engine"
    FOLDER.mkdir(parents=True, exist_ok=True)
    shapes = zoo.shapes(options.model)
    redline.build(model, shapes=shapes, output=engine, opt_level=1).close()
    names = {"engine": str(engine), "model": str(model)}
    programs = {name: BODY.format(shapes=shapes, setup=setup.format(**names)) for name, setup in CONTESTANTS.items()}

    print(f"{zoo.MODELS[options.model].title}, {engine.stat().st_size / 2**20:.0f} MiB of engine")
    print(hardware.machine())
    print(hardware.versions("onnxruntime"))
    warm = starts(programs, [model, engine], options.runs, cold=False)
    cold = starts(programs, [model, engine], max(1, options.runs // 2), cold=True)
    print("\n| process start to first answer (s) | page cache warm | cold |\n|---|---|---|")
    for name in programs:
        print(f"| {name} | {warm[name]:.3f} | {cold[name]:.3f} |")
    print(f"| ONNX Runtime over Redline | {warm['ONNX Runtime'] / warm['Redline']:.2f} "
          f"| {cold['ONNX Runtime'] / cold['Redline']:.2f} |")  # fmt: skip
    print("\n| memory (PSS, MiB) | one process | four | four / one |\n|---|---|---|---|")
    for name in ("Redline", "ONNX Runtime"):
        one, four = memory(programs[name], 1), memory(programs[name], 4)
        print(f"| {name} | {one:.0f} | {four:.0f} | {four / one:.2f} |")


if __name__ == "__main__":
    main()
