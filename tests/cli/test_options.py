"""Reading arrays named on the command line."""

import numpy as np
import pytest

from redline.base.errors import RedlineError
from redline.cli.options import load_array, parse_arrays


def test_arrays_by_name(tmp_path):
    np.save(tmp_path / "a=b.npy", np.arange(3))
    arrays = parse_arrays([f"x={tmp_path}/a=b.npy"], "--freeze")
    assert list(arrays) == ["x"]
    assert (arrays["x"] == np.arange(3)).all()


@pytest.mark.parametrize("item", ["x", "=x.npy", "x="])
def test_items_without_a_name_or_file(item):
    with pytest.raises(RedlineError, match=r"expected NAME=FILE\.npy"):
        parse_arrays([item], "--freeze")


def test_an_input_given_twice(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(RedlineError, match="input 'x' is given twice"):
        parse_arrays([f"x={tmp_path}/x.npy"] * 2, "--freeze")


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
