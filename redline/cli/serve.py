"""The verb ``serve``: a server for a folder of models, until it is told to end."""

from pathlib import Path
from typing import Annotated

import typer

from redline.base import env
from redline.base.errors import RedlineError, closest
from redline.cli import console
from redline.server.app import CONTROL, Options, Server, run
from redline.server.limits import Limits

Repositories = Annotated[
    list[Path], typer.Argument(metavar="MODELS...", help="Folders that hold models: NAME/VERSION/model.engine.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")]
Port = Annotated[int, typer.Option(min=-1, max=65535, help="0: any free one, -1: closed.")]
Control = Annotated[str, typer.Option("--model-control-mode", help="Who loads models: none (all at start), poll, explicit.")]
Load = Annotated[list[str] | None, typer.Option("--load-model", help="With explicit control: a model to load at start.")]
PollSeconds = Annotated[float, typer.Option("--repository-poll-secs", min=0.1, help="Seconds between looks at the folder.")]
Strict = Annotated[
    bool, typer.Option("--strict-readiness/--no-strict-readiness", help="Not ready while a model failed to load.")
]
Uploads = Annotated[
    bool, typer.Option("--allow-uploads", help="Accept models in load requests. They are native code: trust the callers.")
]
CacheSize = Annotated[int, typer.Option("--cache-mib", min=0, help="Response cache, for models that ask for it.")]
InFlight = Annotated[
    int, typer.Option("--max-in-flight", min=0, help="Requests at a time, over which 429 is answered; 0: any.")
]
Body = Annotated[int, typer.Option("--max-body-mib", min=1, help="Largest request body, over which 413 is answered.")]
Held = Annotated[
    int, typer.Option("--max-held-mib", min=1, help="Requests that are being read and answered, over which 503 is answered.")
]
Connections = Annotated[int, typer.Option("--max-connections", min=1, help="HTTP connections at a time.")]
Certificate = Annotated[Path | None, typer.Option("--tls-certificate", help="Certificate chain (PEM); turns TLS on.")]
Key = Annotated[Path | None, typer.Option("--tls-key", help="Its private key (PEM).")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="File with the bearer token that callers must send.")]
Grace = Annotated[float, typer.Option("--exit-timeout-secs", min=0, help="Seconds for accepted requests after SIGTERM.")]
AccessLogPath = Annotated[str, typer.Option("--access-log", help="File for a line of JSON a request; - for standard output.")]
TraceFile = Annotated[str, typer.Option("--trace-file", help="File for traces of requests.")]
TraceLevel = Annotated[str, typer.Option("--trace-level", help="OFF or TIMESTAMPS.")]
TraceRate = Annotated[int, typer.Option("--trace-rate", min=1, help="Every how manieth request is traced.")]
Otlp = Annotated[str | None, typer.Option("--otlp-endpoint", help="Send traces there with OpenTelemetry (extra: otel).")]


def command(
    repositories: Repositories,
    host: Host = "127.0.0.1",
    http_port: Port = 8000,
    grpc_port: Port = 8001,
    metrics_port: Port = 8002,
    control: Control = "none",
    load: Load = None,
    poll_s: PollSeconds = 15.0,
    strict: Strict = True,
    uploads: Uploads = False,
    cache_mib: CacheSize = 0,
    max_in_flight: InFlight = 0,
    max_body_mib: Body = 256,
    max_held_mib: Held = 4096,
    max_connections: Connections = 4096,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    token_file: TokenFile = None,
    grace_s: Grace = 30.0,
    access_log: AccessLogPath = "",
    trace_file: TraceFile = "",
    trace_level: TraceLevel = "OFF",
    trace_rate: TraceRate = 1000,
    otlp_endpoint: Otlp = None,
) -> None:
    """Serves the models in folders over HTTP and gRPC: the KServe v2 protocol with Triton's extensions.

    SIGTERM drains: nothing new is accepted, everything accepted is answered, then the server ends.
    """
    if control not in CONTROL:
        raise RedlineError("--model-control-mode", f"{control!r} is unknown", closest(control, CONTROL))
    if (tls_certificate is None) != (tls_key is None):
        raise RedlineError("--tls-certificate", "certificate and key go together", "", "give both")
    options = Options(
        repositories=tuple(repositories), host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port,
        control=control, load=tuple(load or ()), poll_s=poll_s, strict=strict, allow_uploads=uploads,
        cache_bytes=cache_mib << 20, max_in_flight=max_in_flight,
        limits=Limits(body_bytes=max_body_mib << 20, held_bytes=max_held_mib << 20, connections=max_connections),
        token=_token(token_file), tls_certificate=tls_certificate, tls_key=tls_key, grace_s=grace_s, access_log=access_log,
        trace_file=trace_file, trace_level=trace_level, trace_rate=trace_rate, otlp_endpoint=otlp_endpoint,
    )  # fmt: skip
    raise typer.Exit(run(options, _announce))


def _token(path: Path | None) -> str:
    if path is None:
        return env.bearer_token()
    token = path.read_text().strip()
    if not token:
        raise RedlineError("--token-file", f"{str(path)!r} is empty", "", "write the token into it")
    return token


def _announce(server: Server, failures: list[str]) -> None:
    for failure in failures:
        console.error(failure)
    ports = {"http": server.http_port, "grpc": server.grpc_port, "metrics": server.metrics_port}
    open_ports = ", ".join(f"{name} {server.options.host}:{port}" for name, port in ports.items() if port >= 0)
    models = ", ".join(f"{model.name} {model.version_text}" for model in server.repository.serving()) or "no model"
    console.out().print(f"serving {models} at {open_ports}", highlight=False)
