"""Matrix products: the choice of the kernel; and the ways to compute one whose number of rows is open.

c.py and open_rows.py are for the vector unit, deferred.py and open_tiles.py for the matrix unit.
"""

from collections.abc import Sequence

from redline.base.errors import BuildError
from redline.base.extents import is_open
from redline.base.shapes import size
from redline.kernels import tile
from redline.kernels.matmul import c, schedule
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.c import MatmulKernel
from redline.kernels.matmul.deferred import DeferredKernel
from redline.kernels.matmul.open_rows import OpenKernel, OpenSchedule
from redline.kernels.matmul.open_tiles import OpenTiledKernel
from redline.kernels.matmul.problem import Problem
from redline.kernels.matmul.schedule import Schedule
from redline.kernels.parts import any_open
from redline.kernels.problem import CpuTarget, KernelCode

ROWS_PER_CHUNK = (96, 192)
WIDTHS = (2, 4, 3)  # vectors of a tile; those of two reach the tallest, so few rows read the weights once
TILED = ((32, 2), (16, 4))  # rows and vectors of a tile on the matrix unit
PANEL_CHUNKS_PER_THREAD = 4


def render(problem: Problem, chosen: Schedule | OpenSchedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``, whether its rows are open or not."""
    if isinstance(chosen, Schedule):
        return _closed(problem, chosen, target)
    closed = Schedule(chosen.rows, chosen.vectors, 1, chosen.panel_chunks, prefetch=chosen.prefetch, dot=chosen.dot)
    kernel = OpenTiledKernel if schedule.way(problem, closed).tiled else OpenKernel
    return c.code(kernel(problem, closed, target, chosen.chunk_rows))


def _closed(problem: Problem, chosen: Schedule, target: CpuTarget) -> KernelCode:
    """The kernel for fixed shapes; ``chosen`` must be legal for them."""
    if not size(problem.out.shape):
        return KernelCode("matmul", "#include <stdint.h>\nvoid KERNEL(void *const *args, void *scratch, int64_t chunk) {}\n", 0)
    assert schedule.is_legal(problem, chosen, target), f"{chosen} does not fit {problem}"
    kernel = DeferredKernel if schedule.way(problem, chosen).tiled else MatmulKernel
    return c.code(kernel(problem, chosen, target))


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule | OpenSchedule]:
    """The candidates, the best guess first; raises BuildError where something else than rows and addresses is open."""
    if not any_open(problem.reads, problem.writes):
        return schedule.schedules(problem, target)
    g, ways = gemms.of(problem), schedule.dots(problem, False, target)
    best = next((way for way in ways if not schedule.must_stage(g, way)), ways[0])
    if schedule.must_stage(g, best):
        seen = f"a product of {g.reads[g.x_arg].dtype.name} with open rows, which {target.name} multiplies as {best.x.name}"
        raise BuildError("matmul", seen, "float32; bfloat16 where the processor multiplies it", "build with --precision fp32")
    if any(map(is_open, (g.n, g.k, g.x[-1], g.out[-1], *g.w, *g.batch))) or problem.acc.size != 4 or not g.w_constant:
        seen = f"a product of {g.num_batches} x [{g.m}, {g.k}] x [{g.k}, {g.n}]"
        raise BuildError(
            "matmul", seen, "only the rows of a product with constant weights may be open", "fix more with --shapes"
        )
    lanes = tile.lanes(problem.acc, target)
    is_large = g.reads[g.w_arg].num_bytes > schedule.LARGE_BYTES
    widest = min(-(-g.n // lanes), 4)
    shapes = TILED if best.tiled else [(0, vectors) for vectors in WIDTHS]
    found: dict[OpenSchedule, None] = {}
    for rows, most_vectors in shapes:
        vectors = min(widest, most_vectors)
        for chunk_rows in ROWS_PER_CHUNK:
            panels = -(-g.n // (vectors * lanes))
            cuts = min(panels, PANEL_CHUNKS_PER_THREAD * target.num_threads) if target.num_threads > 1 else 1
            for prefetch in (True,) if is_large else (True, False):
                height = rows if best.tiled else tile.tallest(vectors, target)
                found[OpenSchedule(height, vectors, chunk_rows, cuts, prefetch, best.name)] = None
    return list(found)
