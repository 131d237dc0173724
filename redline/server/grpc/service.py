"""One method per RPC of the service, from message to message. Knows nothing of the wire."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from redline.server import proto, statistics
from redline.server.dataplane import DataPlane
from redline.server.errors import Kind, ServeError, invalid, text_of
from redline.server.grpc.codec import decode, encode, plain_parameters

Unary = Callable[[Any], Awaitable[Any]]


class Service:
    """The methods by the RPC's name: ``unary[name](request)``, and ``stream`` for ModelStreamInfer."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self.unary: Mapping[str, Unary] = {
            "ServerLive": self._live, "ServerReady": self._ready, "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata, "ModelMetadata": self._model_metadata, "ModelInfer": self.infer,
            "ModelConfig": self._config, "ModelStatistics": self._statistics, "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load, "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._memory_status, "SystemSharedMemoryRegister": self._memory_register,
            "SystemSharedMemoryUnregister": self._memory_unregister, "CudaSharedMemoryStatus": self._cuda_status,
            "CudaSharedMemoryRegister": self._cuda_register, "CudaSharedMemoryUnregister": self._cuda_unregister,
            "TraceSetting": self._trace, "LogSettings": self._logging,
        }  # fmt: skip

    async def infer(self, message: Any) -> Any:
        regions = self._plane.regions
        request = decode(message, regions)
        response = await self._plane.infer(request)
        return encode(response, request.outputs, regions)

    async def stream(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Answers in the order of the requests; an error is an answer of its own and ends nothing."""
        async for message in requests:
            try:
                answer = proto.ModelStreamInferResponse(infer_response=await self.infer(message))
                if message.parameters["triton_enable_empty_final_response"].bool_param:
                    answer.infer_response.parameters["triton_final_response"].bool_param = True
            except Exception as error:
                answer = proto.ModelStreamInferResponse(error_message=text_of(error))
                answer.infer_response.id = message.id
            yield answer

    async def _live(self, request: Any) -> Any:
        return proto.ServerLiveResponse(live=self._plane.live())

    async def _ready(self, request: Any) -> Any:
        return proto.ServerReadyResponse(ready=self._plane.ready())

    async def _model_ready(self, request: Any) -> Any:
        return proto.ModelReadyResponse(ready=self._plane.model_ready(request.name, request.version))

    async def _metadata(self, request: Any) -> Any:
        return proto.ServerMetadataResponse(**self._plane.metadata())

    async def _model_metadata(self, request: Any) -> Any:
        return proto.ModelMetadataResponse(**self._plane.model_metadata(request.name, request.version))

    async def _config(self, request: Any) -> Any:
        return proto.ModelConfigResponse(config=self._plane.model_config(request.name, request.version))

    async def _statistics(self, request: Any) -> Any:
        models = self._plane.statistics(request.name, request.version)
        return proto.ModelStatisticsResponse(model_stats=[statistics.of(model) for model in models])

    async def _index(self, request: Any) -> Any:
        return proto.RepositoryIndexResponse(models=self._plane.index(request.ready))

    async def _load(self, request: Any) -> Any:
        _one_repository(request)
        config, files = "", {}
        for key, parameter in request.parameters.items():
            if key == "config":
                config = parameter.string_param
            elif key.startswith("file:"):
                files[key.removeprefix("file:")] = parameter.bytes_param
        await self._plane.load(request.model_name, config, files)
        return proto.RepositoryModelLoadResponse()

    async def _unload(self, request: Any) -> Any:
        _one_repository(request)
        dependents = request.parameters["unload_dependents"].bool_param if request.parameters else False
        await self._plane.unload(request.model_name, dependents)
        return proto.RepositoryModelUnloadResponse()

    async def _memory_status(self, request: Any) -> Any:
        answer = proto.SystemSharedMemoryStatusResponse()
        for region in self._plane.regions.status(request.name):
            entry = answer.regions[region.name]
            entry.name, entry.key, entry.offset, entry.byte_size = region.name, region.key, region.offset, region.num_bytes
        return answer

    async def _memory_register(self, request: Any) -> Any:
        self._plane.regions.register(request.name, request.key, request.offset, request.byte_size)
        return proto.SystemSharedMemoryRegisterResponse()

    async def _memory_unregister(self, request: Any) -> Any:
        self._plane.regions.unregister(request.name)
        return proto.SystemSharedMemoryUnregisterResponse()

    async def _cuda_status(self, request: Any) -> Any:
        return proto.CudaSharedMemoryStatusResponse()

    async def _cuda_register(self, request: Any) -> Any:
        raise ServeError(Kind.UNSUPPORTED, "shared memory", "CUDA shared memory", "allowed: system shared memory")

    async def _cuda_unregister(self, request: Any) -> Any:
        return proto.CudaSharedMemoryUnregisterResponse()

    async def _trace(self, request: Any) -> Any:
        changes = {key: list(setting.value) or None for key, setting in request.settings.items()}
        answer = proto.TraceSettingResponse()
        for key, values in self._plane.trace_settings(request.model_name, changes).items():
            answer.settings[key].value.extend(values)
        return answer

    async def _logging(self, request: Any) -> Any:
        changes = plain_parameters(request.settings)
        answer = proto.LogSettingsResponse()
        for key, value in self._plane.log_settings(changes).items():
            field = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(answer.settings[key], field, value)
        return answer


def _one_repository(request: Any) -> None:
    if request.repository_name:
        raise invalid(
            "model repository", f"repository_name is {request.repository_name[:80]!r}", "there is one, without a name"
        )
