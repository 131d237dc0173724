"""Everything that the server does, free of protocols: HTTP and gRPC translate to and from these calls.

``start_infer`` is the hot path, with a callback in place of a coroutine; ``infer`` is the same as a coroutine.
"""

import asyncio
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from redline.server import folders
from redline.server.cache import ResponseCache
from redline.server.call import Call
from redline.server.errors import Kind, ServeError, unavailable
from redline.server.limits import Holding, Limits
from redline.server.memory import Regions
from redline.server.repository import Model, Repository
from redline.server.settings import LogSettings, TraceSettings
from redline.server.signature import Signature
from redline.server.tracing import Tracer
from redline.server.types import Deliver, InferRequest, InferResponse, Result

NAME = "redline"
EXTENSIONS = (
    "classification", "model_repository", "model_repository(unload_dependents)", "schedule_policy", "model_configuration",
    "system_shared_memory", "binary_tensor_data", "parameters", "statistics", "trace", "logging",
)  # fmt: skip
Cancel = Callable[[], None]


class DataPlane:
    """Used on the event loop only. ``max_in_flight`` 0: any number of requests at a time; ``held_bytes``: of all of them."""

    def __init__(
        self,
        repository: Repository,
        tracer: Tracer,
        traces: TraceSettings,
        cache_bytes: int = 0,
        max_in_flight: int = 0,
        held_bytes: int = Limits.held_bytes,
    ) -> None:
        self.repository, self.tracer, self.traces = repository, tracer, traces
        self.regions, self.logs = Regions(), LogSettings()
        self.cache, self.holding = ResponseCache(cache_bytes), Holding(held_bytes)
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
