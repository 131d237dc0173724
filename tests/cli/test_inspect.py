"""The verb inspect, on engines and on models, as text and as JSON."""

import json

from typer.testing import CliRunner

from redline.cli.app import app
from redline.cli.engine_facts import by_family

runner = CliRunner()


def words(text):
    return [line.split() for line in text.splitlines()]


def test_an_engine_as_text(engine_file):
    result = runner.invoke(app, ["inspect", str(engine_file)])
    assert result.exit_code == 0
    lines = words(result.stdout)
    assert ["input", "x", "float32", "2x4"] in lines
    assert ["output", "y", "float32", "2x3"] in lines
    assert "made for avx512 and 2 threads by 0.1.0 with zig 0.17" in result.stdout
    assert "needs a processor with: avx512f" in result.stdout
    assert "parts: code 4 B, weights 48 B" in result.stdout
    assert ["0", "matmul", "float32[2x3]", "2", "2.0", "us", "Tile(2,", "3)", "dense,", "bias"] in lines
    assert ["1", "nest", "float32[2x3]", "1", "Loop()", "relu"] in lines
    assert "memory: arena 64 B (64 B without sharing), scratch 128 B a thread" in result.stdout
    assert ["t1", "0", "64", "0..1"] in lines


def test_an_engine_as_json(engine_file):
    facts = json.loads(runner.invoke(app, ["inspect", str(engine_file), "--json"]).stdout)
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 4], "extents": []}]
    assert [kernel["nodes"] for kernel in facts["kernels"]] == [["dense", "bias"], ["relu"]]
    assert facts["report"] == {"model": "small", "nodes": 3}


def test_families_are_added_up(header):
    matmul, nest = by_family(header.kernels * 2)
    assert (matmul.family, matmul.kernels, matmul.seconds, matmul.flops, matmul.num_bytes) == ("matmul", 2, 4e-6, 96, 208)
    assert (nest.family, nest.kernels, nest.seconds) == ("nest", 2, 0)


def test_a_model_as_text(lookup):
    result = runner.invoke(app, ["inspect", str(lookup)])
    assert result.exit_code == 0
    lines = words(result.stdout)
    assert ["input", "ids", "int64", "length"] in lines
    assert ["output", "y", "float32", "lengthx2"] in lines
    assert ["output", "count", "int64", "scalar"] in lines
    assert "opset ai.onnx 17; IR version 8; producer tests" in result.stdout
    assert "5 nodes; 14 parameters, 64 B" in result.stdout
    assert ["Gather", "1"] in lines


def test_a_model_as_json(perceptron):
    facts = json.loads(runner.invoke(app, ["inspect", str(perceptron), "--json"]).stdout)
    assert facts["operators"] == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert facts["num_parameters"] == 15


def test_files_that_are_neither(tmp_path):
    (tmp_path / "text").write_text("hello")
    result = runner.invoke(app, ["inspect", str(tmp_path / "text")])
    assert (result.exit_code, "not an ONNX model" in result.stderr) == (2, True)
    result = runner.invoke(app, ["inspect", str(tmp_path / "none")])
    assert (result.exit_code, result.stderr) == (2, f"[{tmp_path}/none] there is no such file\n")


def test_a_damaged_engine(engine_file):
    data = bytearray(engine_file.read_bytes())
    data[200] ^= 1
    engine_file.write_bytes(data)
    result = runner.invoke(app, ["inspect", str(engine_file)])
    assert result.exit_code == 2
    assert "it is damaged" in result.stderr
