"""Choosing GPU schedules: timed on the GPU at hand, taken from a timing cache, or by the families' own ranking.

The timing protocol: a graph of launches of one candidate, its constants rotating through copies so that they come from
memory as in a model of many megabytes, its other operands warm in the cache. The time is the median over replays.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from redline.base import log
from redline.base.errors import BuildError, RedlineError
from redline.base.extents import Undecided, at_nominal, is_open, most_where, nominal, nominal_dims, tuned_at
from redline.codegen.triton import nvrtc
from redline.codegen.triton.compile import Cubin, Request, compile_cubins
from redline.kernels.gemm_schedule import MAX_COUNTERS
from redline.kernels.gpu import GpuCode, GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.mapped import mapped
from redline.kernels.problem import Operand, Problem
from redline.runtime.cuda.driver import Driver, Params
from redline.tune.cache import TimingCache

CANDIDATES = {0: 1, 1: 4, 2: 8, 3: 16, 4: 32, 5: 64}
POOL_BYTES = 3 << 30
ROTATED_BYTES = 96 << 20
MAX_COPIES = 16
ENOUGH_SECONDS = 0.004
MAX_OPEN_WORKSPACE = 64 << 20
WAY_OUT = "fix that dimension, or give a --bucket or a profile of one shape for every shape that comes"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class GpuJob:
    """A problem to be solved on a GPU. ``aligned``: which operands lie at addresses divisible by 16.

    ``most``: the product of the open dimensions is not larger.
    """

    family: str
    problem: Problem
    aligned: tuple[bool, ...]
    most: int = 1

    @property
    def is_open(self) -> bool:
        """Whether a call decides an extent."""
        return "<(" in repr(self.problem)

    def tuned_at(self, dims: Sequence[int], most: int) -> "GpuJob":
        """The same to be solved best where the open dimensions have these values, and for a product of at most ``most``."""
        if not self.is_open:
            return self
        return replace(self, problem=mapped(self.problem, lambda extent: tuned_at(extent, dims)), most=most)

    @property
    def key(self) -> str:
        rough = "" if all(self.aligned) else f" unaligned {self.aligned}"
        return f"{self.family} {self.problem!r}{rough}"


@dataclass(frozen=True)
class GpuChoice:
    """The schedule that won, its code, and how long it took (None: not timed)."""

    job: GpuJob
    schedule: Any
    code: GpuCode
    cubin: Cubin
    seconds: float | None


@dataclass(frozen=True)
class _Option:
    schedule: Any
    code: GpuCode


def choose(
    jobs: Sequence[GpuJob], target: GpuTarget, opt_level: int, cache: TimingCache, timer: "Timer | None", progress: Progress
) -> dict[GpuJob, GpuChoice]:
    """The choice for every job. Without a ``timer`` only the cache and the ranking decide."""
    known = cache.entries if opt_level else {}
    options = {job: _options(job, target, opt_level, known.get(job.key, {})) for job in dict.fromkeys(jobs)}
    if timer is not None and opt_level:
        _measure(options, target, cache, timer, progress)
    chosen: dict[GpuJob, GpuChoice] = {}
    picks = {job: _ranked(job, found, cache if opt_level else TimingCache("")) for job, found in options.items()}
    requests = [Request.of(picks[job][0].code, job.aligned, target) for job in options]
    cubins = compile_cubins(requests, lambda done, total: progress("compile", done, total))
    for job, cubin in zip(options, cubins, strict=True):
        chosen[job] = _first_that_compiles(job, picks[job], cubin, target, cache)
    return chosen


def again(choices: Sequence[GpuChoice], target: GpuTarget) -> list[GpuChoice]:
    """The same schedules rendered for another target of the same architecture; as they are where that does not compile."""
    codes = [GPU_FAMILIES[c.job.family].render(c.job.problem, c.schedule, target) for c in choices]
    cubins = compile_cubins([Request.of(code, c.job.aligned, target) for code, c in zip(codes, choices, strict=True)])
    return [
        c if isinstance(cubin, str) else replace(c, code=code, cubin=cubin)
        for c, code, cubin in zip(choices, codes, cubins, strict=True)
    ]


def _options(job: GpuJob, target: GpuTarget, opt_level: int, known: Mapping[str, float]) -> list[_Option]:
    """The first schedules of the family's ranking, and those whose time is ``known``."""
    if job.family not in GPU_FAMILIES:
        raise BuildError("--target", f"kernels of the family {job.family!r} have no GPU form yet", "", "build for the CPU")
    family = GPU_FAMILIES[job.family]
    distinct: dict[tuple[object, ...], _Option] = {}
    number = 0
    for schedule in family.schedules(job.problem, target):
        if number >= CANDIDATES[opt_level] and not (known and repr(schedule) in known):
            continue
        code = _rendered(job, schedule, target)
        if code is None or (code.maps and not all(job.aligned)) or (code.language == "cuda" and not nvrtc.is_installed()):
            continue  # the copy engine wants addresses divisible by 16, CUDA C its compiler
        number += 1
        distinct.setdefault((code.text, code.num_warps, code.num_stages), _Option(schedule, code))
    return list(distinct.values())


def _rendered(job: GpuJob, schedule: Any, target: GpuTarget) -> GpuCode | None:
    """The code of a schedule; None for what open extents do not allow."""
    try:
        code = GPU_FAMILIES[job.family].render(job.problem, schedule, target)
    except Undecided:
        return None
    return code if not is_open(code.workspace_bytes) or _fits(code, job.most) else None


def why_closed(job: GpuJob, target: GpuTarget) -> str:
    """Why a job of open extents has no kernel; empty where it has one."""
    family = GPU_FAMILIES.get(job.family)
    if family is None or not family.opens:
        return f"kernels of the family {job.family!r} have no form for open shapes on GPUs"
    reason = f"a kernel of the family {job.family!r} must know its shape"
    try:
        for schedule in family.schedules(job.problem, target):
            try:
                family.render(job.problem, schedule, target)
                return ""
            except Undecided as error:
                reason = f"a kernel of the family {job.family!r} must know {error}"
    except Undecided as error:
        return f"a kernel of the family {job.family!r} must know {error}"
    return reason


def _fits(code: GpuCode, most: int) -> bool:
    """Whether the partial sums of an open kernel have room."""
    tiles = most_where(code.grid[0] * code.grid[2], most)
    return tiles <= MAX_COUNTERS and most_where(code.workspace_bytes, most) <= MAX_OPEN_WORKSPACE


def _ranked(job: GpuJob, options: Sequence[_Option], cache: TimingCache) -> list[_Option]:
    """The options, the fastest known first, then the untimed ones in the family's order."""
    times = cache.entries.get(job.key, {})
    return sorted(options, key=lambda option: times.get(repr(option.schedule), 1e9))


def _first_that_compiles(
    job: GpuJob, options: Sequence[_Option], first: Cubin | str, target: GpuTarget, cache: TimingCache
) -> GpuChoice:
    complaint = ""
    for number, option in enumerate(options):
        cubin = first if number == 0 else compile_cubins([Request.of(option.code, job.aligned, target)])[0]
        if isinstance(cubin, Cubin) and cubin.shared_bytes <= target.shared_bytes:
            return GpuChoice(job, option.schedule, option.code, cubin, cache.seconds(job.key, repr(option.schedule)))
        complaint = complaint or (cubin if isinstance(cubin, str) else f"{cubin.shared_bytes} bytes of shared memory")
    raise BuildError("triton", f"no kernel of the family {job.family} compiles for this problem: {complaint[:500]}")


def _measure(
    options: dict[GpuJob, list[_Option]], target: GpuTarget, cache: TimingCache, timer: "Timer", progress: Progress
) -> None:
    missing = [
        (job, option)
        for job, found in options.items()
        for option in found
        if len(found) > 1 and cache.seconds(job.key, repr(option.schedule)) is None
    ]
    requests = [Request.of(option.code, job.aligned, target) for job, option in missing]
    cubins = compile_cubins(requests, lambda done, total: progress("compile", done, total))
    for number, ((job, option), cubin) in enumerate(zip(missing, cubins, strict=True)):
        seconds = 1e3 if isinstance(cubin, str) else timer.seconds(option.code, cubin, job.problem)
        if isinstance(cubin, str):
            log.debug(3, f"{job.family} {option.schedule}: {cubin[:200]}")
        log.debug(3, f"{job.family} {job.problem.writes[0].shape}: {option.schedule} {1e6 * seconds:.1f} us")
        cache.record(job.key, repr(option.schedule), seconds)
        progress("time", number + 1, len(missing))
    cache.save()


class Timer:
    """A GPU on which candidates are timed. Its memory is one pool of random numbers."""

    def __init__(self, driver: Driver, device: int, overlap: bool) -> None:
        self.driver, self.device, self.overlap = driver, device, overlap
        self.context = driver.retain(device)
        driver.push(self.context)
        self.stream = driver.stream()
        self.pool = driver.alloc(POOL_BYTES, "timing tactics")
        self.work = driver.alloc(256 << 20, "timing tactics")
        driver.fill(self.work, 0, 256 << 20, self.stream)
        self._randomise()
        self.begin, self.end = driver.event(), driver.event()

    def _randomise(self) -> None:
        piece = 64 << 20
        values = np.random.default_rng(0).standard_normal(piece // 2, np.float32).astype(np.float16)
        for start in range(0, POOL_BYTES, piece):
            self.driver.to_device(self.pool + start, values.ctypes.data, piece, self.stream)
        self.driver.wait(self.stream)

    def seconds(self, code: GpuCode, cubin: Cubin, problem: Problem) -> float:
        """The time of one launch; 1000 for a kernel that cannot be launched here."""
        try:
            return self._seconds(code, cubin, problem)
        except RedlineError as error:
            log.debug(3, f"{code.symbol}: {error}")
            return 1e3

    def _seconds(self, code: GpuCode, cubin: Cubin, problem: Problem) -> float:
        if nominal(code.workspace_bytes) > 256 << 20:
            return 1e3
        module, function = self.driver.load(cubin.code, cubin.shared_bytes, code.symbol)
        try:
            guess = self._graph_seconds(function, code, cubin, problem, 4, 2)
            launches = int(min(40, max(4, ENOUGH_SECONDS / 4 / max(guess, 1e-7))))
            return self._graph_seconds(function, code, cubin, problem, launches, 7)
        finally:
            self.driver.unload(module)

    def _graph_seconds(
        self, function: Any, code: GpuCode, cubin: Cubin, problem: Problem, launches: int, replays: int
    ) -> float:
        params = [self._params(code, cubin, problem, number) for number in range(launches)]
        grid = [nominal(axis) for axis in code.grid]
        self.driver.begin_capture(self.stream)
        try:
            for number, each in enumerate(params):
                threads = 32 * code.num_warps
                self.driver.launch(
                    function, grid, threads, cubin.shared_bytes, each.close(), self.stream, self.overlap and number > 0,
                )  # fmt: skip
        finally:
            graph = self.driver.end_capture(self.stream)
        times = []
        for _ in range(replays):
            self.driver.record(self.begin, self.stream)
            self.driver.launch_graph(graph, self.stream)
            self.driver.record(self.end, self.stream)
            times.append(self.driver.seconds(self.begin, self.end) / launches)
        self.driver.destroy_graph(graph)
        return statistics.median(times[1:])

    def _params(self, code: GpuCode, cubin: Cubin, problem: Problem, number: int) -> Params:
        params, place = Params(), 0
        facts = iter(cubin.maps)
        for i, operand in enumerate(problem.reads + problem.writes):
            num_bytes = -(-(_reach(operand) * operand.dtype.size + 256) // 256) * 256
            copies = 1
            if operand.constant:
                num_bytes *= 2  # room for padding by a packing
                copies = int(min(MAX_COPIES, max(1, ROTATED_BYTES // num_bytes)))
            address = self.pool + (place + num_bytes * (number % copies)) % max(256, POOL_BYTES - num_bytes)
            address = address // 256 * 256
            place += num_bytes * copies
            m = code.maps.get(i)
            if m is None:
                params.pointer(address)
                continue
            fact = next(facts)
            shape, strides = at_nominal(m.shape), at_nominal(m.strides)
            made = self.driver.tensor_map(
                operand.dtype.name, address, shape, strides, fact["block_size"], fact["swizzle"], operand.dtype.size
            )
            params.map(made, shape, strides)
        if is_open(code.workspace_bytes) or code.workspace_bytes:
            params.pointer(self.work)
        tuned = nominal_dims((code.grid, *((o.shape, o.strides) for o in problem.reads + problem.writes)))
        for dim in code.dims:
            params.number(tuned[dim])
        return params

    def close(self) -> None:
        self.driver.wait(self.stream)
        self.driver.free(self.pool)
        self.driver.free(self.work)
        self.driver.destroy_stream(self.stream)
        self.driver.pop()
        self.driver.release(self.device)


def _reach(operand: Operand) -> int:
    axes = zip(map(nominal, operand.shape), map(nominal, operand.strides), strict=True)
    return 1 + sum(abs(s) * (e - 1) for e, s in axes if e)
