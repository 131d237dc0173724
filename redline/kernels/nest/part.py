"""Parts: pieces of a kernel that can each be cut into chunks. A part is a C function over a range of outer steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.kernels.ctext import block, loop
from redline.kernels.nest.domain import Loops


@dataclass(frozen=True)
class Part:
    """``body`` computes the steps ``begin`` to ``end`` of ``num_steps``; the pointers arg0.., out0.. are in scope."""

    num_steps: int
    body: list[str]


def walk_prefix(
    loops: Loops, outer: Sequence[int], body: Sequence[str], num_chunks: int, names: Mapping[int, str] | None = None,
    extents: Mapping[int, int] | None = None,
) -> Part:  # fmt: skip
    """``body`` inside loops over the axes ``outer``, the first of which are counted together as the part's steps.

    As many axes are counted together as it takes for ``num_chunks`` steps. ``names`` and ``extents`` replace the loop
    variable ``i<axis>`` and the extent of an axis.
    """
    name = lambda axis: (names or {}).get(axis, f"i{axis}")  # noqa: E731
    extent = lambda axis: (extents or {}).get(axis, loops.extents[axis])  # noqa: E731
    steps, prefix = 1, 0
    while prefix < len(outer) and (steps < num_chunks or extent(outer[prefix]) == 1):
        steps *= extent(outer[prefix])
        prefix += 1
    lines = list(body)
    for axis in reversed(outer[prefix:]):
        lines = loop(name(axis), 0, extent(axis), lines)
    if prefix == 0:
        return Part(1, ["(void)begin, (void)end;", *lines])
    if prefix == 1:
        return Part(steps, loop(name(outer[0]), "begin", "end", lines))
    coordinates, inner = [], steps
    for axis in outer[:prefix]:
        inner //= extent(axis)
        text = f"step / {inner}" if inner > 1 else "step"
        wrap = f" % {extent(axis)}" if axis != outer[0] else ""
        coordinates.append(f"const int64_t {name(axis)} = {text}{wrap};")
    return Part(steps, loop("step", "begin", "end", [*coordinates, *lines]))


def function(name: str, parameters: Sequence[str], body: Sequence[str]) -> list[str]:
    """The C function of a part: never inlined, for ``restrict`` is only honoured on parameters."""
    head = f"static __attribute__((noinline)) void {name}({', '.join([*parameters, 'int64_t begin', 'int64_t end'])})"
    return block(head, body)
