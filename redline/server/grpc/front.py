"""The gRPC front end over grpcio's event-loop server."""

import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from redline.server import proto
from redline.server.errors import Kind, kind_of
from redline.server.grpc.service import Service, Unary
from redline.server.http.responses import text_of

STATUS = {code.value[0]: code for code in grpc.StatusCode}
HEALTH = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse with its one field set
COMPRESSION = {"none": grpc.Compression.NoCompression, "deflate": grpc.Compression.Deflate, "gzip": grpc.Compression.Gzip}


@dataclass(frozen=True)
class GrpcOptions:
    """``tls``: private key and certificate chain in PEM, None for plain text."""

    message_bytes: int = 256 << 20
    token: str = ""
    compression: str = "none"
    tls: tuple[bytes, bytes] | None = None
    max_concurrent_streams: int = 1024


class GrpcFront:
    """Listens, and hands every RPC to the service."""

    def __init__(self, service: Service, ready: Any, options: GrpcOptions) -> None:
        self._service, self._ready, self._options = service, ready, options
        self._token = f"Bearer {options.token}" if options.token else ""
        self._server: Any = None

    async def listen(self, host: str, port: int) -> int:
        """Starts to accept RPCs; the port in use."""
        limit = self._options.message_bytes
        settings = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", self._options.max_concurrent_streams),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=settings, compression=COMPRESSION[self._options.compression])
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        address = f"{host}:{port}"
        if self._options.tls:
            bound = self._server.add_secure_port(address, grpc.ssl_server_credentials([self._options.tls]))
        else:
            bound = self._server.add_insecure_port(address)
        await self._server.start()
        return int(bound)

    async def close(self, grace_s: float) -> None:
        """Ends once what is under way is answered."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def authorized(self, context: Any) -> bool:
        if not self._token:
            return True
        given = next((value for key, value in context.invocation_metadata() if key == "authorization"), "")
        return hmac.compare_digest(str(given).encode(), self._token.encode())

    def unary(self, name: str, method: Unary) -> Any:
        parse = getattr(proto, proto.METHODS[name].input_type.name).FromString

        async def handle(data: bytes, context: Any) -> bytes:
            if not self.authorized(context):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "[grpc] the bearer token is missing or wrong")
            try:
                return (await method(parse(data))).SerializeToString()  # type: ignore[no-any-return]
            except Exception as error:
                code, text = status_of(error)
            await context.abort(STATUS[code], text)
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(self) -> Any:
        parse = proto.ModelInferRequest.FromString

        async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            if not self.authorized(context):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "[grpc] the bearer token is missing or wrong")

            async def parsed() -> AsyncIterator[Any]:
                async for data in requests:
                    yield parse(data)

            async for answer in self._service.stream(parsed()):
                yield answer.SerializeToString()

        return grpc.stream_stream_rpc_method_handler(handle)

    def health(self) -> Any:
        async def handle(data: bytes, context: Any) -> bytes:
            return SERVING if self._ready() else NOT_SERVING

        return grpc.unary_unary_rpc_method_handler(handle)


def status_of(error: BaseException) -> tuple[int, str]:
    """The number of the gRPC status and the text for the caller."""
    if type(error).__name__ == "DecodeError":
        return Kind.INVALID.grpc, "[grpc] the message cannot be parsed"
    return kind_of(error).grpc, text_of(error)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods by their path; messages stay bytes until our own handlers parse them."""

    def __init__(self, front: GrpcFront) -> None:
        service = front._service
        self._methods = {f"/{proto.SERVICE}/{name}": front.unary(name, method) for name, method in service.unary.items()}
        self._methods[f"/{proto.SERVICE}/ModelStreamInfer"] = front.stream()
        self._methods[HEALTH] = front.health()

    def service(self, details: Any) -> Any:
        return self._methods.get(details.method)
