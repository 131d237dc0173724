"""The shapes that a build is asked for: profiles (ranges, or fixed shapes) and named buckets, each of which becomes a plan.

In: what ``redline.build`` takes as ``shapes`` and ``buckets``. Out: the profiles in order, and the buckets by name, checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redline.base.errors import BuildError
from redline.base.shapes import ShapeRange, StaticShape, fixed
from redline.builder.shapes import Given

OPT = "opt"  # the bucket of this name may stand without shapes: the tuned shape of every profile
Fixed = Mapping[str, StaticShape]


@dataclass(frozen=True)
class Wanted:
    """``profiles``: at least one, maybe empty. ``buckets``: fixed shapes of the same inputs."""

    profiles: tuple[Given, ...] = ({},)
    buckets: Mapping[str, Fixed] = field(default_factory=dict)

    @staticmethod
    def of(shapes: Given | Sequence[Given] | None, buckets: Mapping[str, Fixed | None] | None) -> "Wanted":
        """Raises BuildError for buckets that are ranges, or of one shape with another."""
        profiles = (shapes or {},) if shapes is None or isinstance(shapes, Mapping) else tuple(shapes) or ({},)
        found: dict[str, Fixed] = {}
        for name, given in (buckets or {}).items():
            if given:
                found[name] = {**_fixed_of(profiles[0]), **fixed(given, f"bucket {name!r}")}
            elif name == OPT:
                found |= _tuned(profiles)
            else:
                raise BuildError("--bucket", f"{name!r} has no shapes", f"allowed: {OPT!r}", "as in short=input_ids:1x16")
        for i, (name, given) in enumerate(found.items()):
            same = next((other for other, shapes in list(found.items())[:i] if shapes == given), None)
            if same is not None:
                raise BuildError("--bucket", f"{same!r} and {name!r} have the same shapes", "", "leave one out")
        return Wanted(profiles, found)

    @property
    def num_plans(self) -> int:
        return len(self.profiles) + len(self.buckets)

    @property
    def is_open(self) -> bool:
        return any(isinstance(shape, ShapeRange) for given in self.profiles for shape in given.values())

    def only(self, what: str, remedy: str) -> Given:
        """The one profile of ``what``, which takes no more; raises BuildError where there are more, or buckets."""
        if self.num_plans > 1:
            seen = f"{what} with {len(self.profiles)} profiles and {len(self.buckets)} buckets"
            raise BuildError("--shapes", seen, "allowed: one profile, without buckets", remedy)
        return self.profiles[0]


def name_of(profile: int, count: int) -> str:
    """What the plan of profile number ``profile``, of ``count``, is called."""
    return "profile" if count == 1 else f"profile {profile + 1}"


def largest(given: Given) -> Fixed:
    return {name: shape.max if isinstance(shape, ShapeRange) else shape for name, shape in given.items()}


def _fixed_of(given: Given) -> Fixed:
    return {name: shape for name, shape in given.items() if not isinstance(shape, ShapeRange)}


def _tuned(profiles: Sequence[Given]) -> dict[str, Fixed]:
    """The tuned shapes of the profiles that have ranges."""
    found: dict[str, Fixed] = {}
    for number, given in enumerate(profiles):
        if any(isinstance(shape, ShapeRange) and shape.min != shape.max for shape in given.values()):
            name = OPT if len(profiles) == 1 else f"{OPT} {number + 1}"
            found[name] = {n: s.opt if isinstance(s, ShapeRange) else s for n, s in given.items()}
    return found
