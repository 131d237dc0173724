"""The timing protocol on a clock that only moves when told: who runs when, what is counted, what the statistics are."""

import pytest

from redline.cli.timing import WARM_UP_CALLS, Clock, Stats, alternate, percentile, rotated


class FakeTime:
    """A clock and a log of everything that happened on it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.log: list[str] = []

    def clock(self) -> Clock:
        return Clock(lambda: self.now_s, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.log.append("pause")

    def contestant(self, name: str, *seconds: float):
        """A call that takes the given times in turn, the last one for ever."""
        left = list(seconds)

        def call() -> None:
            self.now_s += left.pop(0) if len(left) > 1 else left[0]
            self.log.append(name)

        return call


def test_contestants_take_turns_in_blocks_and_each_round_starts_with_another() -> None:
    time = FakeTime()
    calls = {"a": time.contestant("a", 0.5), "b": time.contestant("b", 0.5)}
    alternate(calls, seconds_per_block=1.0, blocks=2, clock=time.clock())
    warm_up = ["a"] * WARM_UP_CALLS + ["pause"] + ["b"] * WARM_UP_CALLS + ["pause"]
    rounds = ["a", "a", "pause", "b", "b", "pause", "b", "b", "pause", "a", "a", "pause"]
    assert time.log == warm_up + rounds


def test_neither_the_warm_up_nor_the_first_call_of_a_block_is_counted() -> None:
    time = FakeTime()
    slow_at_first = time.contestant("a", 9, 9, 9, 5, 0.25, 0.25, 5, 0.25, 0.25, 0.25)
    stats = alternate({"a": slow_at_first}, 5.5, pause_s=0.25, blocks=2, clock=time.clock())["a"]
    assert (stats.calls, stats.min_s, stats.mean_s) == (4, 0.25, 0.25)


def test_a_call_longer_than_a_block_is_still_counted_once_a_block() -> None:
    time = FakeTime()
    stats = alternate({"a": time.contestant("a", 3.0)}, seconds_per_block=1.0, blocks=3, clock=time.clock())["a"]
    assert (stats.calls, stats.median_s) == (3, 3.0)


def test_pauses_are_no_part_of_a_time() -> None:
    time = FakeTime()
    contest = {"a": time.contestant("a", 0.5), "b": time.contestant("b", 0.25)}
    stats = alternate(contest, pause_s=100.0, blocks=2, clock=time.clock())
    assert {name: found.p99_s for name, found in stats.items()} == {"a": 0.5, "b": 0.25}


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (10, 1), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)])
def test_percentiles_are_nearest_ranks(percent: float, expected: float) -> None:
    assert percentile(range(1, 11), percent) == expected


def test_statistics_do_not_depend_on_the_order() -> None:
    assert Stats.of([3.0, 1.0, 2.0]) == Stats.of([1.0, 2.0, 3.0]) == Stats(3, 1.0, 2.0, 3.0, 3.0, 2.0)


def test_nobody_to_time_is_no_error() -> None:
    assert alternate({}) == {} and rotated([], 3) == []
