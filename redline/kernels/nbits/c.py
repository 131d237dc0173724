"""Products with weights of few bits, in C.

A chunk is (group of rows, panels of columns). It copies its rows of x, as float32 and whole pairs long, sums their blocks
where there are shifts, and walks panel by panel, a register tile of rows at a time. Codes are packed
[panel][k][width] at 8 bits and [panel][k / 2][width] at 4, the even k in the low half of a byte; scales [panel][block][width].
Codes become floats in registers: a byte of weights costs no more of the memory's time than a byte.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redline.base.shapes import size
from redline.kernels import cexpr, tile
from redline.kernels.ctext import block, digits, loop, offset, share, shares, vector_loop, vectorized
from redline.kernels.nbits.problem import Problem
from redline.kernels.nbits.schedule import Schedule, is_legal, panels
from redline.kernels.problem import CpuTarget, KernelCode, Packing, nothing
from redline.kernels.tile import Panels


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    if not size(problem.out.shape):
        return nothing("nbits")
    assert is_legal(problem, schedule, target), f"{schedule} does not fit {problem}"
    kernel = _Kernel(problem, schedule, target)
    text = kernel.text()
    chunks = schedule.groups * schedule.panel_chunks
    return KernelCode("nbits", cexpr.prelude(text) + text, chunks, kernel.scratch_bytes, kernel.packings())


@dataclass(frozen=True)
class _Kernel:
    problem: Problem
    schedule: Schedule
    target: CpuTarget

    @cached_property
    def panels(self) -> Panels:
        return panels(self.problem, self.schedule, self.target)

    @property
    def pairs(self) -> int:
        """Codes in a byte."""
        return 8 // self.problem.bits

    @property
    def stride(self) -> int:
        """Elements from one copied row to the next."""
        return -(-self.problem.k // 16) * 16

    @property
    def most_rows(self) -> int:
        return -(-self.problem.m // self.schedule.groups)

    @property
    def scratch_bytes(self) -> int:
        sums = self.most_rows * self.problem.num_blocks if self.problem.shifted else 0
        return (self.most_rows * self.stride + sums) * 4

    def packings(self) -> dict[int, Packing]:
        p, cut = self.problem, self.panels
        name = f"{cut.width}x{cut.lanes}"
        found = {1: Packing(f"codes{p.bits}-{name}", lambda array: in_panels(_joined(array, p.bits), cut))}
        for i in range(2, 3 + p.shifted):
            found[i] = Packing(f"blocks-{name}", lambda array: in_panels(array, cut))
        return found

    def text(self) -> str:
        vector, lanes = self.target.vector_bytes, self.panels.lanes
        code = "int8_t" if self.problem.bits == 8 else "uint8_t"
        lines = [
            f"typedef float vec __attribute__((vector_size({vector}), aligned(4)));",
            f"typedef int32_t ivec __attribute__((vector_size({vector})));",
            f"typedef {code} codes __attribute__((vector_size({lanes}), aligned(1)));",
        ]
        for width, valid in self.panels.kinds():
            for rows in self._heights():
                lines += self.tile(rows, width, valid)
        return "\n".join([*lines, *self.main(), ""])

    def _heights(self) -> list[int]:
        """Of all tiles: of full ones and of what is left of a group."""
        p, s = self.problem, self.schedule
        groups = {end - begin for begin, end in shares(p.m, s.groups)}
        return sorted({rows for count in groups for rows in (min(s.rows, count), count % s.rows) if rows}, reverse=True)

    def tile(self, rows: int, width: int, valid: int) -> list[str]:
        """The function that computes a tile and stores it through the epilogue."""
        p, vectors = self.problem, width // self.panels.lanes
        body = [f"vec acc[{rows}][{vectors}] = {{0}};"]
        full, rest = divmod(p.k, p.block)
        if full:
            body += loop("b", 0, full, self.block(rows, vectors, width, p.block))
        if rest:
            body += block("", [f"const int64_t b = {full};", *self.block(rows, vectors, width, rest)])
        body += tile.spill(rows, vectors, width, p.acc)
        first = 3 + p.shifted
        names = [f"arg{i}" for i in range(first, len(p.reads))]
        body += cexpr.pointers(p.reads[first:], names, first=first)
        body += cexpr.pointers(p.writes, ["out"], first=len(p.reads), const=False)
        epilogue = vector_loop(valid, self.panels.lanes, self.epilogue())
        body += loop("i", 0, rows, ["const int64_t m = m0 + i;", *epilogue])
        head = f"static __attribute__((noinline)) void tile_{rows}x{valid}(void *const *args, "
        operands = "const float *x, const float *totals, const uint8_t *panel, const float *scales, const float *shifts"
        return block(f"{head}{operands}, int64_t m0, int64_t n0)", body)

    def block(self, rows: int, vectors: int, width: int, length: int) -> list[str]:
        """C: one block: its products in ``part``, then scaled; the pointers move on."""
        steps, step = -(-length // self.pairs), self.pairs
        read = [f"const codes *at = (const codes *)(panel + s * {width});"]
        for v in range(vectors):
            read.append(f"const ivec c{v} = __builtin_convertvector(at[{v}], ivec);")
            if step == 1:
                read.append(f"const vec w{v}_0 = __builtin_convertvector(c{v}, vec);")
            else:
                read.append(f"const vec w{v}_0 = __builtin_convertvector(c{v} & 15, vec);")
                read.append(f"const vec w{v}_1 = __builtin_convertvector(c{v} >> 4, vec);")
        for e in range(step):
            for i in range(rows):
                sums = " ".join(f"part[{i}][{v}] += f{i}_{e} * w{v}_{e};" for v in range(vectors))
                read.append(f"const float f{i}_{e} = x[{i * self.stride} + s * {step} + {e}]; {sums}")
        lanes = self.panels.lanes
        add = [f"const vec r{v} = *(const vec *)(scales + b * {width} + {v * lanes});" for v in range(vectors)]
        add += [f"acc[{i}][{v}] += part[{i}][{v}] * r{v};" for i in range(rows) for v in range(vectors)]
        if self.problem.shifted:
            add += [f"const vec z{v} = *(const vec *)(shifts + b * {width} + {v * lanes});" for v in range(vectors)]
            total = [f"totals[{i * self.problem.num_blocks} + b]" for i in range(rows)]
            add += [f"acc[{i}][{v}] -= {total[i]} * z{v};" for i in range(rows) for v in range(vectors)]
        moves = f"panel += {steps * width}; x += {length};"
        return [f"vec part[{rows}][{vectors}] = {{0}};", *loop("s", 0, steps, read), *add, moves]

    def epilogue(self) -> list[str]:
        reads, out = self.problem.reads, self.problem.out
        renderer = cexpr.Renderer(reads, [*self._rows(), "n"], ["sums[i][j]"], extents=out.shape)
        statements, value = renderer.render(self.problem.epilogue)
        where = offset([*self._rows(), "n"], out.strides)
        return ["const int64_t n = n0 + j;", *statements, cexpr.store(out, "out", where, value)]

    def _rows(self) -> list[str]:
        """C: the leading coordinates of out, from the flat row m."""
        return digits("m", self.problem.out.shape[:-1])

    def main(self) -> list[str]:
        p, s = self.problem, self.schedule
        body = [
            f"const int64_t group = chunk / {s.panel_chunks}, columns = chunk % {s.panel_chunks};",
            *share("r", "group", p.m, s.groups),
            *share("p", "columns", self.panels.count, s.panel_chunks),
            *self.stage(),
        ]
        for first, count, valid in self._kinds():
            inner = [
                f"const uint8_t *panel = (const uint8_t *)args[1] + p * {self.panels.width * self._steps};",
                *self._blocks("scales", 2), *(self._blocks("shifts", 3) if p.shifted else ["const float *shifts = scales;"]),
                *self._tiles(valid),
            ]  # fmt: skip
            low, high = f"(p0 > {first} ? p0 : {first})", f"(p1 < {first + count} ? p1 : {first + count})"
            body += loop("p", low, high, inner)
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)

    @property
    def _steps(self) -> int:
        """Rows of a packed panel of codes: every block has whole bytes, for blocks are of even length."""
        return -(-self.problem.k // self.pairs)

    def _blocks(self, name: str, arg: int) -> list[str]:
        return [f"const float *{name} = (const float *)args[{arg}] + p * {self.panels.width * self.problem.num_blocks};"]

    def _kinds(self) -> list[tuple[int, int, int]]:
        """(first, count, columns that count) of the full panels, then of the last one."""
        cut = self.panels
        full = [(0, cut.num_full, cut.width)] if cut.num_full else []
        return full + ([(cut.num_full, 1, cut.rest)] if cut.rest else [])

    def _tiles(self, valid: int) -> list[str]:
        """C: all rows of the group for one panel."""
        rows, blocks = self.schedule.rows, self.problem.num_blocks
        place = f"copy + (m - r0) * {self.stride}, totals + (m - r0) * {blocks}, panel, scales, shifts"
        call = f"(args, {place}, m, p * {self.panels.width});"
        heights = self._heights()
        lines = ["int64_t m = r0;"]
        if heights[0] == rows:
            lines.append(f"for (; m + {rows} <= r1; m += {rows}) tile_{rows}x{valid}{call}")
        for height in [h for h in heights if h < rows]:
            lines.append(f"if (r1 - m == {height}) tile_{height}x{valid}{call}")
        return lines

    def stage(self) -> list[str]:
        """C: ``copy``, the rows of x, and ``totals``, the sums of their blocks."""
        p, x = self.problem, self.problem.reads[0]
        element = f"a[{offset([*self._rows(), 'k'], x.strides)}]"
        value = tile.converted(element, x.dtype, p.acc)
        row = f"copy[(m - r0) * {self.stride} + k]"
        lines = vectorized("k", 0, p.k, [f"{row} = {value};"])
        lines += loop("k", p.k, self.stride, [f"{row} = 0;"]) if self.stride > p.k else []
        if p.shifted:
            end = f"(b + 1) * {p.block} < {p.k} ? (b + 1) * {p.block} : {p.k}"
            add = f"for (int64_t k = b * {p.block}; k < end; ++k) total += {row};"
            total = [f"const int64_t end = {end};", "float total = 0;", add]
            lines += loop("b", 0, p.num_blocks, [*total, f"totals[(m - r0) * {p.num_blocks} + b] = total;"])
        return [
            f"const {x.dtype.c} *a = args[0];",
            f"float *restrict copy = scratch, *restrict totals = copy + {self.most_rows * self.stride};",
            *loop("m", "r0", "r1", lines),
        ]


def _joined(codes: np.ndarray, bits: int) -> np.ndarray:
    """[K, N] codes as rows of bytes."""
    if bits == 8:
        return codes.view(np.uint8)
    even = np.pad(codes, ((0, codes.shape[0] % 2), (0, 0)))
    return np.asarray(even[0::2] | even[1::2] << 4, np.uint8)


def in_panels(array: np.ndarray, cut: Panels) -> np.ndarray:
    """[rows, N] as a flat array [panel][rows][width], the last panel as narrow as whole vectors allow."""
    rows, split = array.shape[0], cut.num_full * cut.width
    full = array[:, :split].reshape(rows, cut.num_full, cut.width).swapaxes(0, 1).reshape(-1)
    last = np.pad(array[:, split:], ((0, 0), (0, cut.last_width - cut.rest))).reshape(-1)
    return np.ascontiguousarray(np.concatenate([full, last]))
