"""The weights of a loaded engine: mapped, and checked block by block, each block before a step first reads it.

A thread goes through the blocks in the order in which the plan needs them, reads ahead, and compares each with its
checksum; that also maps its pages. A run that comes meanwhile stops before the first step whose blocks are not checked yet,
checks what nobody has begun, and goes on. So the first answer does not wait for a large file to be read whole. Each plan of an
engine has its own order; a block that two of them read is checked once, and one that no plan in use reads is not touched.

Nothing here is locked, so that a fork finds nothing held: what is shared changes in single steps of the interpreter.
"""

import itertools
import os
import threading
import time

from redline.base import cpu
from redline.engine import EngineFile, Header, blocks, checksum_text
from redline.runtime.library import Library

AHEAD = 8  # blocks that are asked for from the disk ahead of the one being checked
MAX_READERS = 4
POLL_S = 50e-6
GOOD, DAMAGED = 1, 2


class Blocks:
    """The weights blob at ``address``, and what is known of each of its blocks: ``seen`` is 0, GOOD or DAMAGED."""

    def __init__(self, file: EngineFile, header: Header, library: Library) -> None:
        self._file, self._library = file, library
        data = file.blob("weights")
        self.address: int = data.__array_interface__["data"][0]
        self.pieces = blocks(data.nbytes)
        self._expected = next(blob.checksums for blob in header.blobs if blob.name == "weights")
        self.seen = bytearray(len(self.pieces))

    def trust(self) -> None:
        """Takes every block for checked: the file has been compared with its SHA-256."""
        self.seen[:] = bytes([GOOD]) * len(self.seen)

    def check(self, block: int) -> None:
        if not self.seen[block]:
            start, end = self.pieces[block]
            found = checksum_text(self._library.checksum(self.address + start, end - start))
            self.seen[block] = GOOD if found == self._expected[block] else DAMAGED

    def read_ahead(self, block: int) -> None:
        self._file.read_ahead("weights", *self.pieces[block])

    def raise_if_damaged(self, block: int) -> None:
        if self.seen[block] == DAMAGED:
            raise self._file.damaged("weights", block)


class Weights:
    """The blocks that one plan reads. ``is_checked`` once every one of them has been compared with its checksum."""

    def __init__(self, shared: Blocks, header: Header) -> None:
        self._blocks, self.address = shared, shared.address
        self.needs, self._order = plan_order(header, shared.pieces)
        self._next, self._pid = itertools.count(), os.getpid()
        self._prefix = 0  # blocks of the order that are checked, counted up to the first that is not
        self._stop = False
        self._threads: list[threading.Thread] = []
        self._advance()

    @property
    def is_checked(self) -> bool:
        return self._prefix == len(self._order)

    def start(self) -> None:
        """Checks in the background; at once where there is only a block."""
        if len(self._order) <= 1:
            self.check(len(self._order))
        elif not self.is_checked:
            for block in self._order[:AHEAD]:
                self._blocks.read_ahead(block)
            self._add_readers(1)

    def preload(self) -> None:
        """Returns when every block is checked and mapped; several threads share the work."""
        self._add_readers(min(MAX_READERS, cpu.num_threads()) - 1 - len(self._threads))
        self.check(len(self._order))

    def stop(self) -> None:
        """Ends the background threads; the last block that each has begun is finished first."""
        self._stop = True
        for thread in self._threads:
            if thread is not threading.current_thread() and self._pid == os.getpid():
                thread.join()

    def check(self, count: int) -> None:
        """Returns when the first ``count`` blocks of the order are checked; raises EngineError for a damaged one."""
        while self._prefix < count:
            place = next(self._next)
            if place < len(self._order):
                self._check_block(place)
            elif self._pid != os.getpid():
                self._check_block(self._prefix)  # a fork left behind the thread that had begun it
            else:
                self._advance()
                time.sleep(POLL_S)
                self._raise_if_damaged()

    def reach(self, step: int) -> int:
        """The end of the longest run of steps from ``step`` on whose blocks are all checked."""
        while step < len(self.needs) and self.needs[step] <= self._prefix:
            step += 1
        return step

    def _add_readers(self, count: int) -> None:
        for _ in range(count):
            self._threads.append(threading.Thread(target=self._read, name="redline-weights", daemon=True))
            self._threads[-1].start()

    def _read(self) -> None:
        while not self._stop and (place := next(self._next)) < len(self._order):
            self._blocks.read_ahead(self._order[min(place + AHEAD, len(self._order) - 1)])
            self._check(place)

    def _check_block(self, place: int) -> None:
        self._check(place)
        self._raise_if_damaged()

    def _check(self, place: int) -> None:
        self._blocks.check(self._order[place])
        self._advance()

    def _advance(self) -> None:
        prefix, seen = self._prefix, self._blocks.seen
        while prefix < len(self._order) and seen[self._order[prefix]] == GOOD:
            prefix += 1
        self._prefix = max(prefix, self._prefix)

    def _raise_if_damaged(self) -> None:
        if self._prefix < len(self._order):
            self._blocks.raise_if_damaged(self._order[self._prefix])


def plan_order(header: Header, pieces: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """(for each step, how many blocks of the order it and those before it need; the blocks in the order of first use).

    Blocks that nothing reads stand behind, in an engine of one plan.
    """
    order: dict[int, None] = {}
    needs = []
    size = pieces[0][1] if pieces else 1
    for kernel in header.kernels:
        for access in kernel.reads:
            if access.space == "weights":
                tensor = header.tensors[access.tensor]
                order.update(dict.fromkeys(range(tensor.offset // size, -(-(tensor.offset + tensor.num_bytes) // size))))
        needs.append(len(order))
    if not header.variants:
        order.update(dict.fromkeys(range(len(pieces))))
    return needs, list(order)
