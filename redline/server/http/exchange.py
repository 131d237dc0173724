"""A request that has been read, and its answer when there is one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redline.server.http import responses
from redline.server.http.head import Head
from redline.server.http.responses import Pieces

if TYPE_CHECKING:
    from redline.server.http.connection import Connection


class Exchange:
    """``cancel`` is called when the client goes away; ``taken``: how many bytes it has taken of what the server may hold."""

    __slots__ = ("_connection", "body", "cancel", "done", "head", "pieces", "started", "status", "taken")

    def __init__(self, connection: "Connection", head: Head, body: memoryview, taken: int = 0) -> None:
        self._connection, self.head, self.body, self.taken = connection, head, body, taken
        self.pieces: Pieces | None = None
        self.cancel: Callable[[], Any] | None = None
        self.done, self.status, self.started = False, 200, 0.0

    def answer(self, pieces: Pieces, status: int = 200) -> None:
        """Gives the answer; a second one, or one after the client has gone, is dropped."""
        if self.done:
            return
        self.done, self.pieces, self.status = True, pieces, status
        self.cancel = None
        if self.taken:
            self._release()
        self._connection.answered(self)

    def replace(self, body: memoryview) -> None:
        """Another form of the body, in memory of its own, held beside the first one."""
        self._connection.holding.take(len(body))
        self.taken += len(body)
        self.body = body

    def abandon(self) -> None:
        """The client has gone."""
        if self.done:
            return
        self.done = True
        self._release()
        if self.cancel is not None:
            self.cancel()

    def _release(self) -> None:
        self._connection.holding.give(self.taken)
        self.taken = 0

    def fail(self, error: BaseException) -> None:
        pieces = responses.error(error, self.head.keep_alive)
        self.answer(pieces, int(pieces[0][9:12]))
