"""Checks the plan of an engine, without the planner's code: what a kernel may touch, when, and beside what.

The rules, each a function below:
  sizes      counts and offsets are sane; tensors lie in their space, accesses in their tensor, at the largest shape
  lifetimes  arena tensors that share bytes are never alive together, and are used only while alive
  order      a byte range of the arena is written before it is read; every output is written
  hazards    steps that may run at the same time touch no byte in common, unless they all only read it

An engine of several plans: each by itself, and the ports of all agree.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.errors import EngineError, RedlineError
from redline.engine.header import ALIGNMENT, IO, Access, Header, KernelRecord, TensorPlan
from redline.engine.profile import shape_at, sole_dimension
from redline.engine.variants import blob_of, without_steps

LIMIT = 1 << 62
MAX_DIMS = 8  # of executor.h
FIRST_FOUND = 4  # where kernels put the dimensions that they find
GROUP_LIMIT = 512  # steps that may overlap; each is compared with each


@dataclass(frozen=True)
class Region:
    """The bytes of an access: from ``low`` to ``high`` in ``space``.

    ``space`` is a name, and a number where a space is several arrays. Each of ``cuts`` is a way to see the bytes as runs:
    (length, period), where the period divides the distance of any two runs and is 0 when there is one run only.
    """

    space: tuple[str, int]
    low: int
    high: int
    cuts: tuple[tuple[int, int], ...]

    def may_meet(self, other: "Region") -> bool:
        """Whether the two may have a byte in common; False is certain."""
        if self.space != other.space or self.high <= other.low or other.high <= self.low:
            return False
        distance = other.low - self.low
        return not any(_pass_by(distance, ours, theirs) for ours in self.cuts for theirs in other.cuts)


def _pass_by(distance: int, ours: tuple[int, int], theirs: tuple[int, int]) -> bool:
    """Whether runs that begin ``distance`` apart lie beside each other in every period."""
    period = math.gcd(ours[1], theirs[1])
    ahead = distance % period if period else 0
    return ahead >= ours[0] and ahead + theirs[0] <= period


def check_plan(header: Header, weight_bytes: int, where: str) -> None:
    """Raises EngineError, naming the step and tensor, for a plan that breaks one of the rules above."""
    checker = _Checker(header, weight_bytes, where)
    checker.sizes()
    checker.lifetimes()
    checker.order()
    checker.hazards()


def check_ports(header: Header, where: str) -> None:
    """Raises EngineError where the dimensions, inputs or outputs of a plan are no sane ones; what ``check_plan`` checks too."""
    _Checker(header, 0, where).ports()


def check_variants(header: Header, where: str) -> None:
    """Raises EngineError unless all plans have inputs and outputs of the same names, types and ranks in the same order."""
    plans, blobs = list(without_steps(header)), {blob.name for blob in header.blobs}
    checker = _Checker(header, 0, where)
    if header.plan or len({plan.name for plan in plans}) < len(plans):
        checker.fail(f"its plans are number {header.plan} and on, of the names {[plan.name for plan in plans]}")
    for plan in plans[1:]:
        if blob_of(plan.plan) not in blobs:
            checker.fail(f"the steps of plan {plan.name!r} are missing")
        check_ports(plan, where)
        for mine, first in ((plan.inputs, header.inputs), (plan.outputs, header.outputs)):
            if [(io.name, io.dtype, len(io.shape)) for io in mine] != [(io.name, io.dtype, len(io.shape)) for io in first]:
                checker.fail(f"plan {plan.name!r} has other inputs or outputs than the first")


class _Checker:
    def __init__(self, header: Header, weight_bytes: int, where: str) -> None:
        self.header, self.where = header, where
        self.capacity = {"arena": header.arena_bytes, "weights": weight_bytes}
        self.reads: list[list[Region]] = []
        self.writes: list[list[Region]] = []

    def fail(self, seen: str) -> None:
        raise EngineError(self.where, f"its plan is wrong: {seen}", "", "this is a fault of the builder: please report it")

    # sizes

    def sizes(self) -> None:
        h = self.header
        for name, value, low in (
            ("arena_bytes", h.arena_bytes, 0), ("scratch_bytes", h.scratch_bytes, 0), ("num_threads", h.num_threads, 1),
        ):  # fmt: skip
            if not low <= value < LIMIT:
                self.fail(f"{name} is {value}")
        self.ports()
        self.found()
        for tensor in h.tensors:
            self.tensor(tensor)
        for step, kernel in enumerate(h.kernels):
            self.kernel(step, kernel)

    def ports(self) -> None:
        """Dimensions, inputs and outputs."""
        h = self.header
        self.dims()
        for io in h.inputs + h.outputs:
            self.io_bytes(io)
            self.open_shape(io)
        for kind, names in (("input", [io.name for io in h.inputs]), ("output", [io.name for io in h.outputs])):
            if len(set(names)) < len(names):
                self.fail(f"two {kind}s have the same name")

    def dims(self) -> None:
        """Ranges are sane, and the inputs of a call decide every dimension that no step finds; the others stand behind."""
        dims = self.header.dims
        num_given = sum(not dim.is_found for dim in dims)
        too_many = num_given > FIRST_FOUND or len(dims) - num_given > MAX_DIMS - FIRST_FOUND
        if too_many or len({dim.name for dim in dims}) < len(dims) or any(d.is_found for d in dims[:num_given]):
            self.fail(f"its open dimensions are {[dim.name for dim in dims]}")
        for dim in dims:
            if not (0 if dim.is_found else 1) <= dim.min <= dim.opt <= dim.max < LIMIT:
                self.fail(f"dimension {dim.name!r} goes from {dim.min} over {dim.opt} to {dim.max}")
        for io in self.header.inputs + self.header.outputs:
            for terms in io.extents:
                if any(len(term) != len(dims) + 1 or term[0] <= 0 or not all(0 <= p <= 4 for p in term[1:]) for term in terms):
                    self.fail(f"{io.name} has an axis {terms}")
        decided = {sole_dimension(terms) for io in self.header.inputs for terms in io.extents}
        for index, dim in enumerate(dims):
            if not dim.is_found and not any(found is not None and found[0] == index for found in decided):
                self.fail(f"no input says what dimension {dim.name!r} is")

    def found(self) -> None:
        """No step may begin before what a step in front of it finds is known."""
        kernels = self.header.kernels
        for dim in self.header.dims:
            late = dim.step >= len(kernels) or (dim.step + 1 < len(kernels) and not kernels[dim.step + 1].barrier)
            if dim.is_found and late:
                self.fail(f"dimension {dim.name!r} is found by step {dim.step}, and no barrier is behind it")

    def open_shape(self, io: IO) -> None:
        """The shape in the header is the largest: extents never shrink as a dimension grows."""
        largest = [dim.max for dim in self.header.dims]
        if io.extents and (len(io.extents) != len(io.shape) or shape_at(io, largest) != io.shape):
            self.fail(f"{io.name} has shape {io.shape}, but its axes say {shape_at(io, largest)}")

    def io_bytes(self, io: IO) -> int:
        return self.element_bytes(io.dtype, io.name) * self.extent(io.shape, io.name)

    def element_bytes(self, dtype: str, name: str) -> int:
        try:
            return dtypes.from_name(dtype).size
        except RedlineError as error:
            self.fail(f"{name}: {error.seen}")
            raise

    def extent(self, shape: tuple[int, ...], name: str) -> int:
        if len(shape) > 64 or any(not 0 <= dim < LIMIT for dim in shape) or math.prod(shape) >= LIMIT:
            self.fail(f"{name} has shape {shape}")
        return math.prod(shape)

    def tensor(self, tensor: TensorPlan) -> None:
        if tensor.space not in self.capacity:
            self.fail(f"tensor {tensor.name!r} is in space {tensor.space!r}")
        end = tensor.offset + tensor.num_bytes
        if tensor.offset % ALIGNMENT or not 0 <= tensor.offset <= end <= self.capacity[tensor.space]:
            self.fail(f"tensor {tensor.name!r} at bytes {tensor.offset}..{end} does not fit the {tensor.space}")
        if not 0 <= tensor.first_step <= tensor.last_step < max(1, len(self.header.kernels)):
            self.fail(f"tensor {tensor.name!r} lives from step {tensor.first_step} to {tensor.last_step}")

    def kernel(self, step: int, kernel: KernelRecord) -> None:
        if not 0 < kernel.num_chunks < 1 << 31 or min(kernel.flops, kernel.num_bytes) < 0:
            self.fail(f"step {step} ({kernel.symbol}) has {kernel.num_chunks} chunks")
        if not kernel.symbol.isidentifier() or not kernel.symbol.isascii():
            self.fail(f"step {step} has symbol {kernel.symbol!r}")
        self.reads.append([self.region(step, access) for access in kernel.reads])
        self.writes.append([self.region(step, access) for access in kernel.writes])
        if any(access.space in ("weights", "input") for access in kernel.writes):
            self.fail(f"step {step} ({kernel.symbol}) writes a constant or an input")

    def region(self, step: int, access: Access) -> Region:
        """The bytes of an access, once it is known to stay inside its tensor."""
        base, num_bytes, key = self.storage(step, access)
        size = self.element_bytes(access.dtype, f"step {step}")
        count = self.extent(access.shape, f"an access of step {step}")
        if len(access.strides) != len(access.shape) or any(abs(stride) >= LIMIT for stride in access.strides):
            self.fail(f"step {step} has an access of shape {access.shape} with strides {access.strides}")
        moves = [(dim, stride * size) for dim, stride in zip(access.shape, access.strides, strict=True) if dim > 1]
        low = access.offset + sum((dim - 1) * stride for dim, stride in moves if stride < 0)
        high = access.offset + sum((dim - 1) * stride for dim, stride in moves if stride > 0) + size
        if count == 0:
            low = high = access.offset
        if not 0 <= low <= high <= num_bytes:
            self.fail(f"step {step} touches bytes {low}..{high} of {self.name(access)}, which has {num_bytes}")
        return Region(key, base + low, base + high, _cuts(moves, size))

    def storage(self, step: int, access: Access) -> tuple[int, int, tuple[str, int]]:
        """Where the tensor of an access starts in its space, its length, and the name of the space."""
        tables = {"arena": self.header.tensors, "weights": self.header.tensors}
        table = tables.get(access.space) or {"input": self.header.inputs, "output": self.header.outputs}.get(access.space, ())
        if not 0 <= access.tensor < len(table):
            self.fail(f"step {step} uses {access.space!r} number {access.tensor}, which does not exist")
        found = table[access.tensor]
        if isinstance(found, IO):
            return 0, self.io_bytes(found), (access.space, access.tensor)
        if found.space != access.space:
            self.fail(f"step {step} takes tensor {found.name!r} of the {found.space} for one of the {access.space}")
        return found.offset, found.num_bytes, (access.space, 0)

    def name(self, access: Access) -> str:
        tables = {"input": self.header.inputs, "output": self.header.outputs}
        return f"{access.space} {tables.get(access.space, self.header.tensors)[access.tensor].name!r}"

    # lifetimes

    def lifetimes(self) -> None:
        arena = [tensor for tensor in self.header.tensors if tensor.space == "arena" and tensor.num_bytes]
        alive: list[TensorPlan] = []
        for tensor in sorted(arena, key=lambda t: t.first_step):
            alive = [other for other in alive if other.last_step >= tensor.first_step]
            for other in alive:
                if tensor.offset < other.offset + other.num_bytes and other.offset < tensor.offset + tensor.num_bytes:
                    self.fail(
                        f"tensors {other.name!r} and {tensor.name!r} share bytes of the arena in step {tensor.first_step}"
                    )
            alive.append(tensor)
        for step, kernel in enumerate(self.header.kernels):
            for access in kernel.reads + kernel.writes:
                if access.space == "arena":
                    self.alive(step, self.header.tensors[access.tensor])

    def alive(self, step: int, tensor: TensorPlan) -> None:
        if not tensor.first_step <= step <= tensor.last_step:
            self.fail(f"step {step} uses tensor {tensor.name!r}, alive from step {tensor.first_step} to {tensor.last_step}")

    # order

    def order(self) -> None:
        written: dict[tuple[str, int], list[Region]] = {}
        for step, kernel in enumerate(self.header.kernels):
            for access, region in zip(kernel.reads, self.reads[step], strict=True):
                key = (access.space, access.tensor)
                known = access.space in ("weights", "input") or region.low == region.high
                if not known and not any(region.may_meet(other) for other in written.get(key, ())):
                    self.fail(f"step {step} ({kernel.symbol}) reads {self.name(access)} before anything has written it")
            for access, region in zip(kernel.writes, self.writes[step], strict=True):
                written.setdefault((access.space, access.tensor), []).append(region)
        for index, io in enumerate(self.header.outputs):
            accesses = [a for kernel in self.header.kernels for a in kernel.writes if (a.space, a.tensor) == ("output", index)]
            found = sum(self.element_bytes(a.dtype, io.name) * math.prod(a.shape) for a in accesses)
            if found < self.io_bytes(io):
                self.fail(f"only {found} of the {self.io_bytes(io)} bytes of output {io.name!r} are written")

    # hazards

    def hazards(self) -> None:
        for group in self.groups():
            for step in group:
                self.inside(step)
                for other in range(group.start, step):
                    self.pair(other, step)

    def groups(self) -> Iterator[range]:
        """The ranges of steps that may run at the same time."""
        count = len(self.header.kernels)
        starts = [step for step in range(count) if step == 0 or self.header.kernels[step].barrier]
        for start, end in itertools.pairwise([*starts, count]):
            if end - start > GROUP_LIMIT:
                self.fail(f"{end - start} steps follow each other without a barrier")
            yield range(start, end)

    def inside(self, step: int) -> None:
        """A step writes no byte twice, and overwrites what it reads only element by element, through the same view."""
        kernel, writes = self.header.kernels[step], self.writes[step]
        for index, region in enumerate(writes):
            if any(region.may_meet(other) for other in writes[:index]):
                self.fail(f"step {step} writes the same bytes twice")
            for access, other in zip(kernel.reads, self.reads[step], strict=True):
                if region.may_meet(other) and _view(access) != _view(kernel.writes[index]):
                    self.fail(f"step {step} overwrites what it still reads")

    def pair(self, first: int, second: int) -> None:
        for ours, theirs in (
            (self.writes[first], self.writes[second]),
            (self.writes[first], self.reads[second]),
            (self.reads[first], self.writes[second]),
        ):
            if any(a.may_meet(b) for a in ours for b in theirs):
                self.fail(f"steps {first} and {second} touch the same bytes, and no barrier is between them")


def _view(access: Access) -> tuple[object, ...]:
    return access.space, access.tensor, access.offset, access.shape, access.strides


def _cuts(moves: list[tuple[int, int]], size: int) -> tuple[tuple[int, int], ...]:
    """Every way to see a view as runs: the axes of small stride are inside them, the others between them."""
    axes = sorted(((dim, abs(stride)) for dim, stride in moves if stride), key=lambda axis: axis[1])
    cuts, run = [], size
    for i, (dim, stride) in enumerate(axes):
        cuts.append((run, math.gcd(*(outer for _, outer in axes[i:]))))
        run += (dim - 1) * stride
    return (*cuts, (run, 0))
