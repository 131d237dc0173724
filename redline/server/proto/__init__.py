"""The messages of the protocol, by name: ``proto.ModelInferRequest``. Needs the package protobuf.

They are read from ``protocol.binpb``, which ``python -m grpc_tools.protoc --include_imports
--descriptor_set_out=protocol.binpb grpc_service.proto`` makes in this folder, into a pool of their own: a client library
that brings the same messages can live in the same process.
"""

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


def _read() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString(resources.files(__package__).joinpath("protocol.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


POOL = _read()
METHODS = POOL.FindServiceByName(SERVICE).methods_by_name


def __getattr__(name: str) -> Any:
    try:
        value = message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    except KeyError:
        raise AttributeError(f"the protocol has no message {name!r}") from None
    globals()[name] = value
    return value
