"""A whole server: repository, data plane and front ends, from start to drained end."""

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline.base.errors import RedlineError
from redline.base.log import logger
from redline.server.backends import BUILTIN
from redline.server.dataplane import DataPlane
from redline.server.grpc.front import GrpcFront
from redline.server.http.front import HttpFront
from redline.server.limits import Limits
from redline.server.logs import AccessLog, configure
from redline.server.loop import run_loop, settle_memory
from redline.server.metrics import Metrics
from redline.server.program import Loader
from redline.server.repository import Repository
from redline.server.settings import TraceSettings
from redline.server.tracing import Tracer, file_sink, opentelemetry_sink

CONTROL = ("none", "poll", "explicit")


@dataclass(frozen=True)
class Options:
    """Everything that ``redline serve`` can be told. A port of -1 is closed, one of 0 any free one."""

    repositories: tuple[Path, ...]
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    control: str = "none"
    poll_s: float = 15.0
    load: tuple[str, ...] = ()
    strict: bool = True
    allow_uploads: bool = False
    cache_bytes: int = 0
    max_in_flight: int = 0
    limits: Limits = field(default_factory=Limits)
    token: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    grace_s: float = 30.0
    access_log: str = ""
    trace_file: str = ""
    trace_level: str = "OFF"
    trace_rate: int = 1000
    otlp_endpoint: str | None = None
    grpc_compression: str = "none"


class Server:
    """``start``, then ``stop``; the ports are in ``http_port``, ``grpc_port`` and ``metrics_port``."""

    def __init__(self, options: Options, backends: Mapping[str, Loader] | None = None) -> None:
        for root in options.repositories:
            if not root.is_dir():
                raise RedlineError("serve", f"{str(root)!r} is no folder", "", "give a folder that holds models")
        self.options = options
        traces = TraceSettings(
            trace_file=options.trace_file,
            trace_level=options.trace_level,
            trace_rate=str(options.trace_rate),
            trace_mode="triton" if options.otlp_endpoint is None else "opentelemetry",
        )
        sink = file_sink(options.trace_file) if options.otlp_endpoint is None else opentelemetry_sink(options.otlp_endpoint)
        self.repository = Repository(
            options.repositories, {**BUILTIN, **(backends or {})}, options.control == "explicit", options.allow_uploads
        )  # fmt: skip
        self.plane = DataPlane(
            self.repository, Tracer(traces, sink), traces, options.cache_bytes, options.max_in_flight, options.limits.held_bytes
        )  # fmt: skip
        self.metrics = Metrics(self.plane)
        self._access = AccessLog(options.access_log) if options.access_log else None
        log = self._access.http if self._access else None
        self._http = HttpFront(self.plane, options.limits, options.token, self.metrics.text, log)
        self._metrics_http = HttpFront(self.plane, options.limits, options.token, self.metrics.text)
        grpc_log = self._access.grpc if self._access else None
        self._grpc = GrpcFront(self.plane, options.limits, options.token, options.grpc_compression, grpc_log)
        self._poller: asyncio.Task[None] | None = None
        self.http_port = self.grpc_port = self.metrics_port = -1

    async def start(self) -> list[str]:
        """Opens the ports, loads the models, and becomes ready; the reasons of models that did not load."""
        o = self.options
        tls = _tls(o, ["http/1.1"])
        if o.http_port >= 0:
            self.http_port = await self._http.listen(o.host, o.http_port, tls)
        if o.grpc_port >= 0:
            self.grpc_port = await self._grpc.listen(o.host, o.grpc_port, _tls(o, ["h2"]))
        if o.metrics_port >= 0:
            self.metrics_port = await self._metrics_http.listen(o.host, o.metrics_port, tls)
        failures = await self.repository.load_all(o.load if o.control == "explicit" else None)
        self.plane.started = not (failures and o.strict)
        if o.control == "poll":
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        return failures

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.options.poll_s)
            try:
                await self.repository.poll()
            except (RedlineError, OSError) as error:
                logger.warning("[poll] %s", error)

    async def stop(self) -> bool:
        """Takes nothing new, answers what was accepted, closes; False when the grace time ran out first."""
        if self._poller is not None:
            self._poller.cancel()
        self.plane.draining = True
        await self._http.stop_accepting()
        await self._metrics_http.stop_accepting()
        await self._grpc.stop_accepting()
        try:
            async with asyncio.timeout(self.options.grace_s):
                await self.plane.drain()
                await self._grpc.close()
                await self._http.close()
                await self._metrics_http.close()
                await self.repository.close()
        except TimeoutError:
            logger.error("[server] %d requests were not answered within %g s", self.plane.in_flight, self.options.grace_s)
            return False
        finally:
            if self._access:
                self._access.close()
        return True


def _tls(options: Options, protocols: list[str]) -> ssl.SSLContext | None:
    if not options.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.tls_certificate, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise RedlineError("tls", f"the certificate or key cannot be used: {error}") from error
    context.set_alpn_protocols(protocols)
    return context


def run(options: Options, announce: Any, backends: Mapping[str, Loader] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; ``announce(server, failures)`` is called when the server is up. The exit status."""
    configure()
    return run_loop(_run(options, announce, backends))


async def _run(options: Options, announce: Any, backends: Mapping[str, Loader] | None) -> int:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = Server(options, backends)
    starting = asyncio.ensure_future(server.start())
    stopping = asyncio.ensure_future(ended.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        settle_memory()
        announce(server, starting.result())
        await stopping
    else:
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
    return 0 if await server.stop() else 1
