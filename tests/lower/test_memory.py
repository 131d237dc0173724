"""The memory plan: phases follow the data, and no two live temporaries overlap."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from redline.base import dtypes
from redline.lower.memory import ALIGNMENT, MAX_STEPS, assign_phases, plan
from redline.lower.program import Buffer, Step, View


def buffer(index, num_elements=100):
    return Buffer(index, "temp", dtypes.float32, num_elements)


def step(reads, writes):
    views = lambda buffers: tuple(View.whole(b, (b.num_elements,)) for b in buffers)  # noqa: E731
    return Step("nest", None, views(reads), views(writes), (), "")


def test_independent_steps_share_a_phase():
    a, b, c = map(buffer, range(3))
    assert assign_phases([step([], [a]), step([], [b]), step([a, b], [c])]) == (0, 0, 1)


def test_a_phase_is_only_so_long():
    """The plan checker refuses more than it can compare."""
    phases = assign_phases([step([], [buffer(i)]) for i in range(2 * MAX_STEPS + 1)])
    assert [phases.count(phase) for phase in range(3)] == [MAX_STEPS, MAX_STEPS, 1]


def test_memory_is_not_handed_on_within_a_phase():
    a, b, c = map(buffer, range(3))
    result = plan([step([], [a]), step([], [b]), step([b], [c])])
    assert len({result.offsets[x.index] for x in (a, b, c)}) >= 2
    assert result.offsets[a.index] != result.offsets[b.index]


def test_a_chain_needs_two_buffers():
    chain = [buffer(i) for i in range(10)]
    steps = [step([], [chain[0]])] + [step([x], [y]) for x, y in itertools.pairwise(chain)]
    assert plan(steps).arena_bytes == 2 * 448


@given(st.lists(st.tuples(st.integers(1, 300), st.lists(st.integers(0, 40), max_size=3)), min_size=1, max_size=40))
def test_live_temporaries_never_overlap(described):
    buffers = [buffer(i, elements) for i, (elements, _) in enumerate(described)]
    steps = [step([buffers[r % i] for r in reads] if i else [], [buffers[i]]) for i, (_, reads) in enumerate(described)]
    result = plan(steps)
    for x in range(len(steps)):
        for y in range(x):
            lives = [(result.phases[i], max(p for s, p in zip(steps, result.phases, strict=True)
                      if any(v.buffer == buffers[i] for v in s.reads + s.writes))) for i in (x, y)]  # fmt: skip
            if lives[0][0] <= lives[1][1] and lives[1][0] <= lives[0][1]:
                spans = [(result.offsets[i], result.offsets[i] + buffers[i].num_bytes) for i in (x, y)]
                assert spans[0][1] <= spans[1][0] or spans[1][1] <= spans[0][0]
    assert all(offset % ALIGNMENT == 0 for offset in result.offsets.values())
