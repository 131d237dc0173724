"""Which layer of a model is on which grid, or in float: the search of the gate, knowing of engines only what they take and do.

A plan names the grid of every layer that is quantized; a layer that it does not name stays in float.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redline.quant import Grid

Plan = Mapping[str, Grid]
WORTH = 0.98  # of the integers' time: a layer on another grid is noisier, and has to gain something for that


@dataclass(frozen=True)
class Try:
    """A layer on one grid: the relative noise of its output, and its kernel's seconds; None where not told apart."""

    grid: Grid
    noise: float
    seconds: float | None


@dataclass(frozen=True)
class Row:
    """A layer in the table: its seconds in float, and what was tried, the integers first."""

    name: str
    float_s: float | None
    tries: tuple[Try, ...]

    def on(self, grid: Grid) -> Try:
        return next(each for each in self.tries if each.grid == grid)

    def gains(self, grid: Grid) -> bool:
        seconds = self.on(grid).seconds
        return self.float_s is None or seconds is None or seconds < self.float_s

    @property
    def fastest(self) -> Grid:
        """The grid of the fastest kernel; that of the integers where the others gain next to nothing on it."""
        base, *others = self.tries
        known = [each for each in others if each.seconds is not None and base.seconds is not None]
        quicker = [each for each in known if each.seconds < WORTH * base.seconds]  # type: ignore[operator]
        return min(quicker, key=lambda each: each.seconds or 0.0).grid if quicker else base.grid

    def entry(self, grid: Grid | None) -> dict[str, Any]:
        """What the report says of the layer: its noise on the grid that it has got, of integers where it stays in float."""
        micro = lambda s: None if s is None else round(s * 1e6, 1)  # noqa: E731
        noise = (self.tries[0] if grid is None else self.on(grid)).noise
        times = {f"{each.grid.name}_us": micro(each.seconds) for each in self.tries}
        precision = "fp32" if grid is None else grid.name
        return {
            "layer": self.name,
            "precision": precision,
            "noise": float(f"{noise:.3g}"),
            "fp32_us": micro(self.float_s),
            **times,
        }


def quickest(rows: Sequence[Row], grids: Sequence[Grid], seconds: Callable[[Plan], float]) -> Plan:
    """The fastest plan: all layers on one grid, or each on its fastest, without those that gain nothing if that is faster."""
    plans: list[Plan] = [{row.name: grid for row in rows} for grid in grids]
    mixed = {row.name: row.fastest for row in rows}
    plans += [mixed] if len(grids) > 1 and mixed not in plans else []
    whole = plans[0] if len(plans) == 1 else min(plans, key=seconds)
    gaining = {row.name: whole[row.name] for row in rows if row.gains(whole[row.name])}
    return gaining if len(gaining) < len(whole) and seconds(gaining) < seconds(whole) else whole


def within(rows: Sequence[Row], plan: Plan, passes: Callable[[Plan], bool]) -> Plan | None:
    """The part of ``plan`` that passes the gate, as few layers changed as it takes, the noisiest first: to integers, then to
    float. None where no layer may stay."""
    tries = {row.name: row for row in rows}
    noisiest = sorted(plan, key=lambda name: -tries[name].on(plan[name]).noise)
    integers = {name: tries[name].tries[0].grid for name in plan}
    plan, _ = _fewest(plan, [name for name in noisiest if plan[name] != integers[name]], integers, passes)
    if not plan or passes(plan):
        return plan
    noisiest = sorted(plan, key=lambda name: -tries[name].on(plan[name]).noise)
    plan, count = _fewest(plan, noisiest, {}, passes)
    return plan if count < len(noisiest) else None


def _fewest(plan: Plan, order: Sequence[str], other: Plan, passes: Callable[[Plan], bool]) -> tuple[Plan, int]:
    """``plan`` with as few of ``order`` as pass, from its start, on their grid in ``other`` (or in float), and how many. With
    all of them nobody asks whether it passes."""

    def after(count: int) -> Plan:
        changed = set(order[:count])
        return {n: other[n] if n in changed else grid for n, grid in plan.items() if n not in changed or n in other}

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(after(middle)) else (middle + 1, high)
    return after(low), low
