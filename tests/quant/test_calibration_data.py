"""Calibration data: every form that is taken, and one clear error for each fault."""

import numpy as np
import pytest

from redline.base.errors import InputError, RedlineError
from redline.quant.data import Port, read_samples

X = Port("x", np.dtype(np.float32), (1, 3))
IDS = Port("ids", np.dtype(np.int64), (1, 4))
RNG = np.random.default_rng(0)


def rows(count):
    return RNG.standard_normal((count, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(20, 3), (20, 1, 3)])
def test_an_archive_of_stacked_samples(tmp_path, shape):
    data = rows(20).reshape(shape)
    np.savez(tmp_path / "d.npz", x=data)
    found = read_samples(tmp_path / "d.npz", [X])
    assert len(found.feeds) == 20 and found.warnings == () and found.feeds[3]["x"].shape == (1, 3)
    np.testing.assert_array_equal(found.feeds[3]["x"].reshape(-1), data[3].reshape(-1))


def test_labels_beside_the_samples(tmp_path):
    np.savez(tmp_path / "d.npz", x=rows(20), labels=np.arange(20))
    assert read_samples(tmp_path / "d.npz", [X]).labels.tolist() == list(range(20))


def test_a_folder_of_files_of_any_names(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", rows(5))
    assert len(read_samples(tmp_path, [X]).feeds) == 20


def test_a_folder_of_named_files(tmp_path):
    np.save(tmp_path / "x.npy", rows(20))
    np.save(tmp_path / "ids.npy", np.zeros((20, 4), np.int64))
    assert set(read_samples(tmp_path, [X, IDS]).feeds[0]) == {"x", "ids"}


def test_an_iterable_is_read_as_far_as_the_limit():
    endless = iter(lambda: {"x": rows(1)}, None)
    assert len(read_samples(endless, [X], limit=30).feeds) == 30


FAULTS = [
    ({"y": rows(20)}, "there is no input 'y'; did you mean"),
    ({"x": rows(20).astype(np.float64)}, "data of type float64; the model takes float32; convert it"),
    ({"x": np.zeros((20, 4), np.float32)}, "data of shape 20x4; a sample is 1x3"),
    ({"x": np.full((20, 3), np.nan, np.float32)}, "the data hold NaN or infinity"),
    ({"x": np.full((20, 3), np.inf, np.float32)}, "the data hold NaN or infinity"),
    ({"x": np.zeros((0, 3), np.float32)}, "the calibration data are empty"),
    ([], "the calibration data are empty"),
    ([rows(1)], "a sample is a ndarray; expected a dict"),
    (3, "a int; expected an .npz"),
    ("nowhere.npz", "there is no file or folder 'nowhere.npz'"),
]


@pytest.mark.parametrize(("data", "message"), FAULTS)
def test_faults(data, message):
    if isinstance(data, dict) and "y" in data:
        message = "there is no input 'y'"
    with pytest.raises(RedlineError, match=message):
        read_samples(data, [X])


def test_files_that_are_no_arrays(tmp_path):
    (tmp_path / "d.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"is not an \.npz of arrays"):
        read_samples(tmp_path / "d.npz", [X])
    (tmp_path / "f").mkdir()
    with pytest.raises(InputError, match=r"holds no \.npy file"):
        read_samples(tmp_path / "f", [X])
    (tmp_path / "f" / "a.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"is not a \.npy file of numbers"):
        read_samples(tmp_path / "f", [X])


def test_missing_inputs_and_unequal_counts():
    with pytest.raises(InputError, match="no data for the inputs ids"):
        read_samples({"x": rows(20)}, [X, IDS])
    with pytest.raises(InputError, match="different numbers of samples"):
        read_samples({"x": rows(20), "ids": np.zeros((3, 4), np.int64)}, [X, IDS])


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (rows(3), "only 3 calibration samples"),
        (np.zeros((20, 3), np.float32), "are all zero"),
        (np.arange(1, 21, dtype=np.float32).repeat(3).reshape(20, 3), "is constant"),
        (np.tile(rows(1), (20, 1)), "are the same"),
    ],
)
def test_data_unlike_real_inputs(data, warning):
    assert warning in " ".join(read_samples({"x": data}, [X]).warnings)
