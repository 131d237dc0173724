"""Depthwise convolutions in C.

A chunk is (image, depth, band of rows, range of channel vectors). A tile is some neighbouring columns of a row: for each row of
taps every input vector is loaded once and multiplied into the sums of all the columns that it reaches. Tiles at the left
and right borders leave out the taps that fall outside, rows of taps above and below are skipped, so nothing is copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redline.base.dtypes import DType, bfloat16, float32
from redline.base.shapes import StaticShape, size
from redline.kernels import cexpr, start, tile
from redline.kernels.conv import geometry
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.staging import Stage
from redline.kernels.ctext import block, loop, offset, share, unrolled, vector_loop
from redline.kernels.depthwise.problem import Problem
from redline.kernels.depthwise.schedule import Schedule, is_legal
from redline.kernels.dot import Dot
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, KernelCode, Packing, nothing
from redline.kernels.start import Start
from redline.kernels.tile import Split

EXACT_TAPS = 512  # so many products of 8-bit numbers add up to less than 2^24
HEAD = "void KERNEL(void *const *args, void *scratch, int64_t chunk)"


def render(problem: Problem, schedule: Schedule, target: CpuTarget, kind: "type[DepthwiseKernel] | None" = None) -> KernelCode:
    """The kernel for ``problem``, of a ``kind``; ``schedule`` must be legal for it."""
    if not size(problem.out.shape):
        return nothing("depthwise")
    assert is_legal(problem, schedule, target), f"{schedule} does not fit {problem}"
    return code((kind or DepthwiseKernel)(problem, schedule, target))


def code(kernel: "DepthwiseKernel") -> KernelCode:
    text = kernel.text()
    packings = {1: kernel.packing()} if kernel.problem.w.constant else {}
    return KernelCode("depthwise", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, packings)


@dataclass(frozen=True)
class Border:
    """A kind of tile: its columns, for each row of taps the (column, tap) pairs that fall outside the input, and its rows."""

    columns: int
    outside: frozenset[tuple[int, int]]
    rows: int = 1


@dataclass(frozen=True)
class DepthwiseKernel:
    problem: Problem
    schedule: Schedule
    target: CpuTarget

    @cached_property
    def g(self) -> Geometry:
        """The convolution as one group in which every channel stands for itself."""
        found = geometry.of(self.problem)
        return Geometry(**{**vars(found), "channels": self.problem.groups, "filters": self.problem.groups, "groups": 1})

    @property
    def lanes(self) -> int:
        return tile.lanes(self.held, self.target)

    @property
    def held(self) -> DType:
        """The type of the sums: float32 for 8-bit numbers too, which multiplies faster and is exact that far."""
        exact = self.problem.x.dtype.size == 1 and size(self.g.taps) <= EXACT_TAPS
        return float32 if exact else self.problem.acc

    @cached_property
    def start(self) -> Start:
        """What the sums begin with."""
        p = self.problem
        found = start.of(p.epilogue, p.reads, len(p.out.shape) - 1) if p.acc == float32 else None
        return found or Start(None, p.epilogue)

    @property
    def type(self) -> str:
        return self.held.c

    @cached_property
    def stage(self) -> Stage | None:
        rows = -(-self.g.out_size[1] // self.schedule.bands)
        return Stage.of(self.g, rows, self.problem, Dot("", self.held, self.held, self.held)) if self.schedule.staged else None

    @property
    def x_type(self) -> DType:
        """The type of x as the tiles read it."""
        return self.held if self.schedule.staged else self.problem.x.dtype

    @property
    def x_strides(self) -> StaticShape:
        """Of x as the tiles read it: (depth tap or depth, height, width)."""
        return self.stage.strides[:3] if self.stage else self.g.x_strides[1:4]

    @property
    def chunk_extents(self) -> StaticShape:
        return (self.g.batch, self.g.out_size[0], self.schedule.bands, self.schedule.channel_chunks)

    @property
    def num_chunks(self) -> int:
        return size(self.chunk_extents)

    @property
    def staged_bytes(self) -> int:
        return self.stage.num_bytes if self.stage else 0

    @property
    def scratch_bytes(self) -> int:
        packed = 0 if self.problem.w.constant else size(self.g.taps) * self.g.channels
        return self.staged_bytes + packed * self.held.size

    def packing(self) -> Packing:
        def apply(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array.reshape(array.shape[0], -1).T).astype(self.held.numpy).reshape(-1)

        return Packing(f"taps-channels-{self.held.name}", apply)

    def tiles(self) -> list[tuple[int, Border]]:
        """(first column, kind) of every tile of a row."""
        g, columns = self.g, Split.of_at_most(self.g.out_size[2], self.schedule.columns)
        found, begin = [], 0
        for i in range(columns.count):
            count = columns.size if i < columns.num_large else columns.size - 1
            found.append((begin, Border(count, frozenset() if self.stage else frozenset(self._outside(begin, count)))))
            begin += count
        assert begin == g.out_size[2]
        return found

    def _outside(self, begin: int, count: int) -> Iterator[tuple[int, int]]:
        g = self.g
        for column in range(count):
            for tap in range(g.taps[2]):
                if not 0 <= (begin + column) * g.step[2] + tap * g.dilation[2] - g.pad[2] < g.size[2]:
                    yield column, tap

    def vector_widths(self) -> list[int]:
        """Full vectors first, then the halves, quarters, ... that the remaining channels need."""
        rest = self.g.channels % self.lanes
        return [self.lanes, *(width for width in (32, 16, 8, 4, 2, 1) if width < self.lanes and rest & width)]

    def text(self) -> str:
        return "\n".join([*self.functions(), *self.main(), ""])

    @cached_property
    def borders(self) -> list[Border]:
        """The kinds of tiles of a row; the function of number i is called tile<i>."""
        return list(dict.fromkeys(border for _, border in self.tiles()))

    def functions(self) -> list[str]:
        """C: the tiles, and the types that they compute with."""
        element = self.held.size
        lines = [
            f"typedef {self.type} vec{width} __attribute__((vector_size({width * element}), aligned({element})));"
            for width in self.vector_widths()
        ]
        lines += [line for width in self.vector_widths() for line in self.load_types(width)]
        for number, border in enumerate(self.borders):
            lines += self.tile(f"tile{number}", border)
        return lines

    def load_types(self, width: int) -> list[str]:
        """C: the vectors in which x is read, where it is converted in registers."""
        x = self.x_type
        if x == self.held:
            return []
        wide = f"typedef uint32_t bits{width} __attribute__((vector_size({width * 4})));"
        narrow = f"typedef {x.c} in{width} __attribute__((vector_size({width * x.size}), aligned({x.size})));"
        return [narrow, wide] if x == bfloat16 else [narrow]

    def load(self, address: str, width: int) -> str:
        """C: ``width`` elements of x as a vector of the sums' type."""
        x, vec = self.x_type, f"vec{width}"
        if x == self.held:
            return f"*(const {vec} *)({address})"
        if x == bfloat16:
            return f"({vec})(__builtin_convertvector(*(const in{width} *)({address}), bits{width}) << 16)"
        return f"__builtin_convertvector(*(const in{width} *)({address}), {vec})"

    def tile(self, name: str, border: Border) -> list[str]:
        """The function that computes the columns of a tile for a range of channel vectors, and stores them."""
        reads = self.problem.reads
        body = dims(reads, self.problem.writes)
        body += cexpr.pointers(reads[2:], [f"arg{i}" for i in range(2, len(reads))], first=2)
        body += cexpr.pointers(self.problem.writes, ["out"], first=len(reads), const=False)
        full = self.g.channels - self.g.channels % self.lanes
        if full:
            body += loop("v", "v0", f"(v1 < {full // self.lanes} ? v1 : {full // self.lanes})", [
                f"const int64_t m0 = v * {self.lanes};", *self.vector(border, self.lanes)
            ])  # fmt: skip
        rest, begin = [], full
        for width in self.vector_widths()[1:]:
            rest += block("", [f"const int64_t m0 = {begin};", *self.vector(border, width)])
            begin += width
        body += block(f"if (v1 > {full // self.lanes})", rest) if rest else []
        head = f"static __attribute__((noinline)) void {name}(void *const *args, "
        operands = f"const {self.x_type.c} *x, const {self.type} *taps, "
        return block(f"{head}{operands}int64_t n, int64_t d, int64_t h, int64_t w0, int64_t v0, int64_t v1)", body)

    def vector(self, border: Border, width: int) -> list[str]:
        """C: the sums of ``width`` channels from m0 on, and their epilogue."""
        count = border.rows * border.columns
        lines = [*self.sums(border, width), *self.products(border, width)]
        lines += self._ask(border) if self.schedule.ahead else []
        lines.append(f"{self.type} sums[{count}][{width}] __attribute__((aligned(64)));")
        lines += self.spill(border, width)
        place = ["const int64_t w = w0 + i;"]
        if border.rows > 1:
            lines.append("const int64_t top = h;")
            place = [f"const int64_t h = top + i / {border.columns}, w = w0 + i % {border.columns};"]
        inner = [*place, *vector_loop(width, min(width, tile.lanes(self.held, self.target)), self.epilogue())]
        return [*lines, *unrolled("i", 0, count, inner)]

    def products(self, border: Border, width: int) -> list[str]:
        """C: a row of taps after the other."""
        g = self.g
        depth_step, height_step, _ = self.x_strides
        row_taps = g.taps[2] * g.channels
        inside, position = [], []
        if not self.stage:
            position.append(f"const int64_t z = d * {g.step[0]} - {g.pad[0]} + kd * {g.dilation[0]};")
            position.append(f"const int64_t y = h * {g.step[1]} - {g.pad[1]} + kh * {g.dilation[1]};")
            inside = [f"if ({name} < 0 || {name} >= {g.size[axis]}) continue;" for axis, name in ((0, "z"), (1, "y"))]
            inside = [line for axis, line in enumerate(inside) if g.leaves(axis)]
            row = f"x + z * {depth_step} + y * {height_step} + m0"
        else:
            row = f"x + kd * {depth_step} + (h * {g.step[1]} + kh * {g.dilation[1]}) * {height_step} + m0"
        body = [*position, *inside, f"const {self.x_type.c} *row = {row};"]
        body.append(f"const {self.type} *weights = taps + (kd * {g.taps[1]} + kh) * {row_taps} + m0;")
        body += self.row_of_taps(border, width)
        return loop("kd", 0, g.taps[0], loop("kh", 0, g.taps[1], body))

    def sums(self, border: Border, width: int) -> list[str]:
        """C: the sums, at their beginning."""
        count, vec = border.rows * border.columns, f"vec{width}"
        if self.start.operand is None:
            return [f"{vec} acc[{count}] = {{0}};"]
        load = f"for (int64_t i = 0; i < {count}; ++i) acc[i] = *(const {vec} *)(arg{self.start.operand} + m0);"
        return [f"{vec} acc[{count}];", load]

    def spill(self, border: Border, width: int) -> list[str]:
        """C: the sums into the array that the epilogue reads."""
        return [f"for (int64_t i = 0; i < {border.rows * border.columns}; ++i) *(vec{width} *)sums[i] = acc[i];"]

    def _ask(self, border: Border) -> list[str]:
        """C: asks for what the next rows of outputs read that this one does not, into the second-level cache."""
        g, (_, height_step, pixel) = self.g, self.x_strides
        first = g.span(1, border.rows) - g.pad[1]
        lines = [f"const {self.x_type.c} *next = x + (h * {g.step[1]} + {first}) * {height_step} + m0;"]
        for row in range(border.rows * g.step[1]):
            for column in range(border.columns * g.step[2]):
                lines.append(f"__builtin_prefetch(next + {row * height_step + column * pixel}, 0, 2);")
        return lines

    def row_of_taps(self, border: Border, width: int) -> list[str]:
        """C: the products of a row of taps, from ``row`` and ``weights``."""
        vec, pairs = f"vec{width}", self.reached(border)
        taps = sorted({tap for found in pairs.values() for _, tap in found})
        lines = [f"const {vec} t{tap} = *(const {vec} *)(weights + {tap * self.g.channels});" for tap in taps]
        for place, found in pairs.items():
            sums = " ".join(f"acc[{column}] += value * t{tap};" for column, tap in found)
            lines.append(f"{{ const {vec} value = {self.load(f'row + {place}', width)}; {sums} }}")
        return lines

    def reached(self, border: Border) -> dict[int, list[tuple[int, int]]]:
        """For each pixel of a row, by its offset in elements: the (column, tap) pairs that it is multiplied for."""
        g, pixel = self.g, self.x_strides[2]
        left = 0 if self.stage else g.pad[2]
        pairs: dict[int, list[tuple[int, int]]] = {}
        for column in range(border.columns):
            for tap in range(g.taps[2]):
                if (column, tap) not in border.outside:
                    pairs.setdefault((column * g.step[2] + tap * g.dilation[2] - left) * pixel, []).append((column, tap))
        return dict(sorted(pairs.items()))

    def epilogue(self) -> list[str]:
        reads, out = self.problem.reads, self.problem.out
        renderer = cexpr.Renderer(reads, self.g.coordinates, [f"({self.problem.acc.c})sums[i][j]"], extents=out.shape)
        statements, value = renderer.render(self.start.epilogue)
        where = offset(["n", "d", "h", "w", "m"], self.g.out_strides)
        return ["const int64_t m = m0 + j;", *statements, cexpr.store(out, "out", where, value)]

    def main(self) -> list[str]:
        g, s, x = self.g, self.schedule, self.problem.x
        body, part = [], "chunk"
        for name, extent in reversed(list(zip(("n", "d", "band", "part"), self.chunk_extents, strict=True))):
            body.append(f"const int64_t {name} = {f'{part} % {extent}' if extent > 1 else 0};")
            part = f"{part} / {extent}" if extent > 1 else part
        vectors = -(-g.channels // self.lanes)
        body += [*share("h_", "band", g.out_size[1], s.bands, ("begin", "end")), *share("v", "part", vectors, s.channel_chunks)]
        body.append(f"const {x.dtype.c} *x = (const {x.dtype.c} *)args[0] + {offset(['n'], [g.x_strides[0]])};")
        body += self.stage.copy() if self.stage else []
        body += self.weights()
        return block(HEAD, [*body, *self.walk("args", "d")])

    def walk(self, args: str, depth: str) -> list[str]:
        """C: the rows h_begin to h_end; ``args`` and ``depth`` name the operands and the coordinate d."""
        return loop("h", "h_begin", "h_end", self.row(args, depth))

    def row(self, args: str, depth: str, prefix: str = "tile") -> list[str]:
        """C: the tiles that begin in row ``h``."""
        base = f"staged - h_begin * {self.g.step[1]} * {self.x_strides[1]}" if self.stage else "x"
        where = offset(["w0"], [self.g.step[2] * self.x_strides[2]])
        lines = []
        for begin, end, border in self._runs():
            call = f"{prefix}{self.borders.index(border)}({args}, {base} + {where}, taps, n, {depth}, h, w0, v0, v1);"
            lines += block(f"for (int64_t w0 = {begin}; w0 < {end}; w0 += {border.columns})", [call])
        return lines

    def _runs(self) -> list[tuple[int, int, Border]]:
        """Neighbouring tiles of one kind together: (first column, end column, kind)."""
        runs: list[tuple[int, int, Border]] = []
        for begin, border in self.tiles():
            if runs and runs[-1][2] == border:
                runs[-1] = (runs[-1][0], begin + border.columns, border)
            else:
                runs.append((begin, begin + border.columns, border))
        return runs

    def weights(self) -> list[str]:
        """C: ``taps``, the weights [tap][channel]; packed into scratch when they are only known at run time."""
        w, g = self.problem.w, self.g
        if w.constant:
            return [f"const {self.type} *taps = args[1];"]
        names = ["kd", "kh", "kw"]
        rank = len(w.shape) - 2
        source = offset(["c", *names[3 - rank :]], [w.strides[0], *w.strides[2:]])
        value = cexpr.cast_text(cexpr.from_storage(w.dtype, f"source[{source}]"), w.dtype, self.held)
        target = f"packed[((kd * {g.taps[1]} + kh) * {g.taps[2]} + kw) * {g.channels} + c]"
        lines = loop("c", 0, g.channels, [f"{target} = {value};"])
        for name, extent in reversed(list(zip(names, g.taps, strict=True))):
            lines = loop(name, 0, extent, lines)
        return [
            f"{self.type} *restrict packed = ({self.type} *)((char *)scratch + {self.staged_bytes});",
            f"const {w.dtype.c} *restrict source = args[1];",
            *lines,
            f"const {self.type} *taps = packed;",
        ]
