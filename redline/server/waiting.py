"""What waits for a batch: items in groups of equal keys, within a level of priority. Pure."""

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Any


class Item:
    """A request in the queue: ``size`` rows, ``key`` of its shapes, ``deadline`` on the batcher's clock (None: no limit)."""

    __slots__ = ("arrived", "deadline", "key", "late", "number", "payload", "priority", "size", "waiting")

    def __init__(self, payload: Any, size: int = 1, key: Hashable = None, priority: int = 0, timeout_us: int = 0) -> None:
        self.payload, self.size, self.key, self.priority = payload, size, key, priority
        self.arrived, self.number, self.waiting, self.late = 0.0, 0, False, False
        self.deadline: float | None = timeout_us / 1e6 if timeout_us else None


class Level:
    """The groups of one priority, each a queue in the order of arrival, and the rows waiting in each."""

    __slots__ = ("_heads", "_listed", "groups", "rows")

    def __init__(self) -> None:
        self.groups: dict[Hashable, deque[Item]] = {}
        self.rows: dict[Hashable, int] = {}
        # One entry for each group in ``_listed``: the number of its first item, or of one that was first before.
        self._heads: list[tuple[int, Hashable]] = []
        self._listed: set[Hashable] = set()

    def push(self, item: Item) -> None:
        group = self.groups.get(item.key)
        if group is None:
            group = self.groups[item.key] = deque()
            self.rows[item.key] = 0
        if item.key not in self._listed:
            self._listed.add(item.key)
            heapq.heappush(self._heads, (item.number, item.key))
        group.append(item)
        self.rows[item.key] += item.size

    def first(self) -> Item | None:
        """The oldest item that still waits; drops what has been cancelled in front of it."""
        while self._heads:
            number, key = self._heads[0]
            item = self.head(key)
            if item is None:
                heapq.heappop(self._heads)
                self._listed.discard(key)
            elif item.number == number:
                return item
            else:
                heapq.heapreplace(self._heads, (item.number, key))
        return None

    def head(self, key: Hashable) -> Item | None:
        """The first waiting item of a group; an empty group is forgotten."""
        group = self.groups.get(key)
        if group is None:
            return None
        while group and not group[0].waiting:
            group.popleft()
        if group:
            return group[0]
        del self.groups[key], self.rows[key]
        return None

    def take(self, key: Hashable, limit: int, taken: list[Item]) -> int:
        """Moves items of a group to ``taken`` while they fit in ``limit`` rows; the rows moved."""
        moved = 0
        while (item := self.head(key)) is not None and moved + item.size <= limit:
            self.groups[key].popleft()
            self.rows[key] -= item.size
            item.waiting = False
            moved += item.size
            taken.append(item)
        return moved
