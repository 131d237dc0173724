"""The C text of attention. A step is one head and one block of queries; vectors run across the queries of the block.

    turned[d][q]   the queries, transposed once a block
    scores[j][q]   = sum over d of key[j][d] * turned[d][q]: a register tile whose scalars are elements of the keys
    the softmax    across lanes: every query has a lane of its own, so nothing is ever summed across a vector
    held[q][d]     += sum over j of scores[j][q] * value[j][d]: a register tile whose scalars are elements of the scores

Keys come in blocks; when a later block raises a query's maximum, what is held is scaled down (online softmax, Milakov and
Gimelshein 2018), so the whole matrix of scores never exists.
"""

from redline.base.shapes import size
from redline.kernels import amx, cexpr
from redline.kernels.attention import tiled
from redline.kernels.attention.block import blocks, converted
from redline.kernels.attention.layout import Layout, base
from redline.kernels.attention.problem import Problem
from redline.kernels.attention.schedule import Schedule, way
from redline.kernels.attention.tiled import TiledLayout
from redline.kernels.attention.tiles import tiles
from redline.kernels.ctext import block, loop, vectorized
from redline.kernels.parts import Part, coordinates, kernel, once
from redline.kernels.problem import CpuTarget, KernelCode


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    if size(problem.out.shape) == 0:
        text = "\n".join(kernel(problem.reads, problem.writes, once([]), 1)) + "\n"
        return KernelCode("attention", cexpr.prelude(text) + text, 1)
    is_tiled = bool(way(problem, schedule).tiled)
    g = TiledLayout(problem, schedule, target) if is_tiled else Layout(problem, schedule, target)
    num_chunks = min(schedule.max_chunks, g.num_steps)
    pieces = [*tiled.tiles(g), *tiled.blocks(g)] if isinstance(g, TiledLayout) else [*tiles(g), *blocks(g)]
    lines = [*g.dot.types(target), *pieces, *kernel(problem.reads, problem.writes, _part(g), num_chunks)]
    text = "\n".join(lines) + "\n"
    return KernelCode("attention", cexpr.prelude(text) + text, num_chunks, g.scratch_bytes)


def _part(g: Layout) -> Part:
    lines, place = [], 0
    for region in g.regions:
        kind = f"{region.dtype.c} *restrict"
        lines.append(f"{kind} {region.name} = ({kind})((char *)scratch + {place});")
        place += region.num_bytes
    b, h, _, _ = g.problem.extents
    body = coordinates("step", [("b", b), ("h", h), ("part", g.queries.count)])
    body += [f"const int64_t g = h / {g.problem.group}, q0 = ({g.queries.begin('part')}) * {g.lanes};"]
    if g.schedule.stage:
        head = f"b * {g.problem.reads[1].shape[1]} + g"
        body += block(f"if (ready != {head})", [*_stage(g), f"ready = {head};"])
        lines.append("int64_t ready = -1;")
        sources = f"{'keys' if g.stages_keys else _in_place(g, 1)}, values"
    else:
        sources = f"{_in_place(g, 1)}, {_in_place(g, 2)}"
    places = ", ".join(region.name for region in g.regions[:5])
    arguments = ", ".join([places, sources, *(f"arg{i}" for i in range(len(g.problem.reads))), "out0", "b", "h", "q0"])
    body += _dispatch(g, arguments)
    steps = [*lines, *loop("step", "begin", "end", body)]
    return Part(g.num_steps, [*g.tiles.begin, *steps, amx.END] if isinstance(g, TiledLayout) else steps)


def _in_place(g: Layout, number: int) -> str:
    """Where the keys or values of a head begin."""
    return f"arg{number} + {base(g.problem.reads[number], ['b', 'g'])}"


def _dispatch(g: Layout, arguments: str) -> list[str]:
    """Calls the function of the block's kind."""
    *kinds, last = g.block_kinds
    lines, end = [], 0
    for kind in kinds:
        end += kind.count
        lines.append(f"if (part < {end}) {kind.name}({arguments}); else")
    return [*lines, f"{last.name}({arguments});"]


def _stage(g: Layout) -> list[str]:
    key, value = g.problem.reads[1:3]
    copy_key = f"keys[j * {g.depth} + d] = {converted(g, key, f'k[j * {key.strides[2]} + d * {key.strides[3]}]')};"
    element = converted(g, value, f"v[j * {value.strides[2]} + d * {value.strides[3]}]")
    copy_value = f"values[j * {g.panels.padded} + d] = {element};"
    if isinstance(g, TiledLayout):
        return tiled.stage(g)
    if g.dot.group > 1:
        return _pair_values(g)
    lines = [
        f"const {key.dtype.c} *k = arg1 + {base(key, ['b', 'g'])}, *v = arg2 + {base(value, ['b', 'g'])};",
        *loop("j", 0, g.num_keys, vectorized("d", 0, g.depth, [copy_key])),
        *loop("j", 0, g.num_keys, vectorized("d", 0, g.width, [copy_value])),
    ]
    if g.panels.padded > g.width:
        clear = f"values[j * {g.panels.padded} + d] = 0;"
        lines += loop("j", 0, g.num_keys, loop("d", g.width, g.panels.padded, [clear]))
    return lines


def _pair_values(g: Layout) -> list[str]:
    """values[j / 2][d][j % 2], with zeros where there is no such key or column."""
    value, num, padded = g.problem.reads[2], g.num_keys, g.panels.padded
    v = f"const {value.dtype.c} *v = {_in_place(g, 2)};"
    low, high = (f"v[j * {value.strides[2]} + d * {value.strides[3]}{more}]" for more in ("", f" + {value.strides[2]}"))
    store = f"*(word *)&values[j * {padded} + d * 2] = (int32_t)({low}{{}});"
    both = vectorized("d", 0, g.width, [store.format(f" | (uint32_t){high} << 16")])
    rest = [f"const int64_t j = {num - 1};", *loop("d", 0, g.width, [store.format("")])]
    clear = loop("j", 0, g.dot.steps(num), loop("d", g.width, padded, [f"*(word *)&values[(j * {padded} + d) * 2] = 0;"]))
    return [
        v,
        *block(f"for (int64_t j = 0; j + 1 < {num}; j += 2)", both),
        *(block("", rest) if num % 2 else []),
        *(clear if padded > g.width else []),
    ]
