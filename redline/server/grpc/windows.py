"""What a peer lets us send on one connection: bytes in all, bytes a frame, and the streams that wait for more."""

from collections.abc import Mapping

from redline.server.grpc import http2
from redline.server.grpc.http2 import ConnectionError2
from redline.server.grpc.stream import Stream


class Windows:
    """``total``: bytes that may be sent on the connection; ``frame``: in one frame; ``initial``: on a new stream."""

    def __init__(self, streams: Mapping[int, Stream]) -> None:
        self._streams = streams
        self._blocked: dict[int, Stream] = {}  # those that wait for the connection's window, in their order
        self.total = self.initial = http2.DEFAULT_WINDOW
        self.frame = 16_384

    def block(self, stream: Stream) -> None:
        """The stream has something to send when the connection's window opens."""
        self._blocked[stream.id] = stream

    def forget(self, stream: Stream) -> None:
        if self._blocked:
            self._blocked.pop(stream.id, None)

    def update(self, number: int, payload: memoryview) -> Stream | None:
        """A WINDOW_UPDATE; the stream whose window overflows by it, which is to be reset."""
        if len(payload) != 4:
            raise ConnectionError2(http2.FRAME_SIZE_ERROR, "a WINDOW_UPDATE of the wrong size")
        more = int.from_bytes(payload, "big") & http2.MAX_WINDOW
        if not more:
            raise ConnectionError2(http2.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
        if number:
            return self._open_stream(self._streams.get(number), more)
        self.total += more
        if self.total > http2.MAX_WINDOW:
            raise ConnectionError2(http2.FLOW_CONTROL_ERROR, "the connection's window overflows")
        while self._blocked and self.total > 0:
            self._blocked.pop(next(iter(self._blocked))).flush()  # which may put it back, at the end
        return None

    @staticmethod
    def _open_stream(stream: Stream | None, more: int) -> Stream | None:
        if stream is None:
            return None
        stream.window += more
        if stream.window > http2.MAX_WINDOW:
            return stream
        stream.flush()
        return None

    def settle(self, payload: memoryview) -> None:
        """SETTINGS: the sizes of frames and of the streams' windows."""
        for key, value in http2.settings(payload):
            if key == http2.FRAME_SIZE:
                self.frame = value
                continue
            for stream in self._streams.values():
                stream.window += value - self.initial
                if stream.window > http2.MAX_WINDOW:
                    raise ConnectionError2(http2.FLOW_CONTROL_ERROR, "an initial window that overflows a stream's")
            self.initial = value
