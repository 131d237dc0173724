"""The machine and the packages that numbers were measured with, as lines for the head of a table."""

import os
import platform
from importlib import metadata

from redline.base import cpu

ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")


def machine() -> str:
    """One line: processor, cores that may be used, instruction sets, memory, system."""
    flags = cpu.features()
    sets = " ".join(name for name in ISA if name in flags) or "no vector extension named"
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{cpu.model_name()}, {cpu.allowed_cores()} cores ({sets}), {memory_gib:.0f} GiB, {system}"


def versions(*packages: str) -> str:
    """``redline 0.1.0, numpy 2.4.6``: the installed versions; packages that are absent are left out."""
    found = []
    for name in ("redline", "numpy", *packages):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", *found])
