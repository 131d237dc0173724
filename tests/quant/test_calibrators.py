"""Ranges from histograms, and the cache that keeps them."""

import json

import numpy as np
import pytest

from redline.base.errors import BuildError
from redline.quant import CalibrationCache, Statistics, Tensor
from redline.quant.calibrators import CALIBRATORS, calibrate


def counted(values):
    statistics = Statistics()
    for part in np.array_split(values, 4):
        statistics.look(part)
    statistics.divide(None)
    for part in np.array_split(values, 4):
        statistics.count(part)
    return statistics


def quantization_error(values, low, high):
    step = (high - low) / 255
    held = np.clip(np.round(values / step), np.round(low / step), np.round(high / step)) * step
    return float(((held - values) ** 2).mean())


NORMAL = np.random.default_rng(0).standard_normal((4000, 4)).astype(np.float32)


def test_minmax_covers_everything():
    found = counted(NORMAL)
    assert calibrate("minmax", found.counts, found.edges) == pytest.approx((NORMAL.min(), NORMAL.max()))


@pytest.mark.parametrize("name", ["percentile", "mse", "entropy"])
def test_an_outlier_is_cut_off_where_that_pays(name):
    values = np.tile(NORMAL, (5, 1))
    values[7, 1] = 300
    found = counted(values)
    low, high = calibrate(name, found.counts, found.edges)
    assert low <= 0
    if name != "mse":
        assert high < 200
    else:
        assert quantization_error(values, low, high) <= quantization_error(values, values.min(), values.max())


@pytest.mark.parametrize("name", sorted(CALIBRATORS))
@pytest.mark.parametrize("values", [np.zeros((10, 2), np.float32), np.abs(NORMAL), -np.abs(NORMAL), NORMAL[:1, :1]])
def test_ranges_hold_zero_and_are_finite(name, values):
    found = counted(values)
    low, high = calibrate(name, found.counts, found.edges)
    assert low <= 0 <= high and np.isfinite([low, high]).all() and high > low


def test_unknown_calibrators():
    with pytest.raises(BuildError, match="there is no calibrator 'mini'"):
        calibrate("mini", np.ones(4), (0, 1))


def test_channels():
    found = counted(NORMAL * np.array([1, 2, 3, 4], np.float32) + 1)
    assert found.mean == pytest.approx([1] * 4, abs=0.1)
    assert found.peak[3] > found.peak[0]


def test_the_cache_comes_back_and_can_be_edited(tmp_path):
    path = tmp_path / "c.json"
    CalibrationCache("abc", "mse", 9, {"t": Tensor(-1.0, 2.0, np.array([0.5]), None)}).save(path)
    data = json.loads(path.read_text())
    data["tensors"]["t"]["high"] = 3.0
    path.write_text(json.dumps(data))
    found = CalibrationCache.open(path, "abc")
    assert (found.tensors["t"].low, found.tensors["t"].high, found.samples) == (-1.0, 3.0, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "its format is 2"),
        (lambda d: d.update(model="other"), "it was made from the model other"),
        (lambda d: d["tensors"]["t"].update(low=1.0), "it must hold 0"),
        (lambda d: d["tensors"]["t"].update(high="x"), "it is no calibration cache"),
        (lambda d: d.pop("tensors"), "it is no calibration cache"),
    ],
)
def test_caches_that_are_refused(tmp_path, change, message):
    path = tmp_path / "c.json"
    CalibrationCache("abc", "mse", 9, {"t": Tensor(-1.0, 2.0)}).save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(BuildError, match=message):
        CalibrationCache.open(path, "abc")
