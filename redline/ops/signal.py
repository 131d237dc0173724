"""Spectra: DFT, STFT, the window functions and MelWeightMatrix. Transforms decompose into one product with known cosines.

Complex numbers are a last axis of 2: the real and the imaginary part; real ones a last axis of 1.
"""

import math

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value, constant
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, ints, onnx_dtype, reshaped, transposed, wide


def _scalar(op: Op, i: int, default: int) -> int:
    return op.ints(i)[0] if op.has(i) else default


# --- DFT


def _dft_axis(op: Op) -> int:
    rank = len(op.type(0).shape)
    axis = shapes.axis_index(_scalar(op, 2, -2), rank, op.label)
    if rank < 2 or axis == rank - 1 or op.type(0).shape[-1] not in (1, 2):
        raise ModelError(op.label, f"{op.name} of {shapes.text(op.type(0).shape)} along axis {axis}", "allowed: [..., 1 or 2]")
    return axis


def _is_real_inverse(op: Op) -> bool:
    return bool(op.attr("inverse", 0) and op.attr("onesided", 0))


def _dft_length(op: Op) -> int:
    """The transform's length: given, or that of the signal."""
    size = shapes.static((op.type(0).shape[_dft_axis(op)],), op.label)[0]
    length = _scalar(op, 1, 2 * (size - 1) if _is_real_inverse(op) else size)
    if length < 1:
        raise ModelError(op.label, f"a transform of length {length}", "allowed: from 1")
    return length


def _infer_dft(op: Op) -> list[TensorType]:
    axis, length = _dft_axis(op), _dft_length(op)
    is_half = bool(op.attr("onesided", 0) and not op.attr("inverse", 0))
    shape = list(op.type(0).shape)
    shape[axis], shape[-1] = (length // 2 + 1 if is_half else length), (1 if _is_real_inverse(op) else 2)
    return [TensorType(op.type(0).dtype, tuple(shape))]


def _as_complex(x: np.ndarray) -> np.ndarray:
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def _as_pairs(x: np.ndarray) -> np.ndarray:
    return np.stack([x.real, x.imag], axis=-1)


def _dft(op: Op, x: np.ndarray, *_: np.ndarray | None) -> np.ndarray:
    signal, axis, length = _as_complex(wide(x).astype(np.float64)), _dft_axis(op), _dft_length(op)
    if _is_real_inverse(op):
        return np.fft.irfft(signal, length, axis)[..., None]
    if op.attr("inverse", 0):
        return _as_pairs(np.fft.ifft(signal, length, axis))
    spectrum = np.fft.fft(signal, length, axis)
    if op.attr("onesided", 0):
        spectrum = np.take(spectrum, np.arange(length // 2 + 1), axis)
    return _as_pairs(spectrum)


def _transform(used: int, parts: int, length: int, bins: int, sign: int) -> np.ndarray:
    """[used * parts, bins * 2]: the product with it is sum over n of exp(sign * 2 pi i k n / length) x[n]."""
    turn = sign * 2 * np.pi * (np.outer(np.arange(used), np.arange(bins)) % length) / length
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.empty((used, 2, bins, 2))
    matrix[:, 0, :, 0], matrix[:, 0, :, 1], matrix[:, 1, :, 0], matrix[:, 1, :, 1] = cos, sin, -sin, cos
    return matrix[:, :parts].reshape(used * parts, bins * 2)


def _real_inverse(used: int, parts: int, length: int) -> np.ndarray:
    """[used * parts, length]: the real signal whose one-sided spectrum it is multiplied with."""
    full = _transform(used, parts, length, length, 1).reshape(used, parts, length, 2)[..., 0]
    twice = np.full(used, 2.0)  # bins that stand for themselves and their mirror image
    twice[0] = 1
    if length % 2 == 0 and used > length // 2:
        twice[length // 2] = 1
    return (full * twice.reshape(-1, 1, 1) / length).reshape(used * parts, length)


def _decompose_dft(op: Op) -> Value:
    """The axis brought last but one, then one product that takes in both parts of the numbers."""
    x, axis, length = op.value(0), _dft_axis(op), _dft_length(op)
    rank, out = len(x.shape), _infer_dft(op)[0].shape
    perm = [*(a for a in range(rank) if a not in (axis, rank - 1)), axis, rank - 1]
    moved = transposed(x, perm)
    size, parts = shapes.static(moved.shape[-2:], op.label)
    used = min(size, length // 2 + 1 if _is_real_inverse(op) else length)
    if used < size:
        moved = make("Slice", moved, ints([0]), ints([used]), ints([rank - 2]))
    if _is_real_inverse(op):
        matrix = _real_inverse(used, parts, length)
    else:
        inverse = bool(op.attr("inverse", 0))
        matrix = _transform(used, parts, length, shapes.static(out)[axis], 1 if inverse else -1) / (length if inverse else 1)
    y = _product(reshaped(moved, (*moved.shape[:-2], used * parts)), matrix)
    shaped = reshaped(y, (*moved.shape[:-2], out[axis], out[-1]))
    return transposed(shaped, tuple(np.argsort(perm)))


def _product(x: Value, matrix: np.ndarray) -> Value:
    """x @ matrix, half precision in float32."""
    dtype = dtypes.float32 if x.dtype in HALF else x.dtype
    return cast(make("MatMul", cast(x, dtype), constant(matrix.astype(dtype.numpy))), x.dtype)


# --- STFT: signal [B, length, 1 or 2], step, window, frame length


def _frames(op: Op) -> tuple[int, int, int]:
    """The length of a frame, the step between frames, and their number."""
    signal = op.type(0).shape
    if len(signal) != 3 or signal[2] not in (1, 2):
        raise ModelError(op.label, f"STFT of {shapes.text(signal)}", "allowed: [B, length, 1 or 2]")
    size = shapes.static(signal[1:2], op.label)[0]
    default = op.shape(2)[0] if op.has(2) else size
    length, step = _scalar(op, 3, default), _scalar(op, 1, 0)
    if step < 1 or not 1 <= length <= size or (op.has(2) and op.shape(2) != (length,)):
        raise ModelError(op.label, f"frames of {length} every {step} over {size} samples", "a window of the frame's length")
    return length, step, (size - length) // step + 1


def _bins(op: Op, length: int) -> int:
    return length // 2 + 1 if op.attr("onesided", 1) else length


def _infer_stft(op: Op) -> list[TensorType]:
    length, _, count = _frames(op)
    return [TensorType(op.type(0).dtype, (op.type(0).shape[0], count, _bins(op, length), 2))]


def _stft(op: Op, signal: np.ndarray, step: np.ndarray, window: np.ndarray | None = None, *_: np.ndarray | None) -> np.ndarray:
    length, stride, _count = _frames(op)
    frames = np.lib.stride_tricks.sliding_window_view(_as_complex(wide(signal).astype(np.float64)), length, 1)[:, ::stride]
    return _as_pairs(np.fft.fft(frames if window is None else frames * wide(window), axis=-1)[..., : _bins(op, length)])


def _decompose_stft(op: Op) -> Value:
    """Overlapping frames gathered, windowed, and transformed by one product."""
    length, step, count = _frames(op)
    batch, _, parts = op.type(0).shape
    places = np.arange(count)[:, None] * step + np.arange(length)
    frames = make("Gather", op.value(0), constant(places), axis=1)
    if op.has(2):
        frames = make("Mul", frames, reshaped(op.value(2), (length, 1)))
    width = length * shapes.static((parts,))[0]
    bins = _bins(op, length)
    y = _product(reshaped(frames, (batch, count, width)), _transform(length, width // length, length, bins, -1))
    return reshaped(y, (batch, count, bins, 2))


# --- Windows and the mel matrix: constants, computed when the graph is made


def _infer_window(op: Op) -> list[TensorType]:
    size = op.ints(0)[0]
    if size < 0:
        raise ModelError(op.label, f"a window of {size}", "allowed: from 0")
    return [TensorType(onnx_dtype(op, "output_datatype", dtypes.float32), (size,))]


_COSINES = {"HannWindow": (0.5, -0.5), "HammingWindow": (25 / 46, -21 / 46), "BlackmanWindow": (0.42, -0.5, 0.08)}


def _window(op: Op, size: np.ndarray) -> np.ndarray:
    """A sum of cosines over one period, which ends at the last sample or, ``periodic``, one after it."""
    count = int(size.reshape(()))
    period = count if op.attr("periodic", 1) else count - 1
    turn = 2 * np.pi * np.arange(count) / period
    return np.sum([factor * np.cos(k * turn) for k, factor in enumerate(_COSINES[op.name])], axis=0)


def _infer_mel(op: Op) -> list[TensorType]:
    bands, length = op.ints(0)[0], op.ints(1)[0]
    return [TensorType(onnx_dtype(op, "output_datatype", dtypes.float32), (length // 2 + 1, bands))]


def _mel_edges(op: Op) -> np.ndarray:
    """The spectrum bins at which the bands begin, peak and end: equally spaced in mel."""
    bands, length, rate = (op.ints(i)[0] for i in range(3))
    low, high = (2595 * math.log10(1 + float(op.const(i).reshape(())) / 700) for i in (3, 4))
    mel = low + np.arange(bands + 2) * (high - low) / (bands + 2)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    return ((length + 1) * hertz // rate).astype(np.int64)


def _mel(op: Op, *_: np.ndarray) -> np.ndarray:
    """Triangles: up from a band's begin to 1 at its peak, down to its end."""
    edges, bins = _mel_edges(op), np.arange(op.ints(1)[0] // 2 + 1)[:, None]
    begin, peak, end = edges[:-2], edges[1:-1], edges[2:]
    rising = np.where(peak == begin, bins == peak, (bins - begin) / np.maximum(peak - begin, 1))
    falling = (end - bins) / np.maximum(end - peak, 1)
    up = (bins >= begin) & (bins <= peak)
    down = (bins >= peak) & (bins < end) & (end > peak)
    return np.where(down, falling, np.where(up, rising, 0))


define("DFT", _infer_dft, _dft, _decompose_dft, static=(1, 2))
define("STFT", _infer_stft, _stft, _decompose_stft, static=(1, 3))
for _name in _COSINES:
    define(_name, _infer_window, _window, static=(0,))
define("MelWeightMatrix", _infer_mel, _mel, static=(0, 1, 2, 3, 4))
