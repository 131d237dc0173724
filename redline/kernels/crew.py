"""Products by crews of warp groups (crew.h): the schedule, what is legal, what is worth trying, and the text.

One warp group asks the copy engine for tiles, two or three others multiply 64 rows and more each; programs walk from tile
to tile. Written as CUDA C, because Triton knows no tile of 192 columns, no third warp group and no shared fetch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from redline.kernels import hopper
from redline.kernels.crew_epilogue import HALVES, HELPERS, POINTERS, Reading, value_text
from redline.kernels.expr import Expr
from redline.kernels.gemm_schedule import Size
from redline.kernels.gpu import GpuTarget
from redline.kernels.problem import Operand

DEPTH = 64  # of a step
FEWEST = 0.3  # of the processors must have a tile
ARCH = 90
REGISTERS = {1: (24, 240), 2: (40, 232), 3: (32, 160)}  # of the producer's and the consumers' threads


@dataclass(frozen=True)
class Crew:
    """``consumers`` warp groups of ``blocks`` times 64 rows, tiles of ``block_n`` columns, ``num_stages`` of loads under way.

    ``cluster``: processors that share a fetch, (2, 1) that of b for two tiles below each other, (1, 2) of a for two beside.
    """

    consumers: int
    blocks: int
    block_n: int
    num_stages: int
    cluster: tuple[int, int] = (1, 1)

    @property
    def block_m(self) -> int:
        return 64 * self.blocks * self.consumers

    @property
    def num_warps(self) -> int:
        return 4 * (self.consumers + 1)

    @property
    def shared_bytes(self) -> int:
        stages = self.num_stages * (self.block_m + self.block_n) * DEPTH * 2
        return 1024 + stages + 4 * self.consumers * 2048 + 16 * self.num_stages


@dataclass(frozen=True)
class Product:
    """What a crew's kernel is of: the operands are those of the problem, ``reads[0]`` is a and ``reads[1]`` b."""

    size: Size
    reads: Sequence[Operand]
    out: Operand
    epilogue: Expr
    how: Reading


def tiles(size: Size, s: Crew) -> tuple[int, int]:
    return -(-size.rows // s.block_m), -(-size.columns // s.block_n)


def is_legal(size: Size, s: Crew, target: GpuTarget) -> bool:
    down, across = tiles(size, s)
    even = down % s.cluster[0] == 0 and across % s.cluster[1] == 0
    registers = s.blocks * s.block_n // 2 <= (96 if s.consumers == 3 else 192)  # one instruction has those at the entry
    return even and registers and size.columns % s.block_n == 0 and s.shared_bytes <= target.shared_bytes


def candidates(size: Size, target: GpuTarget) -> list[Crew]:
    """The legal crews, the cheapest by ``cost`` first."""
    if size.batch > 1 or size.element_bytes != 2 or target.arch != ARCH or target.plain:
        return []
    fewest = FEWEST * target.processors
    found = [s for s in _all() if is_legal(size, s, target) and tiles(size, s)[0] * tiles(size, s)[1] >= fewest]
    return sorted(found, key=lambda s: cost(size, s, target))


def _all() -> Iterator[Crew]:
    for consumers, blocks in ((3, 1), (2, 1), (2, 2)):
        for n in (256, 192, 128):
            for cluster in ((1, 1), (1, 2), (2, 1)):
                stages = 227 * 1024 // ((64 * blocks * consumers + n) * DEPTH * 2)
                for few in range(min(stages, 6), 2, -1):
                    s = Crew(consumers, blocks, n, few, cluster)
                    if s.shared_bytes <= 227 * 1024:
                        yield s
                        break


def cost(size: Size, s: Crew, target: GpuTarget) -> float:
    """Cycles, roughly."""
    down, across = tiles(size, s)
    rounds = -(-down * across // target.processors)
    math = s.block_m * s.block_n * DEPTH / 2048
    load = (s.block_m / s.cluster[1] + s.block_n / s.cluster[0]) * DEPTH * 2 / 34
    end = s.block_m * s.block_n / 9
    return 2500 + rounds * (size.steps_of(DEPTH) * max(math, load) + end)


def render(p: Product, s: Crew, target: GpuTarget) -> str:
    """The text of KERNEL."""
    half, down_across = HALVES[p.reads[0].dtype.name], tiles(p.size, s)
    few, many = REGISTERS[s.consumers]
    constants = {
        "ROWS": p.size.rows, "COLUMNS": p.size.columns, "STEPS": p.size.steps_of(DEPTH), "CONSUMERS": s.consumers,
        "BLOCKS": s.blocks, "TILE_N": s.block_n, "STAGES": s.num_stages, "CLUSTER_M": s.cluster[0], "CLUSTER_N": s.cluster[1],
        "CLUSTER": s.cluster[0] * s.cluster[1],
        "TILES_M": down_across[0], "TILES_N": down_across[1], "PRODUCER_REGISTERS": few, "CONSUMER_REGISTERS": many,
        "HAS_ELEMENTS": int(p.how.elements is not None), "WAIT_FOR_THE_KERNEL_IN_FRONT": wait(target),
    }  # fmt: skip
    head = "".join(f"#define {name} {value}\n" for name, value in constants.items())
    common, body = (resources.files(__package__).joinpath(name).read_text() for name in ("hopper.h", "crew.h"))
    value = value_text(p.epilogue, p.reads, p.out, p.how)
    return "\n".join(
        [
            head,
            common,
            _params(p),
            HELPERS,
            value,
            hopper.multiply("multiply", s.block_n, half),
            hopper.finish("wait_for_product", s.block_n),
            body,
            _kernel(p, s),
        ]
    )


def wait(target: GpuTarget) -> str:
    """The statements that stand before the first read of what an earlier kernel wrote."""
    if not target.overlap:
        return ""
    start, end = 'asm volatile("griddepcontrol.launch_dependents;");', 'asm volatile("griddepcontrol.wait;" ::: "memory");'
    return f"{start} {end}" if target.eager else f"{end} {start}"


def _params(p: Product) -> str:
    columns = "".join(f"  {POINTERS[p.reads[i].dtype.name]}__restrict__ arg{i};\n" for i in sorted(p.how.columns))
    return f"struct Params {{\n{columns}  const void *elements;\n  void *out;\n}};\n"


def _kernel(p: Product, s: Crew) -> str:
    """Parameters as every kernel has them: a tensor map is followed by its extents and strides, all by two scratch pointers."""
    rest = "int, int, long long, long long"
    reads = [f"const __grid_constant__ Map a, {rest}", f"const __grid_constant__ Map b, {rest}"]
    reads += [f"const void *arg{i}" for i in range(2, len(p.reads))]
    sets = "".join(f"  p.arg{i} = ({POINTERS[p.reads[i].dtype.name]})arg{i};\n" for i in sorted(p.how.columns))
    elements = "0" if p.how.elements is None else f"arg{p.how.elements}"
    cluster = s.cluster[0] * s.cluster[1]
    dims = f"__cluster_dims__({cluster}, 1, 1) " if cluster > 1 else ""
    return f"""
extern "C" __global__ void {dims}__launch_bounds__({32 * s.num_warps}, 1)
KERNEL({", ".join(reads)}, void *out0, void *, void *) {{
  Params p;
{sets}  p.elements = {elements};
  p.out = out0;
  work(&a, &b, p);
}}
"""


def grid(size: Size, s: Crew, target: GpuTarget) -> tuple[int, int, int]:
    cluster = s.cluster[0] * s.cluster[1]
    down, across = tiles(size, s)
    return (min(target.processors // cluster * cluster, down * across), 1, 1)


def boxes(s: Crew) -> tuple[tuple[int, int], tuple[int, int]]:
    """What the copy engine fetches of a and of b at a time."""
    return (s.block_m // s.cluster[1], DEPTH), (s.block_n // s.cluster[0], DEPTH)
