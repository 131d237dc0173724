"""Dynamic batching, pure: a queue, a callable that runs a batch, and a clock that is given. No threads, no event loop.

``submit`` puts an item in the queue, ``poll`` runs what is ready while slots are free and says when to poll again, ``release``
frees a slot. Items wait in groups of one key (a key stands for compatible shapes) within levels of priority, 1 being the
first. Its laws are in tests/server/test_batcher_laws.py.
"""

import heapq
import itertools
from collections.abc import Callable, Hashable

from redline.server.config import Batching, QueuePolicy
from redline.server.errors import Kind, ServeError, invalid, unavailable
from redline.server.learner import Learner
from redline.server.waiting import Item, Level

SCANNED_GROUPS = 64
__all__ = ["Batcher", "Item"]


class Batcher:
    """See the module. ``run(items)`` starts a batch; ``expire(item, error)`` answers an item whose time is up."""

    def __init__(
        self,
        max_batch: int,
        rules: Batching,
        run: Callable[[list[Item]], None],
        expire: Callable[[Item, ServeError], None],
        clock: Callable[[], float],
        slots: int = 1,
        learner: Learner | None = None,
    ) -> None:
        self._max_batch, self._rules, self._run, self._expire, self._clock = max(1, max_batch), rules, run, expire, clock
        self._free, self._learner = slots, learner if rules.adaptive else None
        self._numbers = itertools.count()
        self._levels: dict[int, Level] = {}
        self._late: dict[int, Level] = {}  # items past their time whose policy is to be delayed, not to fail
        self._counts: dict[int, int] = {}
        self._deadlines: list[tuple[float, int, Item]] = []
        self._delay_s = rules.max_delay_us / 1e6
        self.waiting = 0

    def policy(self, priority: int) -> QueuePolicy:
        return self._rules.policies.get(priority, self._rules.policy)

    def submit(self, item: Item) -> None:
        """Queues an item; raises ServeError for a full queue, an unknown priority or more rows than a batch may have."""
        rules = self._rules
        item.priority = item.priority if rules.priority_levels and item.priority else rules.default_priority
        if item.priority > rules.priority_levels:
            raise invalid("priority", f"{item.priority} is too large", f"allowed: 1..{rules.priority_levels}")
        if not 0 < item.size <= self._max_batch:
            raise invalid("batch", f"the request has {item.size} rows", f"allowed: 1..{self._max_batch}, max_batch_size")
        policy = self.policy(item.priority)
        if policy.max_size and self._counts.get(item.priority, 0) >= policy.max_size:
            raise unavailable("queue", f"it holds {policy.max_size} requests", "the model's max_queue_size", "try again later")
        now = item.arrived = self._clock()
        item.number, item.waiting = next(self._numbers), True
        timeout_s = self._timeout_s(item, policy)
        item.deadline = now + timeout_s if timeout_s else None
        if item.deadline is not None:
            heapq.heappush(self._deadlines, (item.deadline, item.number, item))
        level = self._levels.get(item.priority)
        if level is None:
            level = self._levels[item.priority] = Level()
            self._levels = dict(sorted(self._levels.items()))
        level.push(item)
        self._counts[item.priority] = self._counts.get(item.priority, 0) + 1
        self.waiting += 1
        if self._learner is not None:
            self._learner.arrived(now)

    @staticmethod
    def _timeout_s(item: Item, policy: QueuePolicy) -> float:
        """The request's own timeout where it is shorter or may override the policy's, else the policy's; 0 for none."""
        own, default = item.deadline or 0.0, policy.timeout_us / 1e6
        if own and (policy.allow_override or not default):
            return own
        return min(own, default) if own else default

    def cancel(self, item: Item) -> bool:
        """Takes an item out of the queue; False when it has left the queue already."""
        if not item.waiting:
            return False
        self._remove(item)
        item.payload = None
        return True

    def _remove(self, item: Item) -> None:
        item.waiting = False
        level = (self._late if item.late else self._levels)[item.priority]
        level.rows[item.key] -= item.size
        self._left(item)

    def _left(self, item: Item) -> None:
        self._counts[item.priority] -= 1
        self.waiting -= 1

    def release(self) -> None:
        """A batch is over: its slot is free."""
        self._free += 1

    def poll(self) -> float | None:
        """Runs what is ready and fails what is late; the time to poll again, None if only new events can change anything."""
        now = self._clock()
        self._expire_late(now)
        while self._free > 0 and self.waiting:
            batch, wake = self._next(now)
            if not batch:
                return self._sooner(wake)
            for item in batch:
                self._left(item)
            self._free -= 1
            self._run(batch)
        return self._sooner(None)

    def _sooner(self, wake: float | None) -> float | None:
        deadline = self._deadlines[0][0] if self._deadlines else None
        return min((t for t in (wake, deadline) if t is not None), default=None)

    def _expire_late(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].waiting):
            _, _, item = heapq.heappop(self._deadlines)
            if not item.waiting:
                continue
            if self.policy(item.priority).delay:
                self._postpone(item)
                continue
            self._remove(item)
            waited_us = round((now - item.arrived) * 1e6)
            self._expire(
                item, ServeError(Kind.TIMEOUT, "timeout", f"Request timeout expired after {waited_us} us in the queue")
            )

    def _postpone(self, item: Item) -> None:
        """Moves an item behind all that are in time."""
        level = self._levels[item.priority]
        level.groups[item.key].remove(item)
        level.rows[item.key] -= item.size
        item.late = True
        self._late.setdefault(item.priority, Level()).push(item)

    def _next(self, now: float) -> tuple[list[Item], float | None]:
        """The next batch, or none and the time at which waiting for a fuller one ends."""
        for levels in (self._levels, self._late):
            for priority, level in levels.items():
                first = level.first()
                if first is None:
                    continue
                wake: float | None = None
                for item in self._candidates(level, first):
                    size, due = self._size_of(item, now)
                    if size:
                        return self._fill(item, size, levels, priority), None
                    wake = due if wake is None else min(wake, due)
                return [], wake
        return [], None

    def _candidates(self, level: Level, first: Item) -> list[Item]:
        """The heads of some groups, the oldest first: a younger group may be full while the oldest waits for company."""
        if len(level.groups) == 1 or not self._delay_s:
            return [first]
        keys = list(itertools.islice(level.groups, SCANNED_GROUPS))
        heads = [head for key in keys if (head := level.head(key)) is not None and head is not first]
        return [first, *sorted(heads, key=lambda item: item.number)]

    def _size_of(self, head: Item, now: float) -> tuple[int, float]:
        """How many rows to run now with ``head``; 0 to wait until the time given."""
        rows = self._rows(head.key)
        limit = min(self._max_batch, rows)
        preferred = max((p for p in self._rules.preferred if p <= rows), default=0)
        if self._learner is not None:
            ideal = self._learner.best(self._max_batch)
            if ideal <= limit:
                return max(self._learner.best(limit), head.size), now
            limit = max(self._learner.best(limit), head.size)
        if rows >= self._max_batch or preferred:
            return max(preferred or limit, head.size), now
        delay_s = self._delay_s
        if self._rules.auto_delay and self._learner is not None:
            delay_s = min(delay_s, self._learner.worth_waiting_s(rows))
        due = head.arrived + delay_s
        return (limit, now) if due <= now else (0, due)

    def _rows(self, key: Hashable) -> int:
        if len(self._levels) == 1 and not self._late:
            return next(iter(self._levels.values())).rows.get(key, 0)
        return sum(level.rows.get(key, 0) for levels in (self._levels, self._late) for level in levels.values())

    def _fill(self, head: Item, limit: int, levels: dict[int, Level], priority: int) -> list[Item]:
        """Items of the head's group, then of the same key in the levels behind it, up to ``limit`` rows."""
        taken: list[Item] = []
        rows = 0
        behind = [(levels, priority)]
        if len(self._levels) > 1 or self._late:
            behind += [(self._levels, p) for p in self._levels if levels is self._levels and p > priority]
            behind += [(self._late, p) for p in self._late if (levels is not self._late or p > priority)]
        for group_levels, p in behind:
            rows += group_levels[p].take(head.key, limit - rows, taken)
        return taken
