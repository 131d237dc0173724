"""The x86 processors that Redline writes C for, and what an engine built for each then needs.

A target is written ``avx512+bf16+vnni``: a row of ``ROWS`` and, of its options, those used. ``needs`` gives the
/proc/cpuinfo flags without which the code must not run: exactly those that the compiler is allowed to use.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from redline.base import cpu
from redline.base.errors import BuildError, closest
from redline.kernels.problem import CpuTarget


@dataclass(frozen=True)
class Isa:
    """One row: the compiler's base architecture and the options on top; each option is (-m flags, cpuinfo flags)."""

    name: str
    march: str
    vector_bytes: int
    num_registers: int
    needs: frozenset[str]
    options: Mapping[str, tuple[tuple[str, ...], frozenset[str]]] = field(default_factory=dict)


_V3 = frozenset({"sse4_2", "ssse3", "popcnt", "cx16", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "xsave"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

ROWS = (
    Isa(
        "avx512", "x86-64-v4", 64, 32, _V4,
        {
            "amx": (("-mamx-tile", "-mamx-bf16", "-mamx-int8"), frozenset({"amx_tile", "amx_bf16", "amx_int8"})),
            "bf16x3": ((), frozenset()),  # no instruction, but leave: float32 factors may be split in two bfloat16 each
            "bf16x6": ((), frozenset()),  # the same, in three
            "bf16": (("-mavx512bf16",), frozenset({"avx512_bf16"})),
            "vbmi": (("-mavx512vbmi", "-mavx512vbmi2"), frozenset({"avx512vbmi", "avx512_vbmi2"})),
            "vnni": (("-mavx512vnni",), frozenset({"avx512_vnni"})),
        },
    ),
    Isa("avx2", "x86-64-v3", 32, 16, _V3),
    Isa("generic", "x86-64", 16, 16, frozenset()),
)  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}


def host_target(num_threads: int = 0, features: frozenset[str] | None = None) -> CpuTarget:
    """The best target of this machine (or of a processor with the given cpuinfo flags); 0 threads: all it may use."""
    if features is None and platform.machine() != "x86_64":
        raise BuildError("target", f"this machine is {platform.machine()}", "Redline writes code for x86_64 only")
    found = cpu.features() if features is None else features
    row = next(row for row in ROWS if row.needs <= found)
    return _make(row, frozenset(name for name, (_, needs) in row.options.items() if needs and needs <= found), num_threads)


def target(name: str, num_threads: int = 0) -> CpuTarget:
    """The target called ``name``: ``cpu`` for this machine, or a row with options such as ``avx512+bf16+vnni``.

    Raises BuildError for a name that is not in the table.
    """
    if name == "cpu":
        return host_target(num_threads)
    row_name, *options = name.split("+")
    if row_name not in BY_NAME:
        raise BuildError("target", f"there is no target {row_name!r}", closest(row_name, ["cpu", *BY_NAME]))
    row = BY_NAME[row_name]
    for option in options:
        if option not in row.options:
            raise BuildError("target", f"{row_name} has no option {option!r}", closest(option, row.options))
    return _make(row, frozenset(options), num_threads)


def _make(row: Isa, options: frozenset[str], num_threads: int) -> CpuTarget:
    return CpuTarget(
        row.name, row.vector_bytes, row.num_registers, num_threads or cpu.num_threads(), options,
        cpu.cache_bytes(1, 32 << 10), cpu.cache_bytes(2, 1 << 20),
    )  # fmt: skip


def text(target: CpuTarget) -> str:
    """``avx512+bf16+vnni``: the name that ``target`` takes back."""
    return "+".join([target.name, *sorted(target.features)])


def needs(target: CpuTarget) -> frozenset[str]:
    """The /proc/cpuinfo flags that a processor must have to run code made for ``target``."""
    row = BY_NAME[target.name]
    return row.needs.union(*(row.options[option][1] for option in target.features))


def machine_flags(target: CpuTarget) -> tuple[str, ...]:
    """The compiler flags that say what instructions it may use; the same for gcc and clang."""
    row = BY_NAME[target.name]
    options = tuple(flag for option in sorted(target.features) for flag in row.options[option][0])
    return (f"-march={row.march}", *options, f"-mprefer-vector-width={8 * row.vector_bytes}")
