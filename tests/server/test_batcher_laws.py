"""The laws of the batcher, over random arrivals, sizes, shapes, priorities, timeouts, cancellations and failures.

A simulation with its own clock: events arrive at random times, each batch takes a random time, and the trace of what the
batcher did is judged afterwards.
"""

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.server.batcher import Batcher, Item
from redline.server.config import Batching, QueuePolicy
from redline.server.errors import Kind, ServeError
from redline.server.learner import Learner

MAX = 8
US = 1e-6


@dataclass
class Request:
    at: float
    size: int
    key: int = 0
    priority: int = 0
    timeout_us: int = 0
    cancel_after: float | None = None
    number: int = 0
    answers: list[str] = field(default_factory=list)
    started: float | None = None


@dataclass
class Trace:
    batches: list[tuple[float, float, list[Request]]] = field(default_factory=list)
    refused: list[Request] = field(default_factory=list)
    answered: list[Request] = field(default_factory=list)
    waiting_at_start: list[list[Request]] = field(default_factory=list)


def simulate(requests, rules, durations, slots=1, max_batch=MAX, learner=None) -> Trace:
    """Runs the batcher through the requests; the n-th batch takes the n-th duration, over and over."""
    trace, events, now = Trace(), [], [0.0]
    order = iter(range(1 << 30))
    inside: list[Request] = []

    def push(time, what):
        heapq.heappush(events, (time, next(order), what))

    def run(items):
        members = [item.payload for item in items]
        seconds = durations[len(trace.batches) % len(durations)]
        trace.waiting_at_start.append([r for r in inside if r not in members])
        trace.batches.append((now[0], seconds, members))
        for member in members:
            inside.remove(member)
            member.started = now[0]
        push(now[0] + seconds, lambda: done(members))

    def done(members):
        for member in members:
            member.answers.append("done")
            trace.answered.append(member)
        batcher.release()

    def expire(item, error):
        assert error.kind is Kind.TIMEOUT
        inside.remove(item.payload)
        item.payload.answers.append("late")

    def arrive(request):
        item = Item(request, request.size, request.key, request.priority, request.timeout_us)
        inside.append(request)
        try:
            batcher.submit(item)
        except ServeError:
            inside.remove(request)
            trace.refused.append(request)
            request.answers.append("refused")
            return
        if request.cancel_after is not None:
            push(now[0] + request.cancel_after, lambda: cancel(item, request))

    def cancel(item, request):
        if batcher.cancel(item):
            inside.remove(request)
            request.answers.append("cancelled")

    batcher = Batcher(max_batch, rules, run, expire, lambda: now[0], slots, learner)
    for number, request in enumerate(requests):
        request.number = number
        push(request.at, lambda r=request: arrive(r))
    while events:
        now[0], _, what = heapq.heappop(events)
        what()
        while events and events[0][0] == now[0]:
            heapq.heappop(events)[2]()
        wake = batcher.poll()
        if wake is not None:
            push(max(wake, now[0]), lambda: None)
    assert batcher.waiting == 0 and not inside
    return trace


times = st.integers(0, 5000).map(lambda us: us * US)
sizes = st.integers(1, MAX)
plain_requests = st.lists(st.builds(Request, at=times, size=sizes, key=st.integers(0, 2)), max_size=40)
wild_requests = st.lists(
    st.builds(
        Request, at=times, size=sizes, key=st.integers(0, 2), priority=st.integers(0, 3),
        timeout_us=st.sampled_from([0, 0, 50, 500, 5000]),
        cancel_after=st.one_of(st.none(), st.integers(0, 3000).map(lambda us: us * US)),
    ),
    max_size=40,
)  # fmt: skip
durations = st.lists(st.integers(1, 2000).map(lambda us: us * US), min_size=1, max_size=4)
policies = st.builds(
    QueuePolicy, max_size=st.sampled_from([0, 0, 3, 10]), timeout_us=st.sampled_from([0, 300, 3000]),
    allow_override=st.booleans(), delay=st.booleans(),
)  # fmt: skip
wild_rules = st.builds(
    Batching, preferred=st.sampled_from([(), (4,), (2, 8), (3, 5)]), max_delay_us=st.sampled_from([0, 100, 1000]),
    priority_levels=st.just(3), default_priority=st.integers(1, 3), policy=policies, adaptive=st.booleans(),
    auto_delay=st.booleans(),
)  # fmt: skip
learners = st.builds(
    lambda base, slope: Learner((1, 2, 4, 8), {s: base + slope * s for s in (1, 2, 4, 8)}),
    st.integers(1, 1000).map(lambda us: us * US), st.integers(0, 1000).map(lambda us: us * US),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(wild_requests, wild_rules, durations, st.integers(1, 3), st.one_of(st.none(), learners))
def test_every_request_is_answered_exactly_once(requests, rules, seconds, slots, learner):
    simulate(requests, rules, seconds, slots, learner=learner)
    assert all(len(r.answers) == 1 for r in requests)


@settings(max_examples=600, deadline=None)
@given(wild_requests, wild_rules, durations, st.integers(1, 3), st.one_of(st.none(), learners))
def test_no_batch_is_too_large_or_mixes_shapes(requests, rules, seconds, slots, learner):
    for _, _, members in simulate(requests, rules, seconds, slots, learner=learner).batches:
        assert 0 < sum(m.size for m in members) <= MAX
        assert len({m.key for m in members}) == 1


@settings(max_examples=400, deadline=None)
@given(wild_requests, wild_rules, durations, st.integers(1, 3))
def test_no_more_batches_at_a_time_than_slots(requests, rules, seconds, slots):
    batches = simulate(requests, rules, seconds, slots).batches
    for start, _, _ in batches:
        assert sum(s <= start < s + d for s, d, _ in batches) <= slots


@settings(max_examples=400, deadline=None)
@given(plain_requests, st.sampled_from([(), (4,), (2, 8)]), st.sampled_from([0, 100, 1000]), durations, st.integers(1, 3))
def test_requests_of_one_shape_start_in_their_order(requests, preferred, delay, seconds, slots):
    simulate(requests, Batching(preferred=preferred, max_delay_us=delay), seconds, slots)
    for key in range(3):
        same = sorted((r for r in requests if r.key == key), key=lambda r: (r.at, r.number))
        started = [r.started for r in same]
        assert started == sorted(started)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.builds(Request, at=times, size=st.just(1)), max_size=MAX), st.sampled_from([0, 100, 1000]), durations)
def test_no_request_waits_past_the_delay_and_one_execution(requests, delay, seconds):
    """For requests that fit one batch together: whoever arrives waits for the batch that runs, or for the delay, not both."""
    trace = simulate(requests, Batching(max_delay_us=delay), seconds)
    for request in requests:
        running = [s + d for s, d, members in trace.batches if s <= request.at < s + d and request not in members]
        latest = max([request.at + delay * US, *running]) if running else request.at + delay * US
        blocked = [
            s + d for s, d, members in trace.batches if s < request.started and s >= request.at and request not in members
        ]
        assert request.started <= max([latest, *blocked]) + 1e-9


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.builds(Request, at=times, size=sizes, key=st.integers(0, 1), priority=st.integers(1, 3)), max_size=30),
    durations, st.integers(1, 2),
)  # fmt: skip
def test_higher_priority_first(requests, seconds, slots):
    trace = simulate(requests, Batching(priority_levels=3, default_priority=2), seconds, slots)
    for (_, _, members), waiting in zip(trace.batches, trace.waiting_at_start, strict=True):
        best = min(m.priority for m in members)
        assert all(w.priority >= best for w in waiting)


@settings(max_examples=400, deadline=None)
@given(plain_requests, st.data(), durations)
def test_a_request_that_is_cancelled_or_late_changes_no_other_answer(requests, data, seconds):
    gone = data.draw(st.sets(st.integers(0, max(0, len(requests) - 1)))) if requests else set()
    for index in gone:
        if index % 2:
            requests[index].cancel_after = 0.0
        else:
            requests[index].timeout_us = 1
    simulate(requests, Batching(max_delay_us=100), seconds)
    for index, request in enumerate(requests):
        assert len(request.answers) == 1
        if index not in gone:
            assert request.answers == ["done"]


@settings(max_examples=300, deadline=None)
@given(wild_requests, durations)
def test_nobody_runs_after_its_deadline(requests, seconds):
    for request in requests:
        request.priority = 0
    simulate(requests, Batching(policy=QueuePolicy(timeout_us=400)), seconds)
    for request in requests:
        if request.started is not None:
            assert request.started <= request.at + 400 * US + 1e-9


@settings(max_examples=300, deadline=None)
@given(plain_requests, durations, st.integers(1, 5))
def test_the_queue_holds_no_more_than_it_may(requests, seconds, limit):
    trace = simulate(requests, Batching(policy=QueuePolicy(max_size=limit)), seconds)
    assert all(len(waiting) <= limit for waiting in trace.waiting_at_start)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.builds(Request, at=times, size=st.just(1)), min_size=1, max_size=40), durations)
def test_batching_that_does_not_pay_is_not_done(requests, seconds):
    learner = Learner((1, 2, 4, 8), {size: size * 1e-3 for size in (1, 2, 4, 8)})
    trace = simulate(requests, Batching(max_delay_us=1000), seconds, learner=learner)
    alone = [start for start, _, members in trace.batches if len(members) == 1]
    assert alone[:1] == [requests_first(requests)]


def requests_first(requests):
    return min(r.at for r in requests)


def test_a_late_request_may_be_delayed_instead():
    policy = QueuePolicy(timeout_us=100, delay=True)
    requests = [Request(0.0, 8), Request(1e-6, 8, key=1), Request(2e-6, 8), Request(950e-6, 8, key=2)]
    trace = simulate(requests, Batching(policy=policy), [1e-3])
    assert [m[0].number for _, _, m in trace.batches] == [0, 3, 1, 2]


def test_the_learner_prefers_what_answers_most():
    grows = Learner((1, 2, 4, 8), {1: 1.0, 2: 1.1, 4: 1.3, 8: 1.7})
    assert [grows.best(n) for n in (1, 2, 3, 8, 20)] == [1, 2, 3, 8, 8]
    flat = Learner((1, 2, 4, 8), {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})
    assert [flat.best(n) for n in (1, 2, 8)] == [1, 1, 1]
    for _ in range(100):
        flat.executed(8, 2.0)
    assert flat.best(8) == 8


def test_requests_too_large_or_of_unknown_priority_are_refused():
    batcher = Batcher(4, Batching(), lambda items: None, lambda item, error: None, lambda: 0.0)
    with pytest.raises(ServeError, match="5 rows"):
        batcher.submit(Item(None, 5))
    with pytest.raises(ServeError, match="priority"):
        Batcher(4, Batching(priority_levels=2, default_priority=1), lambda i: None, lambda i, e: None, lambda: 0.0).submit(
            Item(None, 1, priority=3)
        )


def test_a_long_life_leaves_nothing_behind():
    """One entry a group, however many batches there were: the queue of a busy server stays as cheap as a new one's."""
    batcher = Batcher(4, Batching(), lambda items: batcher.release(), lambda item, error: None, lambda: 0.0)
    for n in range(5000):
        batcher.submit(Item(None, 1, n % 3))
        batcher.submit(Item(None, 1, "other"))
        batcher.poll()
    assert batcher.waiting == 0
    assert len(batcher._levels[0]._heads) <= 4 and len(batcher._levels[0].groups) <= 4 and not batcher._deadlines
