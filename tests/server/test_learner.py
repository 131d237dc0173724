"""What batching is worth: found from times, not fooled by a machine that slows down, corrected where first times were wrong."""

import random

import pytest

from redline.server.learner import Learner


def test_the_size_of_the_best_rate():
    learner = Learner((1, 2, 4), {1: 30.0, 2: 45.0, 4: 90.0})
    assert [learner.best(n) for n in (1, 2, 3, 4, 9)] == [1, 2, 2, 2, 2]
    assert learner.time_s(1) == 30 and learner.time_s(3) == 90


def test_a_batch_that_gains_next_to_nothing_is_not_worth_its_latency():
    assert Learner((1, 2), {1: 30.0, 2: 58.7}).best(2) == 1
    assert Learner((1, 2), {1: 30.0, 2: 65.0}).best(2) == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_machine_that_slows_down_makes_no_batch_look_good(seed):
    """Only single requests run for long, at times that double: the batch of two, last timed on a quiet machine, stays out."""
    rng, learner = random.Random(seed), Learner((1, 2), {1: 30.0, 2: 60.0})
    for step in range(600):
        busy = 1.0 + 0.8 * (step // 100 % 2)
        learner.executed(1, 30.0 * busy * rng.choice([1.0, 1.02, 1.05, 2.0]))
        assert learner.best(2) == 1
    assert learner.time_s(1) > 45


@pytest.mark.parametrize("seed", range(5))
def test_pauses_do_not_turn_a_good_batch_off(seed):
    rng, learner = random.Random(seed), Learner((1, 4), {1: 10.0, 4: 25.0})
    for _ in range(500):
        size = rng.choice([1, 4])
        learner.executed(size, {1: 10.0, 4: 25.0}[size] * rng.choice([1.0, 1.0, 1.0, 1.0, 3.0]))
        assert learner.best(4) == 4


def test_first_times_that_were_wrong_are_corrected():
    """At load the batch of two looked good; it is not. And the other way round."""
    for told, true in ((40.0, 66.0), (66.0, 40.0)):
        learner, rng = Learner((1, 2), {1: 30.0, 2: told}), random.Random(1)
        for _ in range(200):
            size = rng.choice([1, 2])
            learner.executed(size, {1: 30.0, 2: true}[size])
        assert learner.best(2) == (1 if true == 66.0 else 2)


def test_sizes_that_were_never_timed_are_tried():
    learner = Learner((1, 8))
    assert learner.best(5) == 5
    learner.executed(1, 1.0)
    assert learner.best(5) == 5
    learner.executed(5, 2.0)
    assert learner.best(5) == 5 and learner.time_s(8) == 2.0
    learner.executed(20, 1.0)
    assert learner.time_s(8) == 2.0


def test_times_of_zero():
    learner = Learner((1, 2), {1: 0.0, 2: 0.0})
    assert learner.best(2) in (1, 2)
    learner.executed(1, 1.0)
    learner.executed(1, 1.0)
    assert learner.time_s(1) == 1.0
