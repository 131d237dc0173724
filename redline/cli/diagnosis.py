"""What a machine needs to build and to run engines, each thing tried for real: ``diagnose()`` gives one finding each."""

import ctypes
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from redline.base import cpu, env
from redline.base.errors import RedlineError
from redline.codegen.c import isa, toolchain

PROGRAM = '__attribute__((visibility("default"))) int redline_doctor(int x) { return 2 * x; }\n'
TIMEOUT_S = 120  # the first link with the ziglang wheel builds its C library stubs: seconds
BUILD_PACKAGES = (("onnx", "build", True), ("onnxruntime", "bench", False), ("openvino", "bench", False))


@dataclass(frozen=True)
class Finding:
    """``required``: without it no engine can be built. ``remedy``: the command that repairs it; empty when all is well."""

    name: str
    detail: str
    remedy: str = ""
    required: bool = True

    @property
    def ok(self) -> bool:
        return not self.remedy


def diagnose() -> list[Finding]:
    """Every finding, in the order in which a user would repair them."""
    probes: list[Callable[[], Finding]] = [processor, compiler, test_compile, cache, threads]
    packages = [lambda row=row: package(*row) for row in BUILD_PACKAGES]
    return [probe() for probe in [*probes, *packages]]


def processor() -> Finding:
    name = "processor"
    try:
        target = isa.host_target()
    except RedlineError as error:
        return Finding(name, error.seen, "run Redline on a machine with an x86_64 processor")
    return Finding(name, f"{cpu.model_name()}; target {isa.text(target)}")


def compiler() -> Finding:
    try:
        found = toolchain.find()
    except RedlineError as error:
        return Finding("compiler", error.seen, "pip install 'redline[build]'" if not env.compiler() else "unset REDLINE_CC")
    return Finding("compiler", f"{found.identity}, {found.path}")


def test_compile() -> Finding:
    """Compiles, links, loads and calls a function, as a build does with its kernels."""
    name, remedy = "test compile", "pip install --force-reinstall 'redline[build]'"
    try:
        tools, target = toolchain.find(), isa.host_target()
    except RedlineError:
        return Finding(name, "not tried: see above", "redline doctor")
    with tempfile.TemporaryDirectory() as folder:
        object_, library = Path(folder, "a.o"), Path(folder, "a.so")
        try:
            _call(tools.compile_command(target, object_), PROGRAM)
            _call(tools.link_command([object_], library))
            answer = ctypes.CDLL(str(library)).redline_doctor(21)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            return Finding(name, reason.strip().splitlines()[0], remedy)
    return Finding(name, "compiled, linked, loaded and called", "" if answer == 42 else remedy)


def _call(command: list[str], text: str = "") -> None:
    subprocess.run(
        command, input=text, capture_output=True, text=True, check=True, timeout=TIMEOUT_S, env=toolchain.environment()
    )  # fmt: skip


def cache() -> Finding:
    folder = env.cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("cache", f"{folder}: {error.strerror}", "export REDLINE_CACHE_DIR=FOLDER, one that you may write to")
    return Finding("cache", f"{folder} is writable")


def threads() -> Finding:
    allowed, limit, quota = cpu.num_threads(), env.num_threads(), cpu.cgroup_quota()
    parts = [f"{allowed} of {os.cpu_count()} cores", f"affinity mask {len(os.sched_getaffinity(0))}"]
    parts += [f"control group {quota:g}"] if quota else []
    parts += [f"REDLINE_NUM_THREADS {limit}"] if limit else []
    detail = "; ".join(parts)
    if limit > cpu.allowed_cores():
        return Finding(
            "threads", f"{detail}: more threads than cores slow every engine down", "unset REDLINE_NUM_THREADS", False
        )
    return Finding("threads", detail)


def package(name: str, extra: str, required: bool) -> Finding:
    try:
        return Finding(name, metadata.version(name), required=required)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", f"pip install 'redline[{extra}]'", required)


def system() -> str:
    return f"redline {metadata.version('redline')}, Python {platform.python_version()}, {platform.platform()}"
