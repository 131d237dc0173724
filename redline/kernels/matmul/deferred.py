"""Products on the matrix unit: while a tile's products run, the rows of the tile before go through the epilogue.

    tile(x, panel, now; before, ...)    now = x * panel;  between its steps: rows of ``before`` through the epilogue

The two units work at the same time only if both have something to do within the processor's window of some hundred
instructions, so a tile's steps and the rows of the one before are interleaved here. Sums are held twice; those of a
chunk's last tile go through the epilogue alone. A tile whose rows begin one row early (kernels/amx.py) leaves it out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from redline.kernels import amx, cexpr, narrow
from redline.kernels.ctext import block, offset
from redline.kernels.matmul import gemm as gemms
from redline.kernels.parts import dims
from redline.kernels.tile import Loop

if TYPE_CHECKING:
    from redline.kernels.matmul.c import MatmulKernel


def functions(kernel: "MatmulKernel", width: int, valid: int) -> list[str]:
    """C: the epilogue of some rows, and a tile with that of the tile before."""
    return [*_rows(kernel, width, valid), *_tile(kernel, width, valid)]


def _rows(kernel: "MatmulKernel", width: int, valid: int) -> list[str]:
    """Rows ``first`` to ``last`` of the sums of the tile that begins at m0 and n0."""
    problem, g = kernel.problem, kernel.g
    names = [f"arg{i}" for i in range(len(problem.reads))]
    body = [
        *dims(problem.reads, problem.writes), *cexpr.pointers(problem.reads[2:], names[2:], first=2),
        *cexpr.pointers(problem.writes, ["out"], first=len(names), const=False),
        f"const {kernel.dot.acc.c} (*const sums)[{width}] = held;",
        *narrow.rows(
            "last", valid, kernel.panels.lanes, problem.epilogue, problem.out, kernel.target,
            ["const int64_t m = m0 + i;", *kernel.far(valid)], "const int64_t n = n0 + j;",
            offset([*gemms.batch_texts(g.batch), "m", "n"], g.out), g.out[-1], kernel.render, in_memory=True, first="first",
        ),
    ]  # fmt: skip
    place = "int64_t z, int64_t m0, int64_t n0, int64_t first, int64_t last"
    head = f"static __attribute__((noinline)) void rows_{valid}(void *const *args, const void *held, {place})"
    return block(head, body)


def _tile(kernel: "MatmulKernel", width: int, valid: int) -> list[str]:
    dot, s, tiles = kernel.dot, kernel.schedule, kernel.tiles
    stride = kernel.staged_stride if s.staged else kernel.g.x[-2]
    steps = Loop(dot.steps(kernel.g.k), dot.group, width * dot.group)
    before = "args, before, z, m_before, n_before"
    between = [
        f"const int64_t end = (part + 1) * {kernel.rows.size} / {{}}, row = part * {kernel.rows.size} / {{}};",
        f"if (end > row) rows_{valid}({before}, row > skip_before ? row : skip_before, end);",
    ]
    body = amx.interleaved(
        tiles, width // kernel.panels.lanes, stride, steps, kernel.ahead(width), between, "now", kernel.padded_k,
        kernel.padded_k * width,
    )  # fmt: skip
    parameters = [
        "void *const *args", f"const {dot.x.c} *x", f"const {dot.w.c} *panel", *(["const char *ahead"] if s.prefetch else []),
        f"{dot.acc.c} *now", f"const {dot.acc.c} *before", "int64_t z", "int64_t m_before", "int64_t n_before",
        "int64_t skip_before",
    ]  # fmt: skip
    return block(f"static __attribute__((noinline)) void tile_{valid}({', '.join(parameters)})", body)


def begin(kernel: "MatmulKernel") -> list[str]:
    """C: what a chunk begins with: nothing is held."""
    most = kernel.rows.size * kernel.panels.widest
    return [
        *kernel.tiles.begin, f"{kernel.dot.acc.c} held[2][{most}] __attribute__((aligned(64)));",
        f"int64_t now = 0, m_before = 0, n_before = 0, skip_before = {kernel.rows.size};",
    ]  # fmt: skip


def call(kernel: "MatmulKernel", valid: int) -> list[str]:
    """C: tile ``t`` of panel ``p``."""
    rows, s = kernel.rows, kernel.schedule
    skip = "0" if len(rows.sizes) == 1 else f"(t >= {rows.num_large})"
    x = f"staged + (m0 - m_begin) * {kernel.staged_stride}" if s.staged else f"a + m0 * {kernel.g.x[-2]}"
    ahead = "ahead, " if s.prefetch else ""
    return [
        f"const int64_t skip = {skip}, m0 = {rows.begin('t')} - skip, n0 = p * {kernel.panels.width};",
        f"tile_{valid}(args, {x}, panel, {ahead}held[now], held[now ^ 1], z, m_before, n_before, skip_before);",
        "now ^= 1, m_before = m0, n_before = n0, skip_before = skip;",
    ]


def flush(kernel: "MatmulKernel", valid: int) -> list[str]:
    """C: the epilogue of the tile that is held."""
    size = kernel.rows.size
    return [
        f"if (skip_before < {size}) rows_{valid}(args, held[now ^ 1], z, m_before, n_before, skip_before, {size});",
        f"skip_before = {size};",
    ]


def whole(lines: Sequence[str], kernel: "MatmulKernel") -> list[str]:
    """C: a chunk's walk, with what it begins and ends with."""
    return [*begin(kernel), *lines, amx.END]
