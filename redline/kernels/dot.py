"""The ways to sum products: one multiply-add an element, or an instruction that sums several products of small numbers.

A *group* is the number of neighbours along k whose products one lane sums in one instruction; packed operands keep each
group together. A plain way works for every type and converts both operands to the type of the sums.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeVar

import numpy as np

from redline.base.dtypes import NARROW_FLOATS, DType, bfloat16, bool_, float32, int8, int32, uint8
from redline.kernels.problem import CpuTarget

S = TypeVar("S")
SMALL = (int8, uint8)
TILE_GROUPS = 16  # most groups that an instruction of the matrix unit sums at once
GCC_NAMES = (  # of the instructions that Clang calls by their widths
    "#if defined(__GNUC__) && !defined(__clang__)",
    *(f"#define __builtin_ia32_vpdpbusd{bits} __builtin_ia32_vpdpbusd_v{bits // 32}si" for bits in (128, 256, 512)),
    "#endif",
)


def accumulator(dtype: DType) -> DType:
    """The type in which products of ``dtype`` are summed: float32 for floats of 16 and 8 bits, int32 for small integers."""
    if dtype in NARROW_FLOATS:
        return float32
    return int32 if dtype == bool_ or (dtype.is_integer and dtype.size < 4) else dtype


def agree(x: DType, w: DType) -> bool:
    """Whether operands of these types may be multiplied: the same type, or 8-bit integers of either sign."""
    return x == w or (x in SMALL and w in SMALL)


@dataclass(frozen=True)
class Dot:
    """``x`` and ``w`` are the types in which the operands are read, ``acc`` that of the sums.

    ``offset`` is added to every x while it is staged; the sums then start at -offset * (sum of the column of w), which
    heads each packed panel. ``tiled``: the instruction of the matrix unit that multiplies whole tiles (kernels/amx.py).
    ``parts``: an element of an operand is the sum of so many, a rounded number and what rounding left, rounded in turn.
    """

    name: str
    x: DType
    w: DType
    acc: DType
    group: int = 1
    offset: int = 0
    broadcast: float = 1.0  # cycles to spread a scalar group over a vector
    tiled: str = ""
    parts: int = 1

    @property
    def head(self) -> int:
        """Rows of groups that stand in front of a packed panel."""
        return 1 if self.offset else 0

    def steps(self, k: int) -> int:
        """Groups in a sum of ``k`` products; whole tiles of them where tiles are multiplied."""
        found = -(-k // self.group)
        if not self.tiled or not found:
            return found
        at_once = groups_at_once(found)
        return -(-found // at_once) * at_once

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """The parts of x and w that are multiplied with each other, so ordered that neighbours share one of the two.

        The others are smaller than what rounding the last part left.
        """
        found: list[tuple[int, int]] = []
        for x in reversed(range(self.parts)):
            last = found[-1][1] if found else 0
            found += [(x, w) for w in sorted(range(self.parts - x), key=lambda w: (w != last, -w))]
        return tuple(found)

    def types(self, target: CpuTarget) -> list[str]:
        """C: the vectors ``vec`` of sums and ``wvec`` of packed elements, and what the instruction needs."""
        vector = f"vector_size({target.vector_bytes})"
        lines = [f"typedef {self.acc.c} vec __attribute__(({vector}, aligned({self.acc.size})));"]
        if self.group == 1:
            return [*lines, "typedef vec wvec;"]
        element = "__bf16" if self.w == bfloat16 else "int32_t"
        return [
            *lines,
            f"typedef {element} wvec __attribute__(({vector}, aligned({self.w.size})));",
            f"typedef int32_t words __attribute__(({vector}));",
            "typedef int32_t word __attribute__((may_alias, aligned(1)));",
            *(GCC_NAMES if self.w != bfloat16 else ()),
        ]

    def multiply(self, acc: str, scalar: str, vector: str, bits: int = 512) -> str:
        """C: the statement that adds the products of a scalar group and a vector of groups, ``bits`` wide."""
        if self.group == 1:
            return f"{acc} += {scalar} * {vector};"
        if self.w == bfloat16:
            return f"{acc} = __builtin_ia32_dpbf16ps_{bits}({acc}, (wvec){scalar}, {vector});"
        return f"{acc} = (vec)__builtin_ia32_vpdpbusd{bits}((words){acc}, {scalar}, (words){vector});"

    def multiply_at(self, acc: str, address: str, vector: str, bits: int) -> str:
        """C: the same for the group at ``address``, which the instruction spreads itself where it can."""
        if self.group == 1 or self.w != bfloat16:
            return f"{{ {self.scalar('s', address)} {self.multiply(acc, 's', vector, bits)} }}"
        text = f'"vdpbf16ps %2%{{1to{bits // 32}%}}, %1, %0"'
        return f'__asm__({text} : "+v"({acc}) : "v"((words){vector}), "m"(*(const word *)({address})));'

    def scalar(self, name: str, address: str) -> str:
        """C: ``name``, the group of x at ``address``."""
        if self.group == 1:
            return f"const {self.x.c} {name} = *({address});"
        return f"const words {name} = (words){{0}} + *(const word *)({address});"

    def group_rows(self, array: np.ndarray) -> np.ndarray:
        """[batch, k, n] as [batch, head and steps of each part, n, group] of type ``w``, k filled up with zeros."""
        batch, k, n = array.shape
        padded = np.pad(array, ((0, 0), (0, -k % self.group), (0, 0)))
        whole = padded.reshape(batch, -1, self.group, n).swapaxes(2, 3)
        if self.parts > 1:
            return np.concatenate(list(split(whole, self.w, self.parts)), axis=1)
        rows = whole.astype(self.w.numpy)
        if not self.offset:
            return rows
        start = (-self.offset * array.astype(np.int64).sum(axis=1, keepdims=True)).astype(self.acc.numpy)
        return np.concatenate([np.ascontiguousarray(start)[..., None].view(self.w.numpy), rows], axis=1)


def groups_at_once(steps: int) -> int:
    """How many of ``steps`` groups one instruction of the matrix unit should take: as many as divide them, if not too few."""
    least = -(-steps // TILE_GROUPS)
    exact = next((parts for parts in range(least, 2 * least + 1) if steps % parts == 0), 0)
    return steps // exact if exact else -(-steps // least)


def split(array: np.ndarray, dtype: DType, parts: int) -> Iterator[np.ndarray]:
    """``array`` rounded to ``dtype``, then what rounding took, rounded too, and so on; nothing where it cannot be told
    (infinities)."""
    for _ in range(parts):
        rounded = array.astype(dtype.numpy)
        yield rounded
        with np.errstate(invalid="ignore"):
            rest = array - rounded.astype(array.dtype)
        array = np.where(np.isfinite(rest), rest, 0)


def plain(x: DType) -> Dot:
    acc = accumulator(x)
    return Dot("", acc, acc, acc)


BF16 = Dot("bf16", bfloat16, bfloat16, float32, group=2, broadcast=1.4)
U8S8 = Dot("u8s8", uint8, int8, int32, group=4)
S8S8 = Dot("s8s8", uint8, int8, int32, group=4, offset=128)
_INSTRUCTIONS = {  # by the types of x and w: the processor feature and the way
    (bfloat16, bfloat16): ("bf16", BF16),
    (uint8, int8): ("vnni", U8S8),
    (int8, int8): ("vnni", S8S8),
}
_TILED = {
    (bfloat16, bfloat16): Dot("amx-bf16", bfloat16, bfloat16, float32, group=2, tiled="tdpbf16ps"),
    (uint8, int8): Dot("amx-u8s8", uint8, int8, int32, group=4, tiled="tdpbusd"),
    (int8, int8): Dot("amx-s8s8", int8, int8, int32, group=4, tiled="tdpbssd"),
}


SPLIT = {  # float32 in parts of bfloat16, by the feature of a target that allows it: so many products each
    name: Dot(f"amx-{name}", bfloat16, bfloat16, float32, group=2, tiled="tdpbf16ps", parts=parts)
    for name, parts in (("bf16x3", 2), ("bf16x6", 3))
}


def of(name: str, x: DType, w: DType) -> Dot:
    """The way called ``name`` for operands of these types."""
    known = (*(dot for _, dot in _INSTRUCTIONS.values()), *_TILED.values(), *SPLIT.values(), plain(x))
    return next(dot for dot in known if dot.name == name)


def candidates(x: DType, w: DType, constant: bool, target: CpuTarget) -> Iterator[Dot]:
    """The ways in which the vector unit of ``target`` can multiply operands of these types, the fastest first."""
    feature, dot = _INSTRUCTIONS.get((x, w), ("", None))
    if dot and feature in target.features and target.vector_bytes == 64 and (constant or not dot.offset):
        yield dot
    yield plain(x)


def tiled(x: DType, w: DType, target: CpuTarget) -> Dot | None:
    """The way in which the matrix unit of ``target`` does; None where it has none for these types."""
    if "amx" not in target.features:
        return None
    if x == w == float32:
        return next((dot for name, dot in SPLIT.items() if name in target.features), None)
    return _TILED.get((x, w))


def by_turns(schedules: Callable[[CpuTarget], Sequence[S]], target: CpuTarget) -> list[S]:
    """What ``schedules`` finds; where float32 may be split, in turns with what it finds where it may not."""
    found = [schedules(target)]
    if SPLIT.keys() & target.features:
        found.append(schedules(without_parts(target)))
    return [s for turn in zip_longest(*found) for s in turn if s is not None]


def without_parts(target: CpuTarget) -> CpuTarget:
    """``target`` as it is where float32 is multiplied as it lies."""
    return replace(target, features=target.features - SPLIT.keys())
