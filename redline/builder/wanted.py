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
        """What the first profile fixes holds for all that do not say otherwise.

        Raises BuildError for buckets that are ranges, without shapes, or of one shape or name with another plan.
        """
        given = [shapes or {}] if shapes is None or isinstance(shapes, Mapping) else list(shapes) or [{}]
        base = _fixed_of(given[0])
        profiles = tuple({**base, **profile} for profile in given)
        found: dict[str, Fixed] = {}
        for name, bucket in (buckets or {}).items():
            if not bucket and name != OPT:
                raise BuildError("--bucket", f"{name!r} has no shapes", f"allowed: {OPT!r}", "as in short=input_ids:1x16")
            new = {name: {**base, **fixed(bucket, f"bucket {name!r}")}} if bucket else _tuned(profiles)
            _check_new(new, found, [name_of(number, len(profiles)) for number in range(len(profiles))])
            found |= new
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


def _check_new(new: Mapping[str, Fixed], found: Mapping[str, Fixed], names: Sequence[str]) -> None:
    """Raises BuildError for buckets that are called like another plan, or have the shapes of another bucket."""
    for name, shapes in new.items():
        if name in found or name in names:
            raise BuildError("--bucket", f"{name!r} is what another plan is called", "", "choose another name")
        same = next((other for other, known in found.items() if known == shapes), None)
        if same is not None:
            raise BuildError("--bucket", f"{same!r} and {name!r} have the same shapes", "", "leave one out")


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
