"""Traces of single requests: the timestamps of every n-th one, to a file in Triton's JSON or to OpenTelemetry."""

import importlib
import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from redline.base.errors import RedlineError
from redline.base.log import logger
from redline.server.settings import TraceSettings

FLUSH_EVERY = 64


class Trace:
    """The timestamps of one request, in nanoseconds of the monotonic clock."""

    __slots__ = ("id", "model", "request_id", "stamps", "version")

    def __init__(self, number: int, model: str, version: str, request_id: str) -> None:
        self.id, self.model, self.version, self.request_id = number, model, version, request_id
        self.stamps: list[tuple[str, int]] = []

    def stamp(self, name: str, seconds: float | None = None) -> None:
        self.stamps.append((name, time.perf_counter_ns() if seconds is None else round(seconds * 1e9)))


class Tracer:
    """Decides which requests are traced and hands finished traces to ``sink``. ``active`` is False while none can be."""

    def __init__(self, settings: TraceSettings, sink: Callable[[list[Trace]], None]) -> None:
        self.settings, self._sink = settings, sink
        self._numbers, self._seen = itertools.count(1), 0
        self._done: list[Trace] = []
        self._left: dict[str, int] = {}
        self._known = -1
        self.active = False
        self.refresh()

    def refresh(self) -> None:
        """Looks at the settings again after they changed."""
        if self._known != self.settings.version:
            self._known = self.settings.version
            self._left.clear()
            self.active = self.settings.any_on()

    def start(self, model: str, version: str, request_id: str) -> Trace | None:
        """A trace for this request, or None."""
        settings = self.settings.of(model)
        if "OFF" in settings["trace_level"]:
            return None
        self._seen += 1
        if self._seen % int(settings["trace_rate"][0]):
            return None
        left = self._left.setdefault(model, int(settings["trace_count"][0]))
        if left == 0:
            return None
        self._left[model] = left - 1
        return Trace(next(self._numbers), model, version, request_id)

    def finish(self, trace: Trace) -> None:
        self._done.append(trace)
        frequency = int(self.settings.of(trace.model)["log_frequency"][0]) or FLUSH_EVERY
        if len(self._done) >= frequency:
            self.flush()

    def flush(self) -> None:
        """Hands over what is finished; a sink that fails costs the traces, not the requests."""
        done, self._done = self._done, []
        if done:
            try:
                self._sink(done)
            except Exception as error:
                logger.warning("[trace] %d traces were lost: %s", len(done), error)


def to_json(trace: Trace) -> list[Mapping[str, Any]]:
    """A trace as Triton writes it: the model, then the timestamps."""
    head = {"id": trace.id, "model_name": trace.model, "model_version": trace.version, "request_id": trace.request_id}
    return [head, {"id": trace.id, "timestamps": [{"name": name, "ns": ns} for name, ns in trace.stamps]}]


def file_sink(path: str) -> Callable[[list[Trace]], None]:
    """Appends traces to ``path``, one JSON array a line; without a path they are dropped."""

    def write(traces: list[Trace]) -> None:
        if path:
            with open(path, "a") as file:
                file.writelines(json.dumps(to_json(trace)) + "\n" for trace in traces)

    return write


def opentelemetry_sink(endpoint: str) -> Callable[[list[Trace]], None]:
    """Sends every trace as a span with one event a timestamp. Needs the packages of the ``otel`` extra."""
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ModuleNotFoundError as error:
        raise RedlineError("trace", f"the package {error.name} is missing", "", "pip install 'redline[otel]'") from error
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": "redline"}))
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter(endpoint or None)))
    return span_sink(provider.get_tracer("redline.server"))


def span_sink(tracer: Any) -> Callable[[list[Trace]], None]:
    """Writes traces through an OpenTelemetry tracer; their clock is moved to the wall's."""

    def write(traces: list[Trace]) -> None:
        shift = time.time_ns() - time.perf_counter_ns()
        for trace in traces:
            attributes = {"redline.model": trace.model, "redline.version": trace.version, "redline.id": trace.request_id}
            span = tracer.start_span("infer", start_time=trace.stamps[0][1] + shift, attributes=attributes)
            for name, ns in trace.stamps[1:-1]:
                span.add_event(name, timestamp=ns + shift)
            span.end(end_time=trace.stamps[-1][1] + shift)

    return write
