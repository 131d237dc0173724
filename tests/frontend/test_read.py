"""Reading: files and bytes that are no model, versions, tensors in every encoding, external data and its attacks."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline import ops
from redline.base.errors import ModelError, UnsupportedError
from redline.frontend import load, unsupported
from redline.frontend.tensors import to_array
from tests.frontend.models import model, results, tensor


def _relu(**options: object) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", [2])], ["y"], **options)  # type: ignore[arg-type]


def test_a_path_bytes_and_a_proto_load_alike(tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    onnx.save(_relu(), path)
    texts = {str(load(source)) for source in (path, str(path), path.read_bytes(), _relu())}
    assert len(texts) == 1


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08", b"\x00" * 64])
def test_what_is_no_model(content: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(content)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        load(tmp_path / "none.onnx")


def test_versions() -> None:
    with pytest.raises(ModelError, match=r"it uses opset 6; allowed: 7\.\.28; convert it with onnx.version_converter"):
        load(_relu(opset=6))
    with pytest.raises(ModelError, match=r"it uses opset 99; allowed: 7\.\.28; export it for an older opset"):
        load(_relu(opset=99))
    newer = _relu()
    newer.ir_version = 99
    with pytest.raises(ModelError, match="the model is of ONNX IR version 99; allowed: up to"):
        load(newer)


VALUES = np.array([[0, 1, 2], [3, 100, 5]])
TYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32,
         np.int64, np.uint64, np.bool_]  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
def test_raw_and_typed_tensors(dtype: type) -> None:
    array = VALUES.astype(dtype)
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    raw = helper.make_tensor("t", code, array.shape, array.tobytes(), raw=True)
    typed = helper.make_tensor("t", code, array.shape, array.astype(np.float64).reshape(-1).tolist())
    for proto in (raw, typed):
        seen = to_array(proto, None, "t")
        assert seen.dtype == array.dtype and np.array_equal(seen, array)


def test_half_precision_nan_survives_the_typed_field() -> None:
    proto = helper.make_tensor("t", TensorProto.FLOAT16, (3,), [np.nan, -0.0, np.inf])
    seen = to_array(proto, None, "t")
    assert np.isnan(seen[0]) and np.signbit(seen[1]) and np.isposinf(seen[2])


@pytest.mark.parametrize("dims", [(3,), (2**40,), (2**62, 2**62), (-2,)])
def test_data_must_fit_the_shape(dims: tuple[int, ...]) -> None:
    for proto in (
        numpy_helper.from_array(np.zeros(2, np.float32), "t"),
        helper.make_tensor("t", TensorProto.FLOAT, (2,), [1, 2]),
    ):
        proto.ClearField("dims")
        proto.dims.extend(dims)
        with pytest.raises(ModelError):
            to_array(proto, None, "t")


def test_types_below_a_byte_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="element type INT4 is not supported"):
        to_array(helper.make_tensor("t", TensorProto.INT4, (2,), [1, 2]), None, "t")


def _external(folder: Path, **entries: str) -> Path:
    """A model that adds a weight kept in weights.bin, at the place that ``entries`` say."""
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", [2])], ["y"],
                  initializers={"w": np.zeros(2, np.float32)})  # fmt: skip
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "weights.bin").write_bytes(np.array([9, 1, 2, 9], np.float32).tobytes())
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    return inside


def test_external_data(folder: Path) -> None:
    path = _external(folder, location="weights.bin", offset="4", length="8")
    assert ops.run(load(path), {"x": np.zeros(2, np.float32)})["y"].tolist() == [1, 2]
    with pytest.raises(ModelError, match="a model given as bytes has no folder; load the model by its path"):
        load(path.read_bytes())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../secret.bin"}, "allowed: a relative path inside the model's folder"),
        ({"location": "/etc/passwd"}, "allowed: a relative path inside the model's folder"),
        ({}, "allowed: a relative path inside the model's folder"),
        ({"location": "link.bin"}, "is a link to elsewhere"),
        ({"location": "none.bin"}, "is missing"),
        (
            {"location": "weights.bin", "offset": "12", "length": "8"},
            "weights.bin offers 4 bytes at offset 12; the tensor takes 8",
        ),
        ({"location": "weights.bin", "offset": "99"}, "weights.bin offers 0 bytes at offset 99"),
        ({"location": "weights.bin", "length": "4"}, "weights.bin offers 4 bytes at offset 0; the tensor takes 8"),
        ({"location": "weights.bin", "offset": "-4"}, "external data with offset '-4'; allowed: a whole number of bytes"),
        ({"location": "weights.bin", "length": "1e9"}, "external data with length '1e9'"),
    ],
)
def test_external_data_that_is_unsafe_or_wrong(folder: Path, entries: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError) as error:
        load(_external(folder, **entries))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        ({"value": numpy_helper.from_array(np.array([1.5], np.float32))}, np.array([1.5], np.float32)),
        ({"value_float": 2.5}, np.array(2.5, np.float32)),
        ({"value_floats": [1.0, 2.0]}, np.array([1, 2], np.float32)),
        ({"value_int": 7}, np.array(7)),
        ({"value_ints": [7, 8]}, np.array([7, 8])),
    ],
)
def test_constants_in_every_form(attribute: dict[str, object], wanted: np.ndarray) -> None:
    (seen,) = results(model([helper.make_node("Constant", [], ["y"], **attribute)], [], ["y"]), {})
    assert seen.dtype == wanted.dtype and np.array_equal(seen, wanted)


def test_text_constants_and_sparse_weights_are_refused() -> None:
    proto = model([helper.make_node("Constant", [], ["y"], value_string="a")], [], ["y"])
    assert unsupported(proto)[0].op == "Constant"
    sparse = _relu()
    values = helper.make_tensor("s", TensorProto.FLOAT, (1,), [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, (1,), [0])
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2]))
    with pytest.raises(UnsupportedError, match="the model holds sparse initializers; allowed: dense ones"):
        load(sparse)
