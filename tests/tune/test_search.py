"""The search with planted times: the fastest wins, the level limits the field, and a known time is not measured again."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pytest

from redline.base import dtypes
from redline.codegen.c import isa
from redline.codegen.c.toolchain import Toolchain
from redline.kernels import FAMILIES, matmul
from redline.kernels.expr import Acc
from redline.kernels.problem import Operand
from redline.tune import Choice, Job, TimingCache, choose, contest, search
from redline.tune.harness import Candidate

TARGET = isa.target("avx512", num_threads=2)
COMPILER = Toolchain("zig", Path("/nowhere"), "0")


def job(rows: int = 64, columns: int = 96) -> Job:
    shapes = {"a": (rows, 128), "b": (128, columns), "out": (rows, columns)}
    a, b, out = (Operand.contiguous(dtypes.float32, shape, name == "b") for name, shape in shapes.items())
    return Job("matmul", matmul.problem.Problem(a, b, out, Acc(dtypes.float32), ()))


class Stopwatch:
    """Stands for the harness: gives planted times and remembers what it was asked."""

    asked: list[str]
    planted: dict[str, float]

    def __init__(self, candidates: Sequence[Candidate], objects: Sequence[bytes], *rest: object) -> None:
        assert len(candidates) == len(objects) <= search.BATCH
        self.candidates = candidates

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def seconds(self, index: int) -> float:
        self.asked.append(self.candidates[index].schedule)
        return self.planted.get(self.candidates[index].schedule, 1e-3)

    def in_turns(self) -> list[float]:
        self.asked += [candidate.schedule for candidate in self.candidates]
        return [self.planted.get(candidate.schedule, 1e-3) for candidate in self.candidates]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> type[Stopwatch]:
    monkeypatch.setattr(Stopwatch, "asked", [], raising=False)
    monkeypatch.setattr(Stopwatch, "planted", {}, raising=False)
    monkeypatch.setattr(search, "Harness", Stopwatch)
    monkeypatch.setattr(search, "compile_objects", lambda texts, *rest, **options: [b""] * len(texts))
    return Stopwatch


def chosen(jobs: Sequence[Job], level: int, cache: TimingCache | None = None) -> dict[Job, Choice]:
    return choose(jobs, TARGET, COMPILER, level, cache or TimingCache("machine"), lambda stage, done, total: None)


def schedules(of: Job) -> list[str]:
    return [repr(schedule) for schedule in FAMILIES[of.family].schedules(of.problem, TARGET)]


@pytest.mark.parametrize("position", [0, 1, 3, -1])
def test_the_fastest_of_planted_times_wins(watch: type[Stopwatch], position: int) -> None:
    wanted = schedules(job())[:8][position]
    watch.planted[wanted] = 1e-6
    choice = chosen([job()], 3)[job()]
    assert (repr(choice.schedule), choice.seconds) == (wanted, 1e-6)
    assert choice.code == FAMILIES["matmul"].render(job().problem, choice.schedule, TARGET)


@pytest.mark.parametrize(("level", "most"), [(0, 1), (1, 2), (2, 6), (3, 16), (4, 32), (5, 10**9)])
def test_the_level_limits_the_candidates(watch: type[Stopwatch], level: int, most: int) -> None:
    available = len(schedules(job()))
    assert available > 8, "the problem of this test has too few schedules"
    choice = chosen([job()], level)[job()]
    assert choice.num_candidates <= min(most, available)
    assert len(watch.asked) == (choice.num_candidates if level else 0)
    assert watch.asked == schedules(job())[: len(watch.asked)] or level == 5


def test_level_0_takes_the_first_guess_whatever_the_cache_says(watch: type[Stopwatch]) -> None:
    cache = TimingCache("machine")
    cache.record(job().key, schedules(job())[1], 1e-9)
    choice = chosen([job()], 0, cache)[job()]
    assert (repr(choice.schedule), choice.seconds) == (schedules(job())[0], None)


def test_known_times_are_not_measured_again(watch: type[Stopwatch]) -> None:
    cache = TimingCache("machine")
    first = chosen([job()], 2, cache)
    watch.asked.clear()
    assert chosen([job()], 2, cache) == first
    assert watch.asked == []
    chosen([job()], 3, cache)
    assert watch.asked == [s for s in schedules(job())[:16] if s not in schedules(job())[:6]]


def test_equal_problems_are_one(watch: type[Stopwatch]) -> None:
    found = chosen([job(), job(), job(rows=65)], 1)
    assert set(found) == {job(), job(rows=65)}
    assert len(watch.asked) == 4


def test_of_equal_times_the_better_guess_wins(watch: type[Stopwatch]) -> None:
    assert repr(chosen([job()], 3)[job()].schedule) == schedules(job())[0]


def test_what_was_measured_before_an_interrupt_is_kept(
    watch: type[Stopwatch], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(search, "BATCH", 2)
    cache = TimingCache("machine", tmp_path / "timings.json")

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "time" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose([job()], TARGET, COMPILER, 3, cache, stop)
    kept = TimingCache.open(tmp_path / "timings.json", "machine")
    assert list(kept.entries[job().key]) == sorted(schedules(job())[:4])


def test_progress_counts_to_the_end(watch: type[Stopwatch]) -> None:
    seen: list[tuple[str, int, int]] = []
    choose([job()], TARGET, COMPILER, 2, TimingCache("machine"), lambda *event: seen.append(event))
    assert [event for event in seen if event[0] == "time"] == [("time", i + 1, 6) for i in range(6)]


def test_batches_keep_problems_together() -> None:
    limit = search.BATCH
    problems = ["a"] * 60 + ["b"] * 60 + ["c"] * 30 + ["d"] * (2 * limit + 10)
    assert list(search._batches(problems)) == [
        (0, 60), (60, 150), (150, 150 + limit), (150 + limit, 150 + 2 * limit), (150 + 2 * limit, 160 + 2 * limit),
    ]  # fmt: skip
    assert list(search._batches([])) == []


def test_a_contest_is_timed_once_and_counts_equal_parts_each(watch: type[Stopwatch]) -> None:
    first, second = (chosen([job(rows)], 0)[job(rows)] for rows in (64, 32))
    watch.planted = {repr(first.schedule): 3e-3, repr(second.schedule): 2e-3}
    cache = TimingCache("machine")
    times = [contest((first, first), second, TARGET, COMPILER, cache) for _ in range(2)]
    assert times == [(pytest.approx(6e-3), pytest.approx(2e-3))] * 2
    assert sorted(watch.asked) == sorted([repr(first.schedule), repr(second.schedule)])
