"""Triton text to cubins, in several processes, with a cache of what has been compiled before.

The workers are processes because Triton's front end is Python; the cache is one folder of files named by the hash of
everything that the compiler sees.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redline.base import cpu, env
from redline.base.errors import CompilerError
from redline.codegen.triton import nvrtc
from redline.kernels.gpu import GpuCode, GpuTarget

PINNED = "3.6"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """One kernel to compile. ``aligned``: which parameters are addresses divisible by 16."""

    text: str
    signature: tuple[str, ...]
    aligned: tuple[bool, ...]
    num_warps: int
    num_stages: int
    arch: int
    language: str = "triton"
    shared_bytes: int = 0

    @staticmethod
    def of(code: GpuCode, aligned: Sequence[bool], target: GpuTarget) -> "Request":
        signature = (*code.signature, *("i32" for _ in code.dims))
        rest = [True] * (len(signature) - len(aligned))
        return Request(
            code.text, signature, (*aligned, *rest), code.num_warps, code.num_stages, target.arch, code.language,
            code.shared_bytes,
        )  # fmt: skip

    @property
    def key(self) -> str:
        compiler = nvrtc.version() if self.language == "cuda" else version()
        return hashlib.sha256(json.dumps([asdict(self), compiler]).encode()).hexdigest()


@dataclass(frozen=True)
class Cubin:
    """Machine code with one entry, KERNEL. ``maps``: swizzle, element type and box of each tensor map, in their order."""

    code: bytes
    shared_bytes: int
    maps: tuple[dict[str, Any], ...] = ()


def version() -> str:
    """The version of Triton; raises CompilerError when it is not installed or another than the pinned one."""
    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError as error:
        remedy = "pip install 'redline[cuda-build]'"
        raise CompilerError("triton", "Triton is not installed", "building for CUDA needs it", remedy) from error
    if not found.startswith(PINNED + "."):
        remedy = "pip install 'redline[cuda-build]'"
        raise CompilerError("triton", f"version {found} is installed", f"this version of Redline needs {PINNED}", remedy)
    return found


def compile_cubins(requests: Sequence[Request], progress: Progress = lambda done, total: None) -> list[Cubin | str]:
    """A cubin for each request, or the text of the compiler's complaint."""
    folder = env.cache_dir() / "cubins"
    folder.mkdir(parents=True, exist_ok=True)
    distinct = {request.key: request for request in requests}
    missing = [(key, request) for key, request in distinct.items() if not (folder / f"{key}.json").exists()]
    _compile(missing, folder, progress)
    done = {key: _read(folder, key) for key in distinct}
    return [done[request.key] for request in requests]


def _compile(missing: Sequence[tuple[str, Request]], folder: Path, progress: Progress) -> None:
    queue, lock, total = list(reversed(missing)), threading.Lock(), len(missing)
    left = [total]

    def serve() -> None:
        while queue:
            _work(take, folder, finished)

    def take() -> tuple[str, Request] | None:
        with lock:
            return queue.pop() if queue else None

    def finished() -> None:
        with lock:
            left[0] -= 1
            progress(total - left[0], total)

    workers = [threading.Thread(target=serve) for _ in range(min(total, cpu.allowed_cores()))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _work(take: Callable[[], tuple[str, Request] | None], folder: Path, finished: Callable[[], None]) -> None:
    """One worker process, until there is nothing left to do or a kernel has ended it, as the compiler's assertions do."""
    with subprocess.Popen(
        [sys.executable, "-m", "redline.codegen.triton.worker", str(folder)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=env.child_environment(PYTHONPATH=os.pathsep.join(sys.path)),
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        while (job := take()) is not None:
            key, request = job
            process.stdin.write(json.dumps([key, asdict(request)]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                (folder / f"{key}.json").write_text(json.dumps({"error": "the compiler ended without a word"}))
            finished()
            if not answer:
                break
        process.stdin.close()


def _read(folder: Path, key: str) -> Cubin | str:
    try:
        facts = json.loads((folder / f"{key}.json").read_text())
    except OSError:
        return "the compiler ended without a word"
    if "error" in facts:
        return str(facts["error"])
    return Cubin((folder / f"{key}.cubin").read_bytes(), facts["shared"], tuple(facts["maps"]))
