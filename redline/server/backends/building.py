"""Builds engines from a model.onnx in a process of its own: the server never imports the compiler.

Engines are kept in the cache folder under a hash of the model, the shapes, the processor and the version of Redline, so a model
is built once for a machine. The file appears when it is complete; a build that fails leaves nothing.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from redline.base import cpu, env, shapes
from redline.base.log import logger
from redline.engine import FORMAT
from redline.server.config import ModelConfig
from redline.server.errors import Kind, ServeError, invalid
from redline.server.program import Progress

BUILD_LIMIT_S = 3600
POLL_S = 0.05
TUNED_BATCH = 8
OPEN_FROM = 4  # batches: the builder opens no narrower range
CHUNK = 1 << 20


def build_engines(config: ModelConfig, onnx: Path, progress: Progress) -> dict[int, Path]:
    """The engines of a model by batch extent, built where the cache lacks them; a ServeError has the builder's words.

    One engine of every batch, under 0, where the builder can make it; else one for each of ``batch_sizes``.
    """
    content = _hash_files(onnx)
    fixed = {size: _shape_options(config, size) for size in batch_sizes(config.max_batch_size)}
    targets = {size: _target(content, options) for size, options in fixed.items()}
    if config.max_batch_size >= OPEN_FROM and not all(target.is_file() for target in targets.values()):
        options = _open_options(config)
        target = _target(content, options)
        if target.is_file() or _builds_open(config, onnx, target, options, progress):
            return {0: target}
    made = {}
    for size, options in fixed.items():
        target = targets[size]
        if not target.is_file():
            progress(f"building {onnx} for batch {size}" if size else f"building {onnx}")
            _build(config, onnx, target, options, progress)
        made[size] = target
    return made


def _builds_open(config: ModelConfig, onnx: Path, target: Path, options: list[str], progress: Progress) -> bool:
    """Whether one engine of every batch could be built; what speaks against it is in the log."""
    progress(f"building {onnx} for batches of 1 to {config.max_batch_size}")
    try:
        _build(config, onnx, target, options, progress)
    except ServeError as error:
        if error.kind is not Kind.INVALID:
            raise
        logger.info("[model %r] is built for each batch size apart: %s", config.name, error)
        return False
    return True


def _target(content: str, options: list[str]) -> Path:
    return env.cache_dir() / "served" / f"{_key(content, options)}.engine"


def batch_sizes(max_batch_size: int) -> list[int]:
    """1, 2, 4, ... and the maximum; [0] for a model without batches."""
    if not max_batch_size:
        return [0]
    return sorted({1 << n for n in range(max_batch_size.bit_length()) if 1 << n < max_batch_size} | {max_batch_size})


def _shape_options(config: ModelConfig, size: int) -> list[str]:
    options: list[str] = []
    if size and not config.inputs:
        remedy = "list the inputs in config.pbtxt, or put engines there: model.b1.engine, ..."
        raise invalid(f"model {config.name!r}", "max_batch_size is set and the inputs are not", "", remedy)
    for spec in config.inputs:
        if any(d < 0 for d in spec.shape):
            if not size:
                continue  # open dimensions that the model itself may fix; the builder says so if it does not
            raise invalid(f"model {config.name!r}", f"input {spec.name!r} has dims {list(spec.shape)}", "fixed dims are built")
        options += ["--shapes", f"{spec.name}:{shapes.text(((size,) if size else ()) + spec.shape)}"]
    return options


def _open_options(config: ModelConfig) -> list[str]:
    """Batches of 1 to the largest, tuned for TUNED_BATCH."""
    sizes = (1, min(TUNED_BATCH, config.max_batch_size), config.max_batch_size)
    options: list[str] = []
    for spec in config.inputs:
        options += ["--shapes", f"{spec.name}:" + ",".join(shapes.text((size, *spec.shape)) for size in sizes)]
    return options


def _hash_files(onnx: Path) -> str:
    """A hash of the model and of the files beside it that may hold its weights."""
    digest = hashlib.sha256()
    for path in sorted(p for p in onnx.parent.iterdir() if p.is_file() and p.suffix != ".engine"):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _key(content: str, options: list[str]) -> str:
    parts = [
        content,
        str(FORMAT),
        *options,
        cpu.model_name(),
        str(cpu.num_threads()),
        ",".join(sorted(cpu.features())),
        metadata.version("redline"),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _build(config: ModelConfig, onnx: Path, target: Path, options: list[str], progress: Progress) -> None:
    where = f"model {config.name!r}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        path = Path(scratch) / "model.engine"
        command = [sys.executable, "-m", "redline", "build", str(onnx), "--output", str(path), *options]
        with tempfile.TemporaryFile() as said:
            status = _wait(where, subprocess.Popen(command, stdout=said, stderr=said, env=env.child_environment()), progress)
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").split("\n")
        if status or not path.is_file():
            last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {status}")
            raise ServeError(Kind.INVALID, where, f"it does not build: {last}", "", "see redline check")
        os.replace(path, target)


def _wait(where: str, process: subprocess.Popen[bytes], progress: Progress) -> int:
    """The exit status of the builder; it is killed when the load is given up or takes too long."""
    deadline = time.monotonic() + BUILD_LIMIT_S
    try:
        while process.poll() is None:
            progress("")
            if time.monotonic() > deadline:
                raise ServeError(Kind.INTERNAL, where, f"building it took more than {BUILD_LIMIT_S} s")
            time.sleep(POLL_S)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    return process.returncode
