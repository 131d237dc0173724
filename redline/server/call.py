"""One inference under way, from request to answer: what the scheduler carries, and what the counters learn."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from redline.base.errors import closest
from redline.base.log import logger
from redline.server import cache
from redline.server.classification import classify
from redline.server.errors import Kind, ServeError, invalid, kind_of
from redline.server.repository import Model
from redline.server.signature import Checked, Signature, signature_of
from redline.server.tracing import Trace
from redline.server.types import BYTES, Arrays, Deliver, InferRequest, InferResponse, Result, Tensor

if TYPE_CHECKING:
    from redline.server.dataplane import DataPlane

REASONS = {Kind.CANCELLED: "CANCELED", Kind.UNAVAILABLE: "REJECTED", Kind.TIMEOUT: "REJECTED", Kind.INTERNAL: "BACKEND"}


class Call:
    """One inference under way: the payload of the scheduler, from request to answer."""

    __slots__ = (
        "_cache_key", "_checked", "_deliver", "_handle", "_model", "_over", "_plane", "_request", "_trace", "arrays", "began",
        "ended", "started",
    )  # fmt: skip

    def __init__(self, plane: "DataPlane", request: InferRequest, deliver: Deliver) -> None:
        self._plane, self._request, self._deliver = plane, request, deliver
        self._over = False
        self._model: Model | None = None
        self._handle: Any = None
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
        handle = model.submit(self, checked.rows, checked.key, request.priority, request.timeout_us)
        if not self._over:
            self._handle = handle

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
        self._handle = None  # which refers to this call: a cycle would wait for the garbage collector
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
        if self._model is not None:
            handle, self._handle = self._handle, None
            if handle is not None:
                self._model.cancel(handle)
            self._model.stats.failed("CANCELED", time.perf_counter() - self.began)
        self._plane.over()
