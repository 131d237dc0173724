"""Objects and plans in, one shared object out: the code blob of an engine.

It needs libc, libm and libpthread only and exports the functions of executor.h. The same inputs give the same bytes.
"""

import importlib.resources
import tempfile
from collections.abc import Sequence
from pathlib import Path

from redline.codegen.c.compile import compile_objects, run
from redline.codegen.c.plan import Plan, render
from redline.codegen.c.toolchain import Toolchain
from redline.kernels.problem import CpuTarget


def link_engine(kernels: Sequence[bytes], plans: Sequence[Plan], target: CpuTarget, toolchain: Toolchain) -> bytes:
    """The shared object that runs ``plans``; ``kernels`` are the objects that define their symbols.

    Raises CompilerError when a symbol of the plan is in no object.
    """
    header = package_text("executor.h")
    texts = [header + package_text(name) for name in ("pool.c", "executor.c", "checksum.c")] + [header + render(plans)]
    return link([*compile_objects(texts, target, toolchain), *kernels], toolchain)


def link(objects: Sequence[bytes], toolchain: Toolchain) -> bytes:
    """The shared object of ``objects``, each taken once."""
    with tempfile.TemporaryDirectory(prefix="redline-") as folder:
        paths = []
        for index, built in enumerate(dict.fromkeys(objects)):
            paths.append(Path(folder) / f"{index}.o")
            paths[-1].write_bytes(built)
        out = Path(folder) / "engine.so"
        run(toolchain.link_command(paths, out))
        return out.read_bytes()


def package_text(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text()
