"""What can go wrong with a request, and the status that HTTP and gRPC give it."""

from enum import Enum

from redline.base.errors import InputError, RedlineError


class Kind(Enum):
    """A kind of failure: its HTTP status and the number of its gRPC status."""

    INVALID = (400, 3)
    UNAUTHENTICATED = (401, 16)
    NOT_FOUND = (404, 5)
    METHOD = (405, 12)
    CONFLICT = (409, 6)
    TOO_LARGE = (413, 8)
    MEDIA_TYPE = (415, 3)
    TOO_MANY = (429, 8)
    CANCELLED = (499, 1)
    INTERNAL = (500, 13)
    UNSUPPORTED = (501, 12)
    UNAVAILABLE = (503, 14)
    TIMEOUT = (503, 14, "timeout")

    @property
    def http(self) -> int:
        return int(self.value[0])

    @property
    def grpc(self) -> int:
        return int(self.value[1])


class ServeError(RedlineError):
    """A request or a repository that cannot be served, with the kind of its failure."""

    def __init__(self, kind: Kind, where: str, seen: str, allowed: str = "", remedy: str = "") -> None:
        super().__init__(where, seen, allowed, remedy)
        self.kind = kind


def invalid(where: str, seen: str, allowed: str = "", remedy: str = "") -> ServeError:
    """The caller's fault: HTTP 400, gRPC INVALID_ARGUMENT."""
    return ServeError(Kind.INVALID, where, seen, allowed, remedy)


def not_found(where: str, seen: str, allowed: str = "", remedy: str = "") -> ServeError:
    return ServeError(Kind.NOT_FOUND, where, seen, allowed, remedy)


def unavailable(where: str, seen: str, allowed: str = "", remedy: str = "") -> ServeError:
    """Not now: HTTP 503, gRPC UNAVAILABLE."""
    return ServeError(Kind.UNAVAILABLE, where, seen, allowed, remedy)


def kind_of(error: BaseException) -> Kind:
    """The kind of any exception. Wrong inputs are the caller's fault; a damaged engine or a bug is the server's."""
    if isinstance(error, ServeError):
        return error.kind
    return Kind.INVALID if isinstance(error, InputError) else Kind.INTERNAL


def text_of(error: BaseException) -> str:
    """What the caller is told. The words of a bug stay in the log."""
    return str(error) if isinstance(error, RedlineError) else f"[server] internal error ({type(error).__name__}); see its log"
