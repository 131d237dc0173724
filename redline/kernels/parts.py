"""Parts: pieces of a kernel that can each be cut into chunks. A part is a C function over a range of outer steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from redline.base.extents import extents_in, is_open
from redline.kernels.ctext import block, loop
from redline.kernels.problem import Operand

Axis = tuple[str, int]  # the loop variable and its extent


@dataclass(frozen=True)
class Part:
    """``body`` computes the steps ``begin`` to ``end`` of ``num_steps``; the pointers arg0.., out0.. are in scope."""

    num_steps: int
    body: list[str]


def once(body: Sequence[str]) -> Part:
    """Work that cannot be cut."""
    return Part(1, ["(void)begin, (void)end;", *body])


def walk(axes: Sequence[Axis], body: Sequence[str], num_chunks: int) -> Part:
    """``body`` inside loops over ``axes``, outermost first, of which as many as it takes for ``num_chunks`` are cut."""
    steps, prefix = 1, 0
    everything = any(is_open(extent) for _, extent in axes)  # as few as an open extent may be, there are chunks to be had
    while prefix < len(axes) and (everything or steps < num_chunks or axes[prefix][1] == 1):
        steps *= axes[prefix][1]
        prefix += 1
    lines = list(body)
    for name, extent in reversed(axes[prefix:]):
        lines = loop(name, 0, extent, lines)
    if prefix == 0:
        return once(lines)
    if prefix == 1:
        return Part(steps, loop(axes[0][0], "begin", "end", lines))
    return Part(steps, loop("step", "begin", "end", [*coordinates("step", axes[:prefix]), *lines]))


def coordinates(step: str, axes: Sequence[Axis]) -> list[str]:
    """Declares the coordinates whose row-major position is ``step``."""
    lines = []
    for number, (name, extent) in enumerate(axes):
        inner = prod(e for _, e in axes[number + 1 :])
        text = f"{step} / {inner}" if inner != 1 else step
        lines.append(f"const int64_t {name} = {text}{f' % {extent}' if number else ''};")
    return lines


def parameters(reads: Sequence[Operand], writes: Sequence[Operand]) -> list[str]:
    """The pointers that a part's function takes."""
    names = [f"const {read.dtype.c} *restrict arg{i}" for i, read in enumerate(reads)]
    names += [f"{write.dtype.c} *restrict out{i}" for i, write in enumerate(writes)]
    return [*names, "const int64_t *restrict dims"] if any_open(reads, writes) else names


def pointers(reads: Sequence[Operand], writes: Sequence[Operand]) -> str:
    """What KERNEL passes for them."""
    return ", ".join(f"args[{i}]" for i in range(len(reads) + len(writes) + any_open(reads, writes)))


def any_open(reads: Sequence[Operand], writes: Sequence[Operand]) -> bool:
    """Whether the kernel is one for open extents: it then finds the dimensions behind its last argument."""
    return any(True for operand in (*reads, *writes) for _ in extents_in((operand.shape, operand.strides)))


def dims(reads: Sequence[Operand], writes: Sequence[Operand]) -> list[str]:
    """C: ``dims`` in a function that has ``args``; nothing for a kernel of closed extents."""
    return [f"const int64_t *const dims = args[{len(reads) + len(writes)}];"] if any_open(reads, writes) else []


def function(name: str, parameters: Sequence[str], body: Sequence[str]) -> list[str]:
    """The C function of a part: never inlined, for ``restrict`` is only honoured on parameters."""
    head = f"static __attribute__((noinline)) void {name}({', '.join([*parameters, 'int64_t begin', 'int64_t end'])})"
    return block(head, body)


def share(chunk: str, num_steps: int, num_chunks: int) -> str:
    """The arguments ``begin, end`` of chunk number ``chunk``."""
    if not is_open(num_chunks) and num_chunks == 1:
        return f"0, {num_steps}"
    return f"{chunk} * {num_steps} / {num_chunks}, ({chunk} + 1) * {num_steps} / {num_chunks}"


def kernel(reads: Sequence[Operand], writes: Sequence[Operand], part: Part, num_chunks: int) -> list[str]:
    """KERNEL for a single part, whose function also takes ``scratch``."""
    names = ["void *restrict scratch", *parameters(reads, writes)]
    call = f"part(scratch, {pointers(reads, writes)}, {share('chunk', part.num_steps, num_chunks)});"
    body = ["(void)args, (void)scratch, (void)chunk;", *dims(reads, writes), *([call] if part.num_steps else [])]
    return function("part", names, part.body) + block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)
