"""Attention with whole rows of scores in registers (whole.h): when it is possible, and its text.

For 16-bit queries, keys and values of 64 elements and at most 256 keys, whose scores are a scale and at most biases of keys.
"""

import math
from dataclasses import dataclass
from importlib import resources

from redline.kernels import bounds, hopper
from redline.kernels.attention.problem import Problem, plain_scale
from redline.kernels.crew import ARCH, REGISTERS, wait
from redline.kernels.crew_epilogue import HALVES, HELPERS, POINTERS, Pointers, Renderer, can_render
from redline.kernels.expr import loads
from redline.kernels.gpu import POINTER, GpuCode, GpuTarget, TensorMap, map_type
from redline.kernels.prepare import prepare
from redline.kernels.problem import Operand

LOG2E = math.log2(math.e)
WIDTH = 64
MOST_QUERIES = MOST_KEYS = 256
MOST_KEYS_OF_THREE = 200  # scores in the registers of three groups of consumers


@dataclass(frozen=True)
class Whole:
    """``consumers`` warp groups; ``slots`` heads under way."""

    consumers: int
    slots: int


def candidates(p: Problem, target: GpuTarget) -> list[Whole]:
    b, h, _sq, sk = p.extents
    if target.arch != ARCH or target.plain or not _fits(p) or b * h * 2 < target.processors:
        return []
    found = [Whole(c, slots) for c in (3, 2) for slots in (2, 3) if c == 2 or sk <= MOST_KEYS_OF_THREE]
    return [s for s in found if shared_bytes(p, s) <= target.shared_bytes]


def _fits(p: Problem) -> bool:
    _b, _h, sq, sk = p.extents
    q, k, v = p.reads[:3]
    sizes = q.dtype.name in HALVES and p.out.dtype == q.dtype and q.shape[3] == v.shape[3] == WIDTH
    small = 16 < sq <= MOST_QUERIES and sk <= MOST_KEYS and p.causal is None and not p.is_ragged
    return bool(sizes and small and all(map(_even, (q, k, v, p.out))) and _biases(p) is not None)


def _even(operand: Operand) -> bool:
    """Whether the copy engine can describe it, and rows can be written 16 bytes at a time."""
    *outer, last = operand.strides
    return last == 1 and all(s > 0 and s % 8 == 0 for s in outer)


def _biases(p: Problem) -> dict[int, tuple[int, int]] | None:
    """The operands that the score reads, with their strides along the batch and the keys; None where it has no form here."""
    prepared = prepare(p.score, p.reads, bounds.box_of(p.extents))
    found = {}
    for load in loads(prepared):
        form = bounds.affine(load.index[0])
        if form is None or form.offset or load.operand < 3 or p.reads[load.operand].dtype.name not in POINTERS:
            return None
        axes = dict(form.coefficients)
        if not set(axes) <= {0, 3}:
            return None
        found[load.operand] = (axes.get(0, 0), axes.get(3, 0))
    return found if can_render(prepared) else None


def shared_bytes(p: Problem, s: Whole) -> int:
    _b, _h, sq, sk = p.extents
    rows = -(-sq // 64) * 64 + 2 * _up(sk, 16)
    return 1024 + s.slots * rows * 128 + 4 * s.consumers * 2048 + 24 * s.slots


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def render(p: Problem, s: Whole, target: GpuTarget) -> GpuCode:
    b, h, sq, sk = p.extents
    q, k, v = p.reads[:3]
    boxes = [(1, 1, _up(sq, 64), WIDTH), (1, 1, _up(sk, 16), WIDTH), (1, 1, _up(sk, 16), WIDTH)]
    maps = {i: TensorMap(o.shape, o.strides, box) for i, (o, box) in enumerate(zip((q, k, v), boxes, strict=True))}
    signature = [POINTER[o.dtype.name] for o in p.reads + p.writes]
    for i, m in maps.items():
        signature[i] = map_type(p.reads[i].dtype, m.box)
    return GpuCode(
        "attention", _text(p, s, target), tuple(signature), (min(target.processors, b * h), 1, 1), 4 * (s.consumers + 1), 0, 0,
        maps, language="cuda", shared_bytes=shared_bytes(p, s),
    )  # fmt: skip


def _text(p: Problem, s: Whole, target: GpuTarget) -> str:
    b, h, sq, sk = p.extents
    few, many = REGISTERS[s.consumers]
    biases = _biases(p) or {}
    constants = {
        "CLUSTER": 1, "BATCH": b, "HEADS": h, "GROUP": p.group, "QUERIES": sq, "REAL_KEYS": sk, "KEYS": _up(sk, 8),
        "KEY_ROWS": _up(sk, 16), "SLOTS": s.slots, "CONSUMERS": s.consumers, "OUT_BATCH": p.out.strides[0],
        "OUT_HEAD": p.out.strides[1], "OUT_ROW": p.out.strides[2], "PRODUCER_REGISTERS": few, "CONSUMER_REGISTERS": many,
        "MAY_BE_HIDDEN": int(bool(biases)), "INFINITY": "__int_as_float(0x7F800000)",
        "WAIT_FOR_THE_KERNEL_IN_FRONT": wait(target),
    }  # fmt: skip
    head = "".join(f"#define {name} {value}\n" for name, value in constants.items())
    common = resources.files("redline.kernels").joinpath("hopper.h").read_text()
    body = resources.files(__package__).joinpath("whole.h").read_text()
    half = HALVES[p.out.dtype.name]
    parts = [
        head,
        common,
        HELPERS,
        _params(p, biases),
        _scored(p, biases),
        _instructions(_up(sk, 8), half),
        body,
        _kernel(p, s),
    ]
    return "\n".join(parts)


def _params(p: Problem, biases: dict[int, tuple[int, int]]) -> str:
    pointers = "".join(f"  {POINTERS[p.reads[i].dtype.name]}__restrict__ arg{i};\n" for i in sorted(biases))
    return f"struct Params {{\n{pointers}  void *out;\n}};\n"


def _scored(p: Problem, biases: dict[int, tuple[int, int]]) -> str:
    """``scored``: a dot product as a score; ``UNIT`` times it is the exponent."""
    places: Pointers = {i: f"(long long)b * {across} + key * {along}" for i, (across, along) in biases.items()}
    renderer, scale = Renderer(p.reads, places, None), plain_scale(p)
    result = "acc" if scale else renderer.value(prepare(p.score, p.reads, bounds.box_of(p.extents)))
    body = "".join(f"  {line}\n" for line in renderer.statements)
    return f"""#define UNIT {(scale or 1.0) * LOG2E!r}f
static __device__ __forceinline__ float scored(const Params &p, float acc, int b, int key) {{
{body}  return {result};
}}
"""


def _instructions(keys: int, half: str) -> str:
    """``dots``, ``gather``, ``finish_dots``, ``finish_sums`` and ``pair`` of whole.h."""
    products = [hopper.multiply("dots", keys, half), hopper.finish("finish_dots", keys), hopper.finish("finish_sums", WIDTH)]
    count = WIDTH // 2
    return f"""{"".join(products)}
static __device__ __forceinline__ void gather(float (&acc)[{count}], const unsigned *p, unsigned long long v, int more) {{
  asm volatile("{{\\n.reg .pred more;\\nsetp.ne.b32 more, %{count + 5}, 0;\\n"
      "wgmma.mma_async.sync.aligned.m64n{WIDTH}k16.f32.{half}.{half} {{{hopper.registers(count)}}}, "
      "{{%{count}, %{count + 1}, %{count + 2}, %{count + 3}}}, %{count + 4}, more, 1, 1, 1;\\n}}"
      : {hopper.in_and_out(count)} : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v), "r"(more));
}}

static __device__ __forceinline__ unsigned pair(float left, float right) {{
  unsigned both;
  asm("cvt.rn.{half}x2.f32 %0, %1, %2;" : "=r"(both) : "f"(right), "f"(left));
  return both;
}}
"""


def _kernel(p: Problem, s: Whole) -> str:
    rest = "int, int, int, int, long long, long long, long long, long long"
    reads = [f"const __grid_constant__ Map {name}, {rest}" for name in "qkv"]
    reads += [f"const void *arg{i}" for i in range(3, len(p.reads))]
    sets = "".join(f"  p.arg{i} = ({POINTERS[p.reads[i].dtype.name]})arg{i};\n" for i in sorted(_biases(p) or {}))
    return f"""
extern "C" __global__ void __launch_bounds__({128 * (s.consumers + 1)}, 1)
KERNEL({", ".join(reads)}, void *out0, void *, void *) {{
  Params p;
{sets}  p.out = out0;
  work(&q, &k, &v, p);
}}
"""
