"""Everything that the server does, free of protocols: HTTP and gRPC translate to and from these calls.

``start_infer`` is the hot path, with a callback in place of a coroutine; ``infer`` is the same as a coroutine.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import numpy as np

from redline.base.errors import closest
from redline.base.log import logger
from redline.server import cache, folders
from redline.server.cache import ResponseCache
from redline.server.classification import classify
from redline.server.errors import Kind, ServeError, invalid, kind_of, unavailable
from redline.server.memory import Regions
from redline.server.repository import Model, Repository
from redline.server.settings import LogSettings, TraceSettings
from redline.server.signature import Checked, Signature, signature_of
from redline.server.tracing import Trace, Tracer
from redline.server.types import BYTES, Arrays, Deliver, InferRequest, InferResponse, Result, Tensor

NAME = "redline"
EXTENSIONS = (
    "classification", "model_repository", "model_repository(unload_dependents)", "schedule_policy", "model_configuration",
    "system_shared_memory", "binary_tensor_data", "parameters", "statistics", "trace", "logging",
)  # fmt: skip
REASONS = {Kind.CANCELLED: "CANCELED", Kind.UNAVAILABLE: "REJECTED", Kind.TIMEOUT: "REJECTED", Kind.INTERNAL: "BACKEND"}
Cancel = Callable[[], None]


class DataPlane:
    """Used on the event loop only. ``max_in_flight`` 0: any number of requests at a time."""

    def __init__(
        self, repository: Repository, tracer: Tracer, traces: TraceSettings, cache_bytes: int = 0, max_in_flight: int = 0
    ) -> None:
        self.repository, self.tracer, self.traces = repository, tracer, traces
        self.regions, self.logs = Regions(), LogSettings()
        self.cache = ResponseCache(cache_bytes)
        self.max_in_flight, self.in_flight = max_in_flight, 0
        self.started, self.draining = False, False
        self._empty: asyncio.Event | None = None

    # -- health and metadata

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        return self.started and not self.draining

    def model_ready(self, name: str, version: str = "") -> bool:
        folders.check_name(name)
        if version:
            folders.check_version(version)
        try:
            self.repository.find(name, version)
        except ServeError:
            return False
        return not self.draining

    def metadata(self) -> dict[str, Any]:
        return {"name": NAME, "version": metadata.version("redline"), "extensions": list(EXTENSIONS)}

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        model = self.repository.find(name, version)
        versions = [m.version_text for m in self.repository.serving() if m.name == name]
        return {
            "name": name,
            "versions": versions,
            "platform": model.message.platform or model.config.backend or "redline",
            "inputs": [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in model.inputs],
            "outputs": [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in model.outputs.values()],
        }

    def model_config(self, name: str, version: str = "") -> Any:
        """The configuration message, completed by what the model file says."""
        return self.repository.find(name, version).message

    def statistics(self, name: str = "", version: str = "") -> list[Model]:
        """The models whose counters are asked for."""
        if not name:
            return self.repository.serving()
        model = self.repository.find(name, version)
        return [model] if version else [m for m in self.repository.serving() if m.name == name]

    # -- repository

    def index(self, ready_only: bool) -> list[dict[str, str]]:
        return self.repository.index(ready_only)

    async def load(self, name: str, config_json: str = "", files: Mapping[str, bytes] | None = None) -> None:
        self.repository.require_explicit()
        self._refuse_when_draining()
        await self.repository.load(name, config_json, files)

    async def unload(self, name: str, dependents: bool = False) -> None:
        self.repository.require_explicit()
        await self.repository.unload(name, dependents)

    # -- settings

    def trace_settings(self, model: str = "", changes: Mapping[str, Any] | None = None) -> dict[str, list[str]]:
        if model:
            self.repository.find(model)
        settings = self.traces.change(model, changes) if changes else self.traces.of(model)
        self.tracer.refresh()
        return settings

    def log_settings(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.logs.change(changes or {})

    # -- inference

    async def infer(self, request: InferRequest) -> InferResponse:
        """The answer; raises what went wrong. Cancelling the caller's task cancels the request."""
        future: asyncio.Future[InferResponse] = asyncio.get_running_loop().create_future()

        def deliver(result: Result) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        cancel = self.start_infer(request, deliver)
        try:
            return await future
        except asyncio.CancelledError:
            cancel()
            raise

    def start_infer(self, request: InferRequest, deliver: Deliver, signature: Signature | None = None) -> Cancel:
        """Starts an inference; ``deliver`` is called exactly once, perhaps before this returns, with the answer or the error.

        The callable given back cancels the request, after which ``deliver`` is not called any more.
        """
        call = Call(self, request, deliver)
        self.in_flight += 1
        try:
            call.start(signature)
        except Exception as error:
            call.answer(error)
        return call.cancel

    def over(self) -> None:
        """A request has its answer, or needs none any more."""
        self.in_flight -= 1
        if self._empty is not None and not self.in_flight:
            self._empty.set()

    def _refuse_when_draining(self) -> None:
        if self.draining:
            raise unavailable("server", "it is shutting down", "", "send the request to another server")

    def admit(self) -> None:
        """Raises ServeError when no request may enter now. The one that asks is counted already."""
        self._refuse_when_draining()
        if self.max_in_flight and self.in_flight > self.max_in_flight:
            seen = f"{self.max_in_flight} requests are under way"
            raise ServeError(Kind.TOO_MANY, "server", seen, "that is its limit", "try again later")

    async def drain(self) -> None:
        """Lets no new request in; returns when every accepted one is answered."""
        self.draining = True
        if self.in_flight:
            self._empty = asyncio.Event()
            await self._empty.wait()
        self.tracer.flush()


class Call:
    """One inference under way: the payload of the scheduler, from request to answer."""

    __slots__ = (
        "_cache_key", "_cancel", "_checked", "_deliver", "_model", "_over", "_plane", "_request", "_trace", "arrays", "began",
        "ended", "started",
    )  # fmt: skip

    def __init__(self, plane: DataPlane, request: InferRequest, deliver: Deliver) -> None:
        self._plane, self._request, self._deliver = plane, request, deliver
        self._over = False
        self._model: Model | None = None
        self._cancel: Callable[[], bool] | None = None
        self.arrays: Arrays = {}
        self._cache_key: bytes | None = None
        self._trace: Trace | None = None
        self.began = time.perf_counter()
        self.started = self.ended = 0.0

    def start(self, signature: Signature | None) -> None:
        plane, request = self._plane, self._request
        plane.admit()
        model = self._model = plane.repository.find(request.model, request.version)
        checked = self._checked = model.checker.check(signature or signature_of(request))
        if request.outputs:
            self._check_wanted(model)
        if plane.tracer.active:
            self._begin_trace(model)
        if model.config.cache and plane.cache.limit_bytes and self._answer_from_cache(model, checked):
            return
        self.arrays = {t.name: t.array for t in request.inputs}
        self._cancel = model.submit(self, checked.rows, checked.key, request.priority, request.timeout_us)

    def _check_wanted(self, model: Model) -> None:
        wanted = self._request.outputs
        for output in wanted:
            if output.name not in model.outputs:
                where = f"model {model.name!r}"
                raise invalid(where, f"there is no output {output.name[:80]!r}", closest(output.name[:80], model.outputs))
        if len({output.name for output in wanted}) < len(wanted):
            raise invalid(f"model {model.name!r}", "an output is asked for twice")

    def _begin_trace(self, model: Model) -> None:
        self._trace = self._plane.tracer.start(model.name, model.version_text, self._request.id)
        if self._trace is not None:
            self._trace.stamp("REQUEST_START", self.began)
            self._trace.stamp("QUEUE_START")

    def _answer_from_cache(self, model: Model, checked: Checked) -> bool:
        looked = time.perf_counter()
        self._cache_key = cache.key_of(model.number, self._request.inputs)
        found = self._plane.cache.get(self._cache_key)
        kind = "cache_miss" if found is None else "cache_hit"
        model.stats.durations[kind].add(time.perf_counter() - looked)
        if found is None:
            return False
        self._cache_key = None
        self.started = self.ended = looked
        self.answer(found)
        return True

    def answer(self, outputs: Any) -> None:
        """The scheduler's answer: outputs by name, or what went wrong."""
        if self._over:
            return
        self._over = True
        try:
            result: Result = outputs if isinstance(outputs, BaseException) else self._respond(outputs)
        except Exception as error:
            result = error
        if isinstance(result, BaseException):
            self._count_failure(result)
        self._plane.over()
        self._deliver(result)

    def _respond(self, outputs: Mapping[str, np.ndarray]) -> InferResponse:
        model, request = self._model, self._request
        assert model is not None
        if self._cache_key is not None:
            self._plane.cache.put(self._cache_key, outputs)
        specs = model.outputs
        if not request.outputs:
            tensors = tuple([Tensor(name, specs[name].datatype, outputs[name]) for name in specs if name in outputs])
        else:
            tensors = tuple([self._tensor(model, wanted.name, wanted.classes, outputs) for wanted in request.outputs])
        now = time.perf_counter()
        model.stats.answered(self._checked.rows, now - self.began, max(0.0, self.started - self.began))
        if self._trace is not None:
            self._end_trace()
        return InferResponse(model.name, model.version_text, request.id, tensors)

    @staticmethod
    def _tensor(model: Model, name: str, classes: int, outputs: Mapping[str, np.ndarray]) -> Tensor:
        spec = model.outputs[name]
        if name not in outputs:
            raise ServeError(Kind.INTERNAL, f"model {model.name!r}", f"it did not give output {name!r}")
        if not classes:
            return Tensor(name, spec.datatype, outputs[name])
        labels = model.labels.get(name, ())
        return Tensor(name, BYTES, classify(name, outputs[name], spec.datatype, classes, model.batched, labels))

    def _end_trace(self) -> None:
        trace = self._trace
        assert trace is not None
        for name, seconds in (("COMPUTE_START", self.started), ("COMPUTE_END", self.ended)):
            trace.stamp(name, seconds)
        trace.stamp("REQUEST_END")
        self._plane.tracer.finish(trace)

    def _count_failure(self, error: BaseException) -> None:
        kind = kind_of(error)
        if kind is Kind.INTERNAL:
            logger.error("[model %r] %s: %s", self._request.model, type(error).__name__, error)
        if self._model is not None:
            self._model.stats.failed(REASONS.get(kind, "OTHER"), time.perf_counter() - self.began)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        if self._over:
            return
        self._over = True
        if self._cancel is not None:
            self._cancel()
        if self._model is not None:
            self._model.stats.failed("CANCELED", time.perf_counter() - self.began)
        self._plane.over()
