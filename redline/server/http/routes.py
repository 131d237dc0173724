"""Which path is what, as in the KServe v2 protocol and Triton's extensions."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redline.server import folders, statistics
from redline.server.dataplane import DataPlane
from redline.server.errors import Kind, ServeError, invalid, not_found
from redline.server.http import responses
from redline.server.http.exchange import Exchange
from redline.server.http.head import Head
from redline.server.http.infer import load_json
from redline.server.http.responses import Pieces
from redline.server.messages import to_plain

Handler = Callable[[Exchange], Pieces | Awaitable[Pieces]]
MAX_TARGETS = 4096


class Routes:
    """Finds the handler of a request."""

    def __init__(self, plane: DataPlane, metrics: Callable[[], bytes] | None) -> None:
        self._plane, self._metrics = plane, metrics
        self._targets: dict[str, tuple[str, str]] = {}

    def inference(self, head: Head) -> tuple[str, str] | None:
        """Model and version of an inference, None for other requests."""
        if head.method != "POST":
            return None
        target = self._targets.get(head.path)
        if target is None:
            s = head.segments
            if len(s) not in (4, 6) or s[:2] != ("v2", "models") or s[-1] != "infer" or (len(s) == 6 and s[3] != "versions"):
                return None
            target = (folders.check_name(s[2]), s[4] if len(s) == 6 else "")
            if target[1]:
                folders.check_version(target[1])
            if len(self._targets) >= MAX_TARGETS:
                self._targets.clear()
            self._targets[head.path] = target
        return target

    def find(self, head: Head) -> Handler:
        """Raises ServeError (404 or 405) where there is none."""
        segments = head.segments
        if segments == ("metrics",) and self._metrics is not None:
            return self._only(head, "GET", self._give_metrics)
        if segments[0] == "v2":
            found = self._v2(head, segments[1:])
            if found is not None:
                return found
        raise not_found("http", f"there is nothing at {head.path[:200]!r}", "", "see docs/server.md for the routes")

    def _v2(self, head: Head, rest: tuple[str, ...]) -> Handler | None:
        match rest:
            case ():
                return self._only(head, "GET", lambda x: _json(x, self._plane.metadata()))
            case ("health", ("live" | "ready") as which):
                return self._only(head, "GET", lambda x: self._health(x, which))
            case ("models", "stats"):
                return self._only(head, "GET", lambda x: self._statistics(x, "", ""))
            case ("models", name, *more):
                return self._model(head, name, tuple(more))
            case ("repository", "index"):
                return self._only(head, "POST", self._index)
            case ("repository", "models", name, ("load" | "unload") as what):
                return self._only(head, "POST", lambda x: self._control(x, name, what))
            case (("systemsharedmemory" | "cudasharedmemory") as kind, *more):
                return self._memory(head, kind.startswith("cuda"), tuple(more))
            case ("trace", "setting"):
                return self._only(head, "GET POST", lambda x: self._trace(x, ""))
            case ("logging",):
                return self._only(head, "GET POST", self._logging)
        return None

    def _model(self, head: Head, name: str, rest: tuple[str, ...]) -> Handler | None:
        folders.check_name(name)
        version = ""
        if rest[:1] == ("versions",) and len(rest) > 1:
            version, rest = rest[1], rest[2:]
            folders.check_version(version)
        plane = self._plane
        match rest:
            case ():
                return self._only(head, "GET", lambda x: _json(x, plane.model_metadata(name, version)))
            case ("ready",):
                return self._only(head, "GET", lambda x: _status(x, plane.model_ready(name, version), 400))
            case ("config",):
                return self._only(head, "GET", lambda x: _json(x, to_plain(plane.model_config(name, version))))
            case ("stats",):
                return self._only(head, "GET", lambda x: self._statistics(x, name, version))
            case ("trace", "setting"):
                return self._only(head, "GET POST", lambda x: self._trace(x, name))
            case ("infer",):
                return self._only(head, "POST", lambda x: _json(x, {}))
        return None

    @staticmethod
    def _only(head: Head, methods: str, handler: Handler) -> Handler:
        if head.method not in methods.split():
            seen = f"{head.method} of {head.path[:200]!r}"
            raise ServeError(Kind.METHOD, "http", seen, f"allowed: {methods.replace(' ', ', ')}")
        return handler

    # -- handlers

    def _give_metrics(self, exchange: Exchange) -> Pieces:
        assert self._metrics is not None
        return responses.plain(200, responses.TEXT, self._metrics(), exchange.head.keep_alive)

    def _health(self, exchange: Exchange, which: str) -> Pieces:
        if which == "live":
            return _status(exchange, self._plane.live(), 503)
        return _status(exchange, self._plane.ready(), 503)

    def _statistics(self, exchange: Exchange, name: str, version: str) -> Pieces:
        models = self._plane.statistics(name, version)
        return _json(exchange, {"model_stats": [statistics.of(model) for model in models]})

    def _index(self, exchange: Exchange) -> Pieces:
        body = _body(exchange)
        ready = body.get("ready", False)
        if not isinstance(ready, bool):
            raise invalid("repository index", f"ready is {str(ready)[:40]!r}", "expected true or false")
        return _json(exchange, self._plane.index(ready))

    async def _control(self, exchange: Exchange, name: str, what: str) -> Pieces:
        parameters = _body(exchange).get("parameters", {})
        if not isinstance(parameters, dict):
            raise invalid("repository", "the parameters are no object")
        if what == "load":
            config = parameters.get("config", "")
            if not isinstance(config, str):
                raise invalid("repository", "config is no string", "give the configuration as JSON in a string")
            await self._plane.load(name, config, _uploads(parameters))
        else:
            dependents = parameters.get("unload_dependents", False)
            if not isinstance(dependents, bool):
                raise invalid("repository", f"unload_dependents is {str(dependents)[:40]!r}", "expected true or false")
            await self._plane.unload(name, dependents)
        return responses.plain(200, responses.JSON, b"", exchange.head.keep_alive)

    def _memory(self, head: Head, cuda: bool, rest: tuple[str, ...]) -> Handler | None:
        match rest:
            case ("status",):
                return self._only(head, "GET", lambda x: self._memory_status(x, cuda, ""))
            case ("region", name, "status"):
                return self._only(head, "GET", lambda x: self._memory_status(x, cuda, name))
            case ("region", name, "register"):
                return self._only(head, "POST", lambda x: self._register(x, cuda, name))
            case ("unregister",):
                return self._only(head, "POST", lambda x: self._unregister(x, cuda, ""))
            case ("region", name, "unregister"):
                return self._only(head, "POST", lambda x: self._unregister(x, cuda, name))
        return None

    def _memory_status(self, exchange: Exchange, cuda: bool, name: str) -> Pieces:
        regions = [] if cuda and not name else self._plane.regions.status(name)
        return _json(exchange, [
            {"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.num_bytes} for r in regions
        ])  # fmt: skip

    def _register(self, exchange: Exchange, cuda: bool, name: str) -> Pieces:
        if cuda:
            raise ServeError(Kind.UNSUPPORTED, "shared memory", "CUDA shared memory", "allowed: system shared memory")
        body = _body(exchange)
        key, offset, size = body.get("key"), body.get("offset", 0), body.get("byte_size")
        if not isinstance(key, str) or type(offset) is not int or type(size) is not int:
            raise invalid(
                "shared memory", "key, offset or byte_size is missing or of the wrong type", "expected string, number, number"
            )
        self._plane.regions.register(name, key, offset, size)
        return responses.plain(200, responses.JSON, b"", exchange.head.keep_alive)

    def _unregister(self, exchange: Exchange, cuda: bool, name: str) -> Pieces:
        if not cuda:
            self._plane.regions.unregister(name)
        return responses.plain(200, responses.JSON, b"", exchange.head.keep_alive)

    def _trace(self, exchange: Exchange, model: str) -> Pieces:
        changes = None
        if exchange.head.method == "POST":
            changes = {key: _strings(key, value) for key, value in _body(exchange).items()}
        settings = self._plane.trace_settings(model, changes)
        return _json(exchange, {key: v if key == "trace_level" else v[0] for key, v in settings.items()})

    def _logging(self, exchange: Exchange) -> Pieces:
        return _json(exchange, self._plane.log_settings(_body(exchange) if exchange.head.method == "POST" else None))


def _json(exchange: Exchange, value: Any) -> Pieces:
    coding = responses.asked_for(exchange.head.accept_encoding)
    pieces = responses.json(value, exchange.head.keep_alive)
    if not coding or len(pieces[0]) < responses.COMPRESS_FROM:
        return pieces
    body = bytes(pieces[0]).partition(b"\r\n\r\n")[2]
    extra = b"Content-Encoding: %b\r\n" % coding.encode()
    return responses.plain(200, responses.JSON, responses.compress([body], coding), exchange.head.keep_alive, extra)


def _status(exchange: Exchange, good: bool, otherwise: int) -> Pieces:
    return responses.plain(200 if good else otherwise, responses.JSON, b"", exchange.head.keep_alive)


def _body(exchange: Exchange) -> dict[str, Any]:
    return load_json(exchange.body, "http") if len(exchange.body) else {}


def _strings(key: str, value: Any) -> list[str] | None:
    """A trace setting's value: a string, a number or a list of strings; null takes the setting back."""
    if value is None:
        return None
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
        raise invalid("trace settings", f"{key[:80]} is {str(value)[:40]}", "expected a string or a list of strings")
    return [str(item) for item in items]


def _uploads(parameters: Mapping[str, Any]) -> dict[str, bytes]:
    """The files in a load request, by ``VERSION/NAME``."""
    files = {}
    for key, value in parameters.items():
        if not key.startswith("file:"):
            continue
        try:
            files[key.removeprefix("file:")] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise invalid("repository", f"{key[:80]!r} is not base64", "give the file's bytes in base64") from error
    return files
