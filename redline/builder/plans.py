"""The plans of an engine before they are tuned: a profile's program for all its shapes, a bucket's for its own.

In: a model that has been read, and the shapes wanted. Out: parts, which the workshop makes into one engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from redline import frontend, passes
from redline.base.dtypes import DType
from redline.base.extents import Extent, dimension
from redline.base.shapes import StaticShape
from redline.builder.ragged import open_ragged
from redline.builder.shapes import Given, Shapes, Source, fixed_profile, open_first, profiles
from redline.builder.wanted import Fixed, Wanted, largest, name_of
from redline.ir import Graph
from redline.lower import Program, large_ones, lower
from redline.lower.opening import Opened


@dataclass(frozen=True)
class Part:
    """A plan. ``program``: for all its shapes; ``largest``: the same steps at the largest one; ``shapes``: what is open."""

    name: str
    program: Program
    largest: Program
    shapes: Shapes | None = None

    @staticmethod
    def opened(name: str, found: tuple[Opened, Shapes]) -> "Part":
        return Part(name, found[0].program, found[0].largest, found[1])


@dataclass(frozen=True)
class Device:
    """What differs between devices; processors are the default.

    ``signed``: see ``passes.optimize``. ``adapt`` finishes a program. ``dimension`` makes open extents. ``by_size``: what
    is stored in 16 bits depends on the size that it has at the largest shape. ``wide_taps``: see ``lower``.
    """

    signed: bool = False
    adapt: Callable[[Program], Program] = lambda program: program
    dimension: Callable[[int, int, int, int], Extent] = dimension
    by_size: bool = False
    wide_taps: bool = False


@dataclass
class Reader:
    """A model at any shapes. ``storage``: see ``lower``; ``num_nodes``: of the graph that was read last.

    ``device``: what else lowering must know of it.
    """

    model: frontend.Parsed
    freeze: Mapping[str, frontend.Frozen]
    storage: DType | None = None
    device: Device = field(default_factory=lambda: Device())
    num_nodes: int = field(default=0, init=False)

    def graph(self, shapes: Fixed, counts: Sequence[int] = ()) -> Graph:
        found = frontend.load(self.model, shapes=shapes, freeze=self.freeze, counts=counts)
        self.num_nodes = sum(1 for _ in found.operations)
        return found

    def found(self, shapes: Fixed) -> Sequence[int]:
        return frontend.found(self.graph(shapes))

    def optimized(self, shapes: Fixed, counts: Sequence[int] = ()) -> Graph:
        return passes.optimize(self.graph(shapes, counts), signed=self.device.signed)

    def source(self, most: Fixed) -> Source:
        """The programs that become one; ``most``: the largest shapes."""
        large = large_ones(self.optimized(most)) if self.device.by_size else None

        def lowered(shapes: Fixed, counts: Sequence[int] = ()) -> Program:
            graph, wide = self.optimized(shapes, counts), self.device.wide_taps
            return self.device.adapt(lower(graph, self.storage, is_open=large is None, large=large, wide_taps=wide))

        return Source(lowered, self.found, self.device.dimension)


def parts_of(reader: Reader, wanted: Wanted) -> Iterator[Part]:
    """The plans of all profiles, then those of the buckets."""
    for number, given in enumerate(wanted.profiles):
        yield _profile(reader, given, name_of(number, len(wanted.profiles)))
    for name, shapes in wanted.buckets.items():
        yield _fixed(reader, shapes, name)


def ragged_part(reader: Reader, given: Given) -> Part:
    """The plan for sequences that lie one behind the other."""
    lowered = lambda graph: lower(graph, reader.storage, is_open=True)  # noqa: E731
    return Part.opened("ragged", open_ragged(given, frontend.declared(reader.model), reader.optimized, lowered))


def _profile(reader: Reader, given: Given, name: str) -> Part:
    tries = list(profiles(given, frontend.declared(reader.model)))
    if not tries:
        return _fixed(reader, largest(given), name)
    return Part.opened(name, open_first(tries, reader.source(largest(given))))


def _fixed(reader: Reader, shapes: Mapping[str, StaticShape], name: str) -> Part:
    """The plan for one shape of each input; what only a run finds may still be open."""
    graph = reader.graph(shapes)
    if frontend.found(graph):
        return Part.opened(name, fixed_profile(shapes).open(reader.source(shapes)))
    device, optimized = reader.device, passes.optimize(graph, signed=reader.device.signed)
    program = device.adapt(lower(optimized, reader.storage, wide_taps=device.wide_taps))
    return Part(name, program, program)
