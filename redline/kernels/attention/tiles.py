"""The two register tiles of attention: scores of some keys for a block of queries, and the sums of some queries over values."""

from collections.abc import Sequence

from redline.kernels import tile
from redline.kernels.attention.layout import Layout
from redline.kernels.ctext import block
from redline.kernels.tile import Loop, Split


def tiles(g: Layout) -> list[str]:
    """The functions of every tile that the blocks of ``g`` call."""
    lines = []
    for vectors in dict.fromkeys(kind.lanes // g.lanes for kind in g.block_kinds):
        for rows in _sizes(g, g.key_counts, vectors):
            lines += _score_tile(g, rows, vectors)
    for kind in g.block_kinds:
        for width, _ in g.panels.kinds():
            for rows in _sizes(g, [kind.valid], width // g.lanes):
                lines += _value_tile(g, rows, width, kind.lanes)
    return _without_repeats(lines)


def _sizes(g: Layout, counts: Sequence[int], vectors: int) -> list[int]:
    """The heights of tiles that cover each of ``counts`` rows."""
    tallest = tile.tallest(vectors, g.target)
    return list(dict.fromkeys(rows for count in counts for rows in Split.of_at_most(count, tallest).sizes))


def _score_tile(g: Layout, rows: int, vectors: int) -> list[str]:
    step, along = g.key_strides
    lanes = vectors * g.lanes
    body = tile.inner_product([i * step for i in range(rows)], vectors, [_score_loop(g, along, lanes)], g.dot)
    body += [f"*(vec *)(scores + {i * lanes + v * g.lanes}) = acc[{i}][{v}];" for i in range(rows) for v in range(vectors)]
    head = f"static __attribute__((noinline)) void score_{rows}_{lanes}"
    return ["", *block(f"{head}(const {g.dot.x.c} *x, const {g.dot.x.c} *panel, {g.type} *scores)", body)]


def _score_loop(g: Layout, along: int, lanes: int) -> Loop:
    return Loop(g.dot.steps(g.depth), along * g.dot.group, lanes * g.dot.group)


def _value_tile(g: Layout, rows: int, width: int, lanes: int) -> list[str]:
    """``rows`` of held, scaled by ``shrink``, plus the products with ``count`` groups of keys."""
    vectors = width // g.lanes
    group = g.dot.group
    steps = Loop("count", lanes * group, g.value_stride * group)
    body = tile.inner_product([i * group for i in range(rows)], vectors, [steps], g.dot)
    for i in range(rows):
        for v in range(vectors):
            place = f"(vec *)(held + {i * g.panels.padded + v * g.lanes})"
            body.append(f"*{place} = *{place} * shrink[{i}] + acc[{i}][{v}];")
    parameters = f"const {g.dot.x.c} *x, const {g.dot.x.c} *panel, const {g.type} *shrink, {g.type} *held"
    head = f"static __attribute__((noinline)) void value_{rows}_{width}_{lanes}({parameters}, int64_t count)"
    return ["", *block(head, body)]


def cover(tiles: Split, call: str) -> list[str]:
    """Calls a tile function for all rows: ``call`` is formatted with the tile's height; j is the first row."""
    large, small = tiles.sizes[0], tiles.sizes[-1]
    cut = tiles.num_large * large
    lines = [f"for (int64_t j = 0; j < {cut}; j += {large}) {call.format(large)}"]
    if large != small:
        lines.append(f"for (int64_t j = {cut}; j < {tiles.extent}; j += {small}) {call.format(small)}")
    return lines


def _without_repeats(lines: list[str]) -> list[str]:
    """Functions (paragraphs) that several kinds of block ask for appear once."""
    paragraphs = "\n".join(lines).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs)).split("\n")
