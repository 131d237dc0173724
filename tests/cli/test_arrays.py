"""Inputs from files and from the random generator; outputs to files."""

import ml_dtypes
import numpy as np
import pytest

from redline.base import dtypes
from redline.base.errors import RedlineError
from redline.cli import arrays
from redline.cli.arrays import fill, read_inputs, save
from redline.engine.header import IO


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("one", "two", "three")):
        np.save(f"{name}.npy", np.full(2, i))


def first_values(given):
    return {name: int(array[0]) for name, array in given.items()}


def test_named_and_bare_files(files):
    assert first_values(read_inputs(["b=two.npy", "one.npy", "three.npy"], ["a", "b", "c"])) == {"a": 0, "b": 1, "c": 2}
    assert read_inputs(None, ["a"]) == {}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["d=one.npy"], r"\[--input\] there is no input 'd'; known: a, bee"),
        (["be=one.npy"], "did you mean 'bee'"),
        (["a=one.npy", "a=two.npy"], "input 'a' is given twice"),
        (["one.npy", "two.npy", "three.npy"], "3 files without a name; 2 inputs are left: a, bee"),
        (["a=none.npy"], "there is no file 'none.npy'"),
    ],
)
def test_items_that_fit_no_input(files, items, message):
    with pytest.raises(RedlineError, match=message):
        read_inputs(items, ["a", "bee"])


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=repr)
def test_random_arrays_have_the_inputs_type(dtype):
    io = IO("x", dtype.name, (3, 0, 2)), IO("y", dtype.name, (64,)), IO("z", dtype.name, ())
    filled = fill(io, {}, seed=0)
    assert {n: (a.dtype, a.shape) for n, a in filled.items()} == {i.name: (dtype.numpy, i.shape) for i in io}
    assert len(np.unique(filled["y"])) > 1
    assert all(np.array_equal(filled[n], again) for n, again in fill(io, {}, seed=0).items())


@pytest.mark.parametrize("dtype", [dtypes.int32, dtypes.int64, dtypes.uint64, dtypes.bool_], ids=repr)
def test_random_wide_integers_are_valid_indices(dtype):
    assert set(fill([IO("ids", dtype.name, (100,))], {}, 1)["ids"].tolist()) == {0, 1}


def test_given_arrays_are_taken_as_they_are(tmp_path):
    given = np.arange(3, dtype=np.int16)
    assert fill([IO("x", "float32", (9,))], {"x": given}, 0)["x"] is given


def test_bfloat16_survives_a_file(tmp_path):
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    (path,) = save(tmp_path, {"x": array})
    loaded = fill([IO("x", "bfloat16", (2,))], read_inputs([f"x={path}"], ["x"]), 0)["x"]
    assert loaded.dtype == array.dtype
    assert (loaded == array).all()


def test_saved_files_are_whole_or_absent(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "folder"
    paths = save(folder, {"a/b": np.arange(2), "c": np.float32(1)})
    assert [p.name for p in paths] == ["a_b.npy", "c.npy"]

    def fail(file, array, allow_pickle):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(arrays.np, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save(folder, {"c": np.zeros(9)})
    monkeypatch.undo()
    assert sorted(p.name for p in folder.iterdir()) == ["a_b.npy", "c.npy"]
    assert np.load(folder / "c.npy") == 1
