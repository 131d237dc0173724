"""Finds the C compiler and says how to call it.

Order: REDLINE_CC, the clang inside the ziglang wheel, clang, gcc, cc. The wheel's clang is preferred because it also
links against glibc 2.17, so that an engine loads on any Linux of the last decade. Its binary is called directly
(``python -m ziglang`` costs 60 ms a call), and objects are made with ``zig clang``, which is clang itself: ``zig cc -c``
would add a cache of its own, frame pointers and the undefined-behaviour sanitizer, and turn -O3 into -O2.
"""

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from redline.base import env
from redline.base.errors import CompilerError
from redline.codegen.c import isa
from redline.kernels.problem import CpuTarget

GLIBC = "2.17"
REMEDY = "run pip install 'redline[build]', or name a C compiler in REDLINE_CC"

COMPILE = (
    "-c", "-x", "c", "-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-g0", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-Werror=implicit-function-declaration",
)  # fmt: skip
LINK = ("-shared", "-s", "-Wl,--build-id=none", "-Wl,-soname,redline-engine", "-Wl,-z,noexecstack", "-Wl,-z,defs")


@dataclass(frozen=True)
class Toolchain:
    """A compiler that works. Its ``identity`` is part of cache keys and of an engine's stamp; its path is not."""

    kind: str  # "zig", "clang" or "gcc"
    path: Path = field(compare=False)
    version: str

    @property
    def identity(self) -> str:
        return f"{self.kind} {self.version}"

    def flags(self, target: CpuTarget) -> tuple[str, ...]:
        """Every flag of a compilation that may change the object, so a part of its cache key."""
        machine = isa.machine_flags(target)
        if self.kind == "zig":
            tune = (f"-mtune={'sapphirerapids' if 'amx' in target.features else 'znver4'}",) if target.name == "avx512" else ()
            return (*COMPILE, "-target", "x86_64-linux-gnu", f"-D__GLIBC_MINOR__={GLIBC[2:]}", *machine, *tune)
        return (*COMPILE, *machine, *(("-Wno-psabi",) if self.kind == "gcc" else ()))

    def compile_command(self, target: CpuTarget, out: Path) -> list[str]:
        """Reads C from standard input (so no path of this machine can enter the object) and writes ``out``."""
        program = [str(self.path), "clang", *self._headers()] if self.kind == "zig" else [str(self.path)]
        return [*program, *self.flags(target), "-o", str(out), "-"]

    def link_command(self, objects: list[Path], out: Path) -> list[str]:
        program = [str(self.path)]
        if self.kind == "zig":
            program += ["cc", "-target", f"x86_64-linux-gnu.{GLIBC}"]
        return [*program, *LINK, *map(str, objects), "-o", str(out), "-lm", "-lpthread"]

    def _headers(self) -> list[str]:
        """The header folders that ``zig cc`` would use for glibc; their names differ between versions of zig."""
        lib = self.path.parent / "lib"
        names = ("x86_64-linux-gnu", "x86-linux-gnu", "generic-glibc", "x86_64-linux-any", "x86-linux-any", "any-linux-any")
        folders = [lib / "include", *(lib / "libc" / "include" / name for name in names)]
        return ["-nostdinc", *(part for folder in folders if folder.is_dir() for part in ("-isystem", str(folder)))]


def environment() -> dict[str, str]:
    """The environment of the compiler's processes: zig keeps the C library's link stubs in Redline's own cache folder."""
    zig = env.cache_dir() / "zig"
    return env.child_environment(ZIG_GLOBAL_CACHE_DIR=str(zig), ZIG_LOCAL_CACHE_DIR=str(zig), LC_ALL="C")


def find() -> Toolchain:
    """The first compiler that answers; raises CompilerError when REDLINE_CC is wrong or there is none."""
    named = env.compiler()
    if named:
        path = shutil.which(named)
        if path is None:
            raise CompilerError("REDLINE_CC", f"there is no program {named!r}", "", REMEDY)
        return _probe(Path(path))
    for candidate in (_ziglang(), *map(shutil.which, ("clang", "gcc", "cc"))):
        if candidate:
            return _probe(Path(candidate))
    raise CompilerError("compiler", "no C compiler was found", "looked for ziglang, clang, gcc, cc", REMEDY)


def _ziglang() -> Path | None:
    spec = importlib.util.find_spec("ziglang")
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders))) / "zig" if folders else None
    return path if path and os.access(path, os.X_OK) else None


def _probe(path: Path) -> Toolchain:
    is_zig = path.name.startswith("zig")
    try:
        command = [str(path), "version" if is_zig else "--version"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerError("compiler", f"{path} does not answer: {error}", "", REMEDY) from error
    version = text.strip().splitlines()[0] if text.strip() else "unknown"
    return Toolchain("zig" if is_zig else "clang" if "clang" in version else "gcc", path, version)
