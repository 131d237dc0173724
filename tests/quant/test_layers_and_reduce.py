"""Finding where an engine goes wrong: compare --layers and reduce."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnxruntime import quantization
from typer.testing import CliRunner

import redline
from redline.cli import layers
from redline.cli.app import app
from redline.cli.layers import LayerVerdict, compare_layers, first_wrong
from redline.cli.reduce import Reducer
from redline.runtime.trace import trace
from tests.quant.models import samples, two_convolutions

runner = CliRunner()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(two_convolutions(), str(path))
    return path


def test_a_trace_ends_with_the_answers(file):
    engine, feed = redline.build(str(file), opt_level=0, output=file.with_suffix(".e")), samples(1)[0]
    _, written = list(trace(engine, feed))[-1]
    np.testing.assert_array_equal(written[0].reshape(1, 5), engine.run(feed)["logits"])


def test_a_float_engine_has_no_wrong_layer(file):
    engine = redline.build(str(file), opt_level=0, output=file.with_suffix(".e"))
    verdicts = compare_layers(file, engine, samples(1)[0])
    assert first_wrong(verdicts) is None and len(verdicts) >= 3
    assert min(v.snr_db for v in verdicts) > 60


def test_a_planted_bad_scale_is_named(file, tmp_path):
    cache, engine_file = tmp_path / "c.json", tmp_path / "m.engine"
    options = {"precision": "int8", "calibration_cache": cache, "opt_level": 0, "output": engine_file}
    good = redline.build(str(file), calibrate=samples(), **options)
    assert first_wrong(compare_layers(file, good, samples(1, seed=5)[0])) is None
    data = json.loads(cache.read_text())
    for key in ("low", "high"):
        data["tensors"]["relu2"][key] *= 300
    cache.write_text(json.dumps(data))
    bad = redline.build(str(file), **options)
    wrong = first_wrong(compare_layers(file, bad, samples(1, seed=5)[0]))
    assert wrong is not None and wrong.node == "relu2"
    np.save(tmp_path / "x.npy", samples(1, seed=5)[0]["x"])
    result = runner.invoke(app, ["compare", str(file), str(engine_file), "--layers", "--input", f"x={tmp_path}/x.npy"])
    assert result.exit_code == 1 and "the first layer that goes wrong: relu2" in result.stdout


class Reader(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self.left = iter(samples(4))

    def get_next(self):
        return next(self.left, None)


def test_layers_of_a_quantized_model_stand_beside_their_own_values(file, tmp_path):
    quantized = tmp_path / "q.onnx"
    quantization.quantize_static(str(file), str(quantized), Reader())
    engine = redline.build(str(quantized), opt_level=0, output=tmp_path / "q.engine")
    verdicts = compare_layers(quantized, engine, samples(1, seed=5)[0])
    convolutions = [v for v in verdicts if v.kernel == "conv"]
    assert len(convolutions) == 2 and all("Linear" in v.node and v.snr_db > 25 for v in convolutions)
    assert first_wrong(verdicts) is None


def test_a_value_is_that_of_the_kernel_that_ends_with_it():
    """Parts of a layer's quantization are in the kernel of the next layer too."""
    kernels = [
        SimpleNamespace(nodes=nodes) for nodes in (("a", "conv1", "q1"), ("conv1", "q1", "dq1", "conv2", "q2"), (), ("a",))
    ]
    found = layers._finished_by(kernels)
    assert found == {"a": 3, "conv1": 1, "q1": 0, "dq1": 1, "conv2": 1, "q2": 1}


@pytest.mark.parametrize(
    ("noise", "dtype", "found"),
    [
        ([90, 80, 50], "float32", None),
        ([90, 30, 20], "float32", 1),
        ([35, 30, 25, 22, 19, 16, 12], "uint8", None),
        ([35, 30, 12], "uint8", 2),
        ([35, 30, 25, 2], "uint8", 3),
    ],
)
def test_where_it_begins(noise, dtype, found):
    verdicts = [LayerVerdict(str(i), "conv", dtype, snr, 1.0, 0.0) for i, snr in enumerate(noise)]
    wrong = first_wrong(verdicts)
    assert (None if wrong is None else int(wrong.node)) == found


def test_values_in_the_engines_order_are_put_into_the_models():
    """Channels last, with and without another axis of one element; where only the values tell, both orders are tried."""
    for shape, more in (((1, 3, 4, 5), (1, 4, 5, 3)), ((1, 3, 4, 5), (1, 4, 1, 5, 3)), ((2, 4, 4, 4), (2, 4, 4, 4))):
        wide = np.random.default_rng(0).standard_normal(shape)
        placed = layers._placed(np.moveaxis(wide, 1, -1).reshape(more), wide.shape)
        assert any(np.array_equal(each, wide) for each in placed)


def test_reduce_finds_nothing_in_a_model_that_passes(file):
    assert Reducer(file, {}, {}, "fp32", 0).smallest() is None


def test_reduce_cuts_to_the_node_that_fails(file, tmp_path, monkeypatch):
    reducer = Reducer(file, {}, {}, "fp32", 0)
    broken = reducer.values["c3"] + 1
    reducer.values["c3"] = broken
    reducer.values |= {name: reducer.values[name] for name in ("s", "r3")}
    monkeypatch.setattr(reducer, "_first_failing", lambda order: "c3")
    piece = reducer.smallest()
    assert (piece.inputs, piece.output, piece.size) == (("r2",), "c3", 1) and "error" in piece.reason
    reducer.write(piece, tmp_path / "p.onnx")
    assert [node.op_type for node in onnx.load(str(tmp_path / "p.onnx")).graph.node] == ["Conv"]
    assert np.load(tmp_path / "p.npz")["r2"].shape == (1, 16, 12, 12)
