"""The gate's search among integers, floats of 8 bits and floats, with times and a verdict that are given."""

from collections.abc import Callable
from itertools import pairwise

from redline.builder.gate_plans import Plan, Row, Try, quickest, within
from redline.quant import FP8, INT8

GRIDS = (INT8, FP8)


def row(name: str, float_s: float | None, int8_s: float | None, fp8_s: float | None = None, noise: float = 0.01) -> Row:
    """Floats of 8 bits are four times as noisy."""
    tries = (Try(INT8, noise, int8_s),) + ((Try(FP8, 4 * noise, fp8_s),) if fp8_s is not None else ())
    return Row(name, float_s, tries)


def total(rows: list[Row], change: float = 0.0) -> Callable[[Plan], float]:
    """The sum of the layers' times, and ``change`` for every layer whose grid is not that of the one before."""

    def seconds(plan: Plan) -> float:
        grids = [plan.get(each.name) for each in rows]
        times = [each.float_s if grid is None else each.on(grid).seconds for each, grid in zip(rows, grids, strict=True)]
        moves = sum(a != b for a, b in pairwise(grids))
        return sum(t or 0.0 for t in times) + change * moves

    return seconds


def test_each_layer_takes_its_fastest_grid() -> None:
    rows = [row("a", 3, 2, 1), row("b", 3, 1, 2), row("c", 1, 2, 2)]
    assert quickest(rows, GRIDS, total(rows)) == {"a": FP8, "b": INT8}


def test_one_grid_for_all_where_changes_between_them_cost_more() -> None:
    rows = [row("a", 9, 2, 1), row("b", 9, 1, 2), row("c", 9, 2, 1)]
    assert quickest(rows, GRIDS, total(rows, change=2)) == dict.fromkeys("abc", FP8)


def test_next_to_nothing_is_not_worth_the_noise() -> None:
    rows = [row("a", 3, 2.0, 1.99), row("b", 3, 2.0, 1.5)]
    assert [each.fastest for each in rows] == [INT8, FP8]
    assert row("a", 3, None, 1.0).fastest == INT8, "what was not told apart"


def test_integers_alone_need_no_timing() -> None:
    def seconds(plan: Plan) -> float:
        raise AssertionError("nothing to choose from")

    assert quickest([row("a", 3, 1)], GRIDS[:1], seconds) == {"a": INT8}


def test_the_noisiest_go_to_integers_first() -> None:
    rows = [row("a", 9, 2, 1, 0.01), row("b", 9, 2, 1, 0.03), row("c", 9, 2, 1, 0.02)]
    plan = dict.fromkeys("abc", FP8)
    noise = lambda p: sum(next(r for r in rows if r.name == n).on(g).noise for n, g in p.items())  # noqa: E731
    assert within(rows, plan, lambda p: noise(p) <= 1.0) == plan
    assert within(rows, plan, lambda p: noise(p) <= 0.20) == {"a": FP8, "b": INT8, "c": FP8}
    assert within(rows, plan, lambda p: noise(p) <= 0.07) == {"a": INT8, "b": INT8, "c": INT8}
    assert within(rows, plan, lambda p: noise(p) <= 0.03) == {"a": INT8, "c": INT8}
    assert within(rows, plan, lambda p: noise(p) <= 0.01) == {"a": INT8}
    assert within(rows, plan, lambda p: False) is None


def test_a_plan_without_layers_is_float() -> None:
    assert within([row("a", 1, 2)], {}, lambda p: True) == {}


def test_the_table_says_what_was_measured_on_each_grid() -> None:
    entry = row("a", 3e-6, 2e-6, 1e-6, 0.01).entry(FP8)
    assert entry == {"layer": "a", "precision": "fp8", "noise": 0.04, "fp32_us": 3.0, "int8_us": 2.0, "fp8_us": 1.0}
    assert row("a", 3e-6, 2e-6).entry(None) == {
        "layer": "a",
        "precision": "fp32",
        "noise": 0.01,
        "fp32_us": 3.0,
        "int8_us": 2.0,
    }
