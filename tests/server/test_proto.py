"""Our messages have the names, numbers and types that the client library of Triton speaks, in text and in binary."""

import subprocess
import sys
from importlib import resources

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from redline.server import proto


def table(descriptor):
    """Fields by name: number, kind, whether repeated, and the message or enumeration that they hold."""
    rows = {}
    for field in descriptor.fields:
        held = field.message_type or field.enum_type
        rows[field.name] = field.number, field.type, field.is_repeated, held.full_name if held else ""
    return rows


@pytest.mark.parametrize("module", [model_config_pb2, service_pb2])
def test_every_message_is_theirs(module):
    for name, theirs in module.DESCRIPTOR.message_types_by_name.items():
        ours = proto.POOL.FindMessageTypeByName(f"inference.{name}")
        assert table(ours) == table(theirs), name
        for nested in theirs.nested_types:
            assert table(ours.nested_types_by_name[nested.name]) == table(nested)
    for name, theirs in module.DESCRIPTOR.enum_types_by_name.items():
        ours = proto.POOL.FindEnumTypeByName(f"inference.{name}")
        assert {v.name: v.number for v in ours.values} == {v.name: v.number for v in theirs.values}


def test_every_method_is_theirs():
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {n: (m.input_type.name, m.output_type.name) for n, m in proto.METHODS.items()} == {
        n: (m.input_type.name, m.output_type.name) for n, m in theirs.items()
    }


def test_the_binary_form_is_that_of_the_text(tmp_path):
    pytest.importorskip("grpc_tools")
    folder, made = resources.files("redline.server.proto"), tmp_path / "made.binpb"
    options = [f"-I{folder}", f"--descriptor_set_out={made}", "--include_imports", "grpc_service.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options], check=True)
    assert made.read_bytes() == folder.joinpath("protocol.binpb").read_bytes()
