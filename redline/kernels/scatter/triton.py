"""Scatters in Triton from the results' side: each element of out looks for the values that go to it.

out[i...] = initial(i...), or value(u...) of the last u whose place is i..., or the fold of all of them

Axes of u that a coordinate of the place follows (``Own``) are known from i; the others are searched. No two programs
write one element, so there are no atomics and answers repeat; folded floats are added as a tree. The cost is elements
times values searched: much where both are many.
"""

from dataclasses import dataclass
from math import prod

from redline.base.shapes import size
from redline.kernels import bounds, texpr, tgemm, ttext
from redline.kernels.functions import compute_type, extreme
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, next_power
from redline.kernels.prepare import prepare
from redline.kernels.scatter.problem import Problem

FOLD = {"add": "rl_add", "mul": "rl_mul", "max": "rl_max", "min": "rl_min"}


@dataclass(frozen=True)
class Schedule:
    """``block`` results a program, ``chunk`` values searched at a time."""

    block: int
    chunk: int
    num_warps: int = 4


@dataclass(frozen=True)
class Own:
    """Axis ``of`` of the values lies along axis ``along`` of out, ``shift`` further on."""

    of: int
    along: int
    shift: int


def own_axes(p: Problem) -> list[Own]:
    """One for each axis of the values that some coordinate of the place follows."""
    found: dict[int, Own] = {}
    for along, place in enumerate(p.place):
        form = bounds.affine(prepare(place, p.reads, bounds.box_of(p.extents)))
        if form is None or len(form.coefficients) != 1:
            continue
        axis, step = form.coefficients[0]
        if step == 1 and p.extents[axis] > 1:
            found.setdefault(axis, Own(axis, along, form.offset))
    return list(found.values())


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    searched = size(problem.extents) // prod(problem.extents[own.of] for own in own_axes(problem))
    most = next_power(max(1, searched))
    tiles = ((64, 32, 4), (128, 16, 4), (32, 64, 4), (16, 256, 8), (512, 1, 4), (256, 4, 4))
    found = [Schedule(block * max(1, min(chunk // most, 8)), min(chunk, most), warps) for block, chunk, warps in tiles]
    return list(dict.fromkeys(found))


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p, count, rank = problem, size(problem.out.shape), len(problem.out.shape)
    names = [f"i{axis}" for axis in range(rank)]
    guard = f"(at < {count})" if count % s.block else ""
    body = [f"at = tl.program_id(0) * {s.block} + tl.arange(0, {s.block})", *ttext.wait(target)]
    body += [f"{n} = {t}" for n, t in zip(names, tgemm.row_coordinates("at", p.out.shape), strict=True)]
    first = texpr.Renderer(p.reads, names, p.out.shape, [], dict.fromkeys(range(rank), guard) if guard else {})
    statements, initial = first.render(p.initial)
    body += [*statements, f"result = {texpr.tile(initial, p.out.dtype, (s.block,))}"]
    if size(p.extents):
        body += _Search(p, s, guard).lines()
    body.append(texpr.store("(out0 + at * 0)" if count == 1 else "out0", p.out, names, "result", [guard] if guard else []))
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    return GpuCode("scatter", ttext.module(params, body), signature, (-(-count // s.block), 1, 1), s.num_warps)


class _Search:
    """Statements that bring ``result`` up to date with the values that go to it."""

    def __init__(self, p: Problem, s: Schedule, guard: str) -> None:
        self.p, self.s, self.guard = p, s, guard
        self.own = {own.of: own for own in own_axes(p)}
        self.searched = [axis for axis in range(len(p.extents)) if axis not in self.own]
        self.total = prod(p.extents[axis] for axis in self.searched)

    def lines(self) -> list[str]:
        found = self._owned("[:, None]", "u")
        loop = [f"step = c * {self.s.chunk} + tl.arange(0, {self.s.chunk})", *self._coordinates("step[None, :]", "u")]
        tests = [*self._inside("[:, None]")]
        if self.total % self.s.chunk:
            tests.append(f"(step[None, :] < {self.total})")
        renderer = self._renderer("u", "p", " & ".join(tests))
        for axis, place in enumerate(self.p.place):
            if axis in {own.along for own in self.own.values()}:
                continue
            statements, text = renderer.render(place)
            loop += statements
            tests.append(f"(({text}) == i{axis}[:, None])")
        shape = f"({self.s.block}, {self.s.chunk})"
        hit = " & ".join(tests) or "True"
        loop.append(f"hit = tl.broadcast_to({hit if tests else 'tl.full((1, 1), 1, tl.int1)'}, {shape})")
        if self.p.fold == "none":
            return [*found, *self._last(loop)]
        return [*found, *self._fold(loop)]

    def _tile(self, value: str, shape: tuple[int, ...]) -> str:
        return texpr.tile(value, self.p.out.dtype, shape)

    def _owned(self, wide: str, prefix: str) -> list[str]:
        return [f"{prefix}{own.of} = i{own.along}{wide} - {own.shift}" for own in self.own.values()]

    def _coordinates(self, at: str, prefix: str) -> list[str]:
        shape = tuple(self.p.extents[axis] for axis in self.searched)
        texts = tgemm.row_coordinates(at, shape)
        return [f"{prefix}{axis} = {text}" for axis, text in zip(self.searched, texts, strict=True)]

    def _inside(self, wide: str) -> list[str]:
        """Where the known coordinates of the value are among the values."""
        tests = [f"{self.guard.replace('at', f'at{wide}')}"] if self.guard else []
        for own in self.own.values():
            if own.shift > 0:
                tests.append(f"(i{own.along}{wide} >= {own.shift})")
            if self.p.out.shape[own.along] > own.shift + self.p.extents[own.of]:
                tests.append(f"(i{own.along}{wide} < {own.shift + self.p.extents[own.of]})")
        return tests

    def _renderer(self, prefix: str, names: str, inside: str) -> texpr.Renderer:
        guards = dict.fromkeys(range(len(self.p.extents)), f"({inside})") if inside else {}
        coordinates = [f"{prefix}{axis}" for axis in range(len(self.p.extents))]
        return texpr.Renderer(self.p.reads, coordinates, self.p.extents, [], guards, prefix=names)

    def _last(self, loop: list[str]) -> list[str]:
        """The position of the last value that goes here, then the value."""
        loop = [*loop, "last = tl.maximum(last, tl.max(tl.where(hit, step[None, :], -1), 1))"]
        lines = [f"last = tl.full(({self.s.block},), -1, tl.int32)", *self._loop(loop), *self._owned("", "w")]
        lines += self._coordinates("tl.maximum(last, 0)", "w")
        statements, value = self._renderer("w", "v", "last >= 0").render(self.p.value)
        return [*lines, *statements, f"result = tl.where(last >= 0, {self._tile(value, (self.s.block,))}, result)"]

    def _fold(self, loop: list[str]) -> list[str]:
        dtype = compute_type(self.p.out.dtype)
        fold = FOLD[self.p.fold]
        none = {"add": 0, "mul": 1}.get(self.p.fold)
        start = texpr.literal(extreme(dtype, lowest=self.p.fold == "max") if none is None else none, dtype)
        statements, value = self._renderer("u", "v", "hit").render(self.p.value)
        loop = [*loop, *statements, f"value = tl.where(hit, {self._tile(value, (self.s.block, self.s.chunk))}, {start})"]
        loop.append(f"result = {fold}(result, tl.reduce(value, 1, {fold}))")
        return self._loop(loop)

    def _loop(self, loop: list[str]) -> list[str]:
        return [f"for c in range(0, {-(-self.total // self.s.chunk)}):", *(f"    {line}" for line in loop)]


FAMILY = GpuFamily("scatter", schedules, render)
