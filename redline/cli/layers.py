"""The layers of an engine against the model's own values: how much noise each holds, and where it begins.

An engine in 8 bits stores steps, not numbers, so its values are compared through the straight line, a channel, that fits
them best: what counts is whether they still say what the model's values say.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redline.base.errors import RedlineError
from redline.cli import extras
from redline.engine.header import KernelRecord
from redline.runtime import AnyEngine, Engine
from redline.runtime.trace import trace

FLOAT_LIMIT_DB = 40.0
FALL_DB, SUSPECT_DB, LOST_DB = 8.0, 20.0, 3.0
BYTES = ("int8", "uint8")
MIN_ROWS = 8  # fewer values a channel fit any line
MOST_DB = 200.0


@dataclass(frozen=True)
class LayerVerdict:
    """One value of the model as the engine holds it. ``worst`` is the largest error as a part of the largest value."""

    node: str
    kernel: str
    dtype: str
    snr_db: float
    cosine: float
    worst: float


def compare_layers(model: Path, engine: AnyEngine, feed: Mapping[str, np.ndarray]) -> list[LayerVerdict]:
    """A verdict for every kernel whose result is a value of the model, in the order of execution."""
    if not isinstance(engine, Engine):
        raise RedlineError("--layers", "a CUDA engine", "allowed: engines for processors", "build it for the CPU")
    kernels = engine.header_at(feed).kernels
    expose = extras.load("redline.frontend.expose", "compare --layers")
    values = dict(expose.inner_values(model))
    wanted = [values[name] for kernel in kernels for name in kernel.nodes if name in values]
    expected = _expected(expose.with_outputs(model, list(dict.fromkeys(wanted))), wanted, feed)
    finished_by = _finished_by(kernels)
    verdicts = []
    for number, (kernel, written) in enumerate(trace(engine, {io.name: feed[io.name] for io in engine.header.inputs})):
        finished = {name: values[name] for name in kernel.nodes if name in values and finished_by[name] == number}
        verdict = _verdict(kernel, written[0], finished, expected)
        if verdict is not None:
            verdicts.append(verdict)
    return verdicts


def _finished_by(kernels: Sequence[KernelRecord]) -> dict[str, int]:
    """The kernel whose result is a node's: the one that ends with it, or else the last that has a part of it.

    Integer products take parts of the quantization in front of them, so a name may come again in the next kernel.
    """
    last = {name: number for number, kernel in enumerate(kernels) for name in kernel.nodes}
    return last | {kernel.nodes[-1]: number for number, kernel in enumerate(kernels) if kernel.nodes}


def first_wrong(verdicts: Sequence[LayerVerdict]) -> LayerVerdict | None:
    """The first layer with much more noise than all before it.

    A float engine keeps 40 dB throughout. In 8 bits noise grows slowly, so there it is a fall by 8 dB below 20 dB, or 3 dB.
    """
    has_bytes = any(verdict.dtype in BYTES for verdict in verdicts)
    lowest = MOST_DB
    for verdict in verdicts:
        falls = verdict.snr_db < min(lowest - FALL_DB, SUSPECT_DB) or verdict.snr_db < LOST_DB
        if falls if has_bytes else verdict.snr_db < FLOAT_LIMIT_DB:
            return verdict
        lowest = min(lowest, verdict.snr_db)
    return None


def _expected(model: bytes, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    runtime = extras.load("onnxruntime", "compare --layers")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = list(dict.fromkeys(names))
    given = {item.name: feed[item.name] for item in session.get_inputs()}
    return dict(zip(wanted, session.run(wanted, given), strict=True)) if wanted else {}


def _verdict(
    kernel: KernelRecord, found: np.ndarray, values: Mapping[str, str], expected: Mapping[str, np.ndarray]
) -> LayerVerdict | None:
    for name in reversed(kernel.nodes):
        wide = expected.get(values.get(name, ""))
        if wide is None or wide.dtype.kind not in "fiu" or found.dtype.kind not in "fiuV" or not wide.size:
            continue
        is_bytes = found.dtype.itemsize == 1 and wide.dtype.itemsize > 1
        verdicts = [
            _measure(name, kernel, found.dtype.name, placed, wide.astype(np.float64), is_bytes)
            for placed in _placed(found.astype(np.float64), wide.shape)
        ]
        if verdicts:
            return max(verdicts, key=lambda verdict: verdict.snr_db)
    return None


def _placed(found: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """``found`` in the orders of axes that it may have: the model's, and with the channels last.

    A kernel knows extents, not what they stand for, and may have more axes of one element.
    """
    if found.size != math.prod(shape):
        return
    yield found.reshape(shape)
    last = (*shape[:1], *shape[2:], *shape[1:2])
    if _longer_than_one(found.shape) == _longer_than_one(last):
        yield np.moveaxis(found.reshape(last), -1, 1 if len(shape) > 1 else 0)


def _longer_than_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)


def _measure(name: str, kernel: KernelRecord, dtype: str, found: np.ndarray, wide: np.ndarray, is_bytes: bool) -> LayerVerdict:
    found = _fitted(found, wide) if is_bytes else found
    error = np.abs(found - wide)
    power, noise = float((wide**2).sum()), float((error**2).sum())
    snr = MOST_DB if noise <= power * 10 ** (-MOST_DB / 10) else 10 * math.log10(max(power, 1e-300) / noise)
    size = float(np.linalg.norm(found) * np.linalg.norm(wide))
    cosine = float((found * wide).sum()) / size if size else 1.0
    return LayerVerdict(name, kernel.family, dtype, snr, cosine, float(error.max()) / (float(np.abs(wide).max()) or 1.0))


def _fitted(found: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """The line a + b * found closest to ``wide``, for each channel where there are values enough."""
    axis = 1 if found.ndim > 3 else -1
    x = np.moveaxis(found, axis, -1).reshape(-1, found.shape[axis]) if found.ndim > 1 else found.reshape(-1, 1)
    y = np.moveaxis(wide, axis, -1).reshape(x.shape) if wide.ndim > 1 else wide.reshape(-1, 1)
    if len(x) < MIN_ROWS:
        x, y = x.reshape(-1, 1), y.reshape(-1, 1)
    centred = x - x.mean(0)
    slope = (centred * (y - y.mean(0))).sum(0) / np.maximum((centred**2).sum(0), 1e-30)
    fitted = y.mean(0) + slope * centred
    moved = np.moveaxis(found, axis, -1).shape if found.ndim > 1 else found.shape
    return np.moveaxis(fitted.reshape(moved), -1, axis) if found.ndim > 1 else fitted.reshape(moved)
