"""Products on the matrix unit: while a tile's products run, the rows of the tile before go through the epilogue.

    tile(x, panel, now; before, ...)    now = x * panel;  between its steps: rows of ``before`` through the epilogue

The two units work at the same time only if both have something to do within the processor's window of some hundred
instructions, so a tile's steps and the rows of the one before are interleaved here. Sums are held twice; those of a
chunk's last tile go through the epilogue alone. A tile whose rows begin one row early (kernels/amx.py) leaves it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.kernels import amx, cexpr, narrow
from redline.kernels.ctext import block, offset
from redline.kernels.dot import groups_at_once
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.c import FEW_PANELS, MatmulKernel
from redline.kernels.parts import dims
from redline.kernels.tile import CACHE_LINE, Loop

FAR_SHARE = 0.5  # of the threads' own caches: more than this does not stay there from one kernel to the next


@dataclass(frozen=True)
class DeferredKernel(MatmulKernel):
    @property
    def spare_rows(self) -> int:
        return int(len(self.rows.sizes) > 1)

    @property
    def groups_at_once(self) -> int:
        return groups_at_once(self.dot.steps(self.g.k))

    @property
    def tiles(self) -> amx.Tiles:
        """The registers of the matrix unit."""
        bands = amx.bands_of(self.rows.size)
        heights = tuple(map(bands.of, range(bands.count)))
        return amx.Tiles(heights, self.panels.widest // self.panels.lanes, self.groups_at_once, self.dot)

    def row_kinds(self) -> Sequence[tuple[int, int]]:
        """All tiles are of one height: a shorter one begins a row early."""
        return [(self.rows.size, self.rows.count)]

    def functions(self, width: int, valid: int) -> list[str]:
        """C: the epilogue of some rows, and a tile with that of the tile before."""
        return [*self.finish(width, valid), *self.multiply(width, valid)]

    def finish(self, width: int, valid: int) -> list[str]:
        """Rows ``first`` to ``last`` of the sums of the tile that begins at m0 and n0."""
        problem, g = self.problem, self.g
        names = [f"arg{i}" for i in range(len(problem.reads))]
        body = [
            *dims(problem.reads, problem.writes), *cexpr.pointers(problem.reads[2:], names[2:], first=2),
            *cexpr.pointers(problem.writes, ["out"], first=len(names), const=False),
            f"const {self.dot.acc.c} (*const sums)[{width}] = held;",
            *narrow.rows(
                "last", valid, self.panels.lanes, problem.epilogue, problem.out, self.target,
                ["const int64_t m = m0 + i;", *self.far(valid)], "const int64_t n = n0 + j;",
                offset([*gemms.batch_texts(g.batch), "m", "n"], g.out), g.out[-1], self.render, in_memory=True, first="first",
            ),
        ]  # fmt: skip
        place = "int64_t z, int64_t m0, int64_t n0, int64_t first, int64_t last"
        head = f"static __attribute__((noinline)) void rows_{valid}(void *const *args, const void *held, {place})"
        return block(head, body)

    def far(self, valid: int) -> list[str]:
        """C: asks for what the next tile writes of row i, where that comes from beyond the thread's own cache.

        The processor's own reading ahead ends with a page, which is about what a tile of the matrix unit reads.
        """
        g, (a, out) = self.g, (self.problem.a, self.problem.out)
        near = a.num_bytes + out.num_bytes <= FAR_SHARE * self.target.l2_bytes * self.target.num_threads
        many = self.panels.count > FEW_PANELS  # what is asked for would be gone again before it is written
        narrow_rows = g.n * out.dtype.size < 2 * CACHE_LINE  # a tile's rows are then a few lines side by side
        if near or many or narrow_rows or self.schedule.swapped or g.out[-1] != 1:
            return []
        row = offset([*gemms.batch_texts(g.batch), f"(m + {self.rows.size})", "n0"], g.out)
        lines = range(0, valid, CACHE_LINE // out.dtype.size)
        return [f'__asm__("prefetchw %0" : : "m"(*(const char *)(out + {row} + {at})));' for at in lines]

    def multiply(self, width: int, valid: int) -> list[str]:
        """The sums of a tile; between its steps, rows of the tile before are finished."""
        dot, rows = self.dot, self.rows.size
        stride = self.staged_stride if self.schedule.staged else self.g.x[-2]
        steps = Loop(dot.steps(self.g.k), dot.group, width * dot.group)
        before = "args, before, z, m_before, n_before"
        between = [
            f"const int64_t end = (part + 1) * {rows} / {{}}, row = part * {rows} / {{}};",
            f"if (end > row) rows_{valid}({before}, row > skip_before ? row : skip_before, end);",
        ]
        body = amx.interleaved(
            self.tiles, width // self.panels.lanes, stride, steps, self.ahead(width), between, "now", self.padded_k,
            self.padded_k * width,
        )  # fmt: skip
        parameters = [
            "void *const *args", f"const {dot.x.c} *x", f"const {dot.w.c} *panel",
            *([self.AHEAD.DECLARED] if self.schedule.prefetch else []), f"{dot.acc.c} *now", f"const {dot.acc.c} *before",
            "int64_t z", "int64_t m_before", "int64_t n_before", "int64_t skip_before",
        ]  # fmt: skip
        return block(f"static __attribute__((noinline)) void tile_{valid}({', '.join(parameters)})", body)

    def walk(self) -> list[str]:
        """C: the tiles of a chunk; nothing is held at its beginning."""
        most = self.rows.size * self.panels.widest
        begin = [
            *self.tiles.begin, f"{self.dot.acc.c} held[2][{most}] __attribute__((aligned(64)));",
            f"int64_t now = 0, m_before = 0, n_before = 0, skip_before = {self.rows.size};",
        ]  # fmt: skip
        return [*begin, *super().walk(), amx.END]

    def call(self, rows: int, valid: int) -> list[str]:
        skip = "0" if len(self.rows.sizes) == 1 else f"(t >= {self.rows.num_large})"
        x = f"staged + (m0 - m_begin) * {self.staged_stride}" if self.schedule.staged else f"a + m0 * {self.g.x[-2]}"
        ahead = "ahead, " if self.schedule.prefetch else ""
        return [
            f"const int64_t skip = {skip}, m0 = {self.rows.begin('t')} - skip, n0 = p * {self.panels.width};",
            f"tile_{valid}(args, {x}, panel, {ahead}held[now], held[now ^ 1], z, m_before, n_before, skip_before);",
            "now ^= 1, m_before = m0, n_before = n0, skip_before = skip;",
        ]

    def flush(self, valid: int) -> list[str]:
        """C: the epilogue of the tile that is held."""
        size = self.rows.size
        return [
            f"if (skip_before < {size}) rows_{valid}(args, held[now ^ 1], z, m_before, n_before, skip_before, {size});",
            f"skip_before = {size};",
        ]
