"""C texts in, object files out: compiled in parallel, each once, through a content-addressed cache on disk.

The key of an object is a hash of the text, the flags and the compiler's identity. An entry holds the hash of its own
object in front, so a damaged one is noticed and made again. Entries appear by rename, so builds may share the cache.
"""

import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from redline.base import env, log
from redline.base.cpu import allowed_cores
from redline.base.errors import CompilerError
from redline.base.files import appearing
from redline.codegen.c.toolchain import REMEDY, Toolchain, environment
from redline.kernels.problem import CpuTarget, KernelCode

HASH_BYTES = 32
LIMIT_S = 900.0  # a kernel takes seconds; a compiler that hangs must not hang the build


def source(code: KernelCode) -> str:
    """The C of a kernel under its own symbol."""
    return f"#define KERNEL {code.symbol}\n{code.text}"


def compile_objects(
    texts: Sequence[str],
    target: CpuTarget,
    toolchain: Toolchain,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[bytes]:
    """The object file of each text, in order; equal texts are compiled once. ``jobs`` processes, 0: one a core.

    ``progress(done, total)`` is called after each distinct text. Raises CompilerError with the compiler's first lines.
    """
    distinct = list(dict.fromkeys(texts))
    done: dict[str, bytes] = {}
    with ThreadPoolExecutor(jobs or allowed_cores()) as workers:
        objects = workers.map(lambda text: compile_one(text, target, toolchain), distinct)
        try:
            for text, built in zip(distinct, objects, strict=True):
                done[text] = built
                if progress:
                    progress(len(done), len(distinct))
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise
    return [done[text] for text in texts]


def compile_one(text: str, target: CpuTarget, toolchain: Toolchain) -> bytes:
    """The object file of one text, from the cache or the compiler."""
    entry = env.cache_dir() / "objects" / key(text, target, toolchain)
    cached = _read_entry(entry)
    if cached is not None:
        return cached
    built = _run_compiler(text, target, toolchain)
    _write_entry(entry, built)
    return built


def key(text: str, target: CpuTarget, toolchain: Toolchain) -> str:
    parts = (toolchain.identity, *toolchain.flags(target), text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _run_compiler(text: str, target: CpuTarget, toolchain: Toolchain) -> bytes:
    log.debug(4, text)
    with tempfile.TemporaryDirectory(prefix="redline-") as folder:
        out = Path(folder) / "kernel.o"
        run(toolchain.compile_command(target, out), text)
        return out.read_bytes()


def run(command: Sequence[str], stdin: str = "") -> None:
    """Runs the compiler; raises CompilerError with its first lines when it fails, or when it does not end."""
    try:
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment(), timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        seen = f"{command[0]} did not end within {LIMIT_S:g} s"
        raise CompilerError("compiler", seen, "", "see that the machine is not out of memory, and build again") from error
    except OSError as error:
        raise CompilerError("compiler", f"{command[0]} cannot be run: {error}", "", REMEDY) from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()][:8]
        raise CompilerError("compiler", "\n".join([f"{command[0]} failed ({result.returncode}):", *lines]))


def _read_entry(path: Path) -> bytes | None:
    """The object in a cache entry; None when there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    built = data[HASH_BYTES:]
    return built if hashlib.sha256(built).digest() == data[:HASH_BYTES] else None


def _write_entry(path: Path, built: bytes) -> None:
    """Adds an entry; a cache folder that cannot be written costs time, not the build."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as file:
            file.write(hashlib.sha256(built).digest() + built)
    except OSError as error:
        log.debug(1, f"the object cache cannot be written: {error}")
