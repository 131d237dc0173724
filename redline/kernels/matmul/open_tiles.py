"""Matrix products whose number of rows is open, on the matrix unit.

The rows m of a call are cut into t = ceil(m / most) tiles of nearly the same height, as for the vector unit (open_rows.py); the
shapes of the tile registers are set from that height, so there is one function for tiles of one band and one for two.
"""

from dataclasses import dataclass

from redline.kernels import amx, cexpr, narrow
from redline.kernels.ctext import block, offset
from redline.kernels.dot import groups_at_once
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.open_rows import OpenKernel
from redline.kernels.parts import dims
from redline.kernels.tile import Loop

ONE, TWO = 1, 2  # bands


@dataclass(frozen=True)
class OpenTiledKernel(OpenKernel):
    def text(self) -> str:
        lines = self.dot.types(self.vectors)
        for width, valid in self.panels.kinds():
            for bands in self.bands:
                lines += self.banded_tile(bands, width, valid)
        return "\n".join([*lines, *self.main(), ""])

    @property
    def bands(self) -> tuple[int, ...]:
        return (ONE,) if self.schedule.rows <= amx.ROWS else (ONE, TWO)

    @property
    def groups_at_once(self) -> int:
        return groups_at_once(self.dot.steps(self.g.k))

    @property
    def tiles(self) -> amx.Tiles:
        heights = ("first",) if TWO not in self.bands else ("first", "(second ? second : 1)")
        return amx.Tiles(heights, self.panels.widest // self.panels.lanes, self.groups_at_once, self.dot)

    def banded_tile(self, bands: int, width: int, valid: int) -> list[str]:
        """The function of a tile of so many bands, ``first`` rows in the first; ``rows`` of its rows count, the last ones."""
        reads, row_step = self.problem.reads, self.g.x[-2]
        places = [amx.Band(0, 0), amx.Band(f"first * {row_step}", "first")][:bands]
        steps = Loop(self.dot.steps(self.g.k), self.dot.group, width * self.dot.group)
        body = dims(reads, self.problem.writes)
        body += amx.sums(
            self.tiles, width // self.panels.lanes, places, row_step, bands * amx.ROWS, [steps], self.ahead(width), "skipped"
        )
        body += cexpr.pointers(reads[2:], [f"arg{i}" for i in range(2, len(reads))], first=2)
        body += cexpr.pointers(self.problem.writes, ["out"], first=len(reads), const=False)
        body += narrow.rows(
            "rows", valid, self.panels.lanes, self.problem.epilogue, self.problem.out, self.target,
            ["const int64_t m = m0 + i;"], "const int64_t n = n0 + j;",
            offset([*gemms.batch_texts(self.g.batch), "m", "n"], self.g.out), self.g.out[-1], self.render,
        )  # fmt: skip
        counts = "int64_t first, int64_t skipped, int64_t rows, "
        return block(f"static __attribute__((noinline)) void tile_{bands}x{valid}({counts}{self.operands})", body)

    def prologue(self) -> list[str]:
        """C: the bands of the call's tiles, and the registers' shapes."""
        if TWO not in self.bands:
            return ["const int64_t first = height;", *self.tiles.begin]
        split = f"const int64_t second = height > {amx.ROWS} ? height / 2 : 0, first = height - second;"
        return [split, *self.tiles.begin]

    def epilogue(self) -> list[str]:
        return [amx.END]

    def column_of_tiles(self, width: int, valid: int) -> list[str]:
        ahead = self.ahead(width)
        passed = f"args, a + m0 * {self.g.x[-2]}, panel{f', {ahead.PASSED}' if ahead else ''}, z, m0, p * {self.panels.width}"
        call = f"x{valid}(first, height - rows, rows, {passed});"
        one, two = f"tile_{ONE}{call}", f"tile_{TWO}{call}"
        lines = [
            "const int64_t m0 = t * (height - 1) + (t < num_large ? t : num_large);",
            "const int64_t rows = t < num_large ? height : height - 1;",
            f"if (second) {two} else {one}" if TWO in self.bands else one,
            *([ahead.advance] if ahead else []),
        ]
        return block("for (int64_t t = t0; t < t1; ++t)", lines)
