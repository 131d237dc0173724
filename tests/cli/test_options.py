"""Reading arrays named on the command line."""

import numpy as np
import pytest

from redline.base.errors import RedlineError
from redline.cli.options import load_array, parse_frozen


def test_arrays_by_name(tmp_path):
    np.save(tmp_path / "a=b.npy", np.arange(3))
    arrays = parse_frozen([f"x={tmp_path}/a=b.npy"])
    assert list(arrays) == ["x"]
    assert (arrays["x"] == np.arange(3)).all()


def test_numbers_by_name():
    found = parse_frozen(["a=16000", "b=-1.5e-3", "c=true"])
    assert found == {"a": 16000, "b": -0.0015, "c": True}
    assert list(map(type, found.values())) == [int, float, bool]


@pytest.mark.parametrize("item", ["x", "=x.npy", "x="])
def test_items_without_a_name_or_file(item):
    with pytest.raises(RedlineError, match=r"expected NAME=FILE\.npy or NAME=NUMBER"):
        parse_frozen([item])


def test_an_input_given_twice(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(RedlineError, match="input 'x' is given twice"):
        parse_frozen([f"x={tmp_path}/x.npy"] * 2)


def test_files_that_hold_no_array(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").write_text("")
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.arange(2))
    with pytest.raises(RedlineError, match=r"\[--input\] there is no file 'none.npy'"):
        load_array("none.npy", "--input")
    for name in ("text.npy", "empty.npy", "pickle.npy"):
        with pytest.raises(RedlineError, match=r"is not a \.npy file; allowed: an array saved with numpy\.save"):
            load_array(tmp_path / name, "--input")
    with pytest.raises(RedlineError, match="holds several arrays"):
        load_array(tmp_path / "several.npz", "--input")
