"""What detectors end with: RoiAlign and NonMaxSuppression."""

import math

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.base.shapes import Sym
from redline.ir import TensorType
from redline.ops.registry import Op, define
from redline.ops.rules import choice, wide
from redline.ops.sample import fetch

# --- RoiAlign: data [N, C, H, W], regions [R, 4] as x1 y1 x2 y2, the picture of each region [R]


def _infer_roi(op: Op) -> list[TensorType]:
    x, rois = op.type(0), op.type(1).shape
    if len(x.shape) != 4 or len(rois) != 2 or rois[1] != 4 or op.type(2).shape != rois[:1]:
        seen = f"data {shapes.text(x.shape)}, regions {shapes.text(rois)}, pictures {shapes.text(op.type(2).shape)}"
        raise ModelError(op.label, seen, "allowed: [N, C, H, W], [R, 4], [R]")
    choice(op, "mode", "avg", ("avg", "max"))
    height, width = (int(op.attr(name, 1)) for name in ("output_height", "output_width"))
    return [TensorType(x.dtype, (rois[0], x.shape[1], height, width))]


def _roi_align(op: Op, x: np.ndarray, rois: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    x, rois = wide(x), wide(rois)
    cells = (int(op.attr("output_height", 1)), int(op.attr("output_width", 1)))
    y = np.zeros((len(rois), x.shape[1], *cells), x.dtype)
    for i, (roi, picture) in enumerate(zip(rois, pictures, strict=True)):
        y[i] = _align(op, x[int(picture)], roi, cells)
    return y


def _align(op: Op, picture: np.ndarray, roi: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """One region: each cell is the mean, or the largest weighted pixel, of the samples spread evenly over it."""
    is_half = op.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    left, top, right, bottom = roi * float(op.attr("spatial_scale", 1.0)) - (0.5 if is_half else 0.0)
    extents = [bottom - top, right - left]
    if not is_half:
        extents = [max(extent, 1.0) for extent in extents]
    axes = []
    for start, extent, count in zip((top, left), extents, cells, strict=True):
        samples = int(op.attr("sampling_ratio", 0)) or math.ceil(extent / count)
        axes.append(start + (np.arange(count * samples) + 0.5) * extent / (count * samples) if samples > 0 else np.empty(0))
    rows, cols = np.broadcast_arrays(axes[0][:, None], axes[1][None, :])
    corners = _corners(picture, rows, cols)
    per_cell = corners.reshape(4, -1, cells[0], rows.shape[0] // cells[0], cells[1], rows.shape[1] // cells[1])
    if op.attr("mode", "avg") == "max":
        return per_cell.max(axis=(0, 3, 5), initial=-np.inf) if rows.size else np.zeros(per_cell.shape[1:5:2])
    return per_cell.sum(axis=(0, 3, 5)) / max(rows.size // (cells[0] * cells[1]), 1)


def _corners(picture: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """[4, C, rows, cols]: the four pixels around each place times their weights; 0 more than one element outside."""
    height, width = picture.shape[1:]
    inside = (rows >= -1) & (rows <= height) & (cols >= -1) & (cols <= width)
    rows, cols = (np.clip(at, 0, size - 1) for at, size in ((rows, height), (cols, width)))
    top, left = np.floor(rows), np.floor(cols)
    down, right = rows - top, cols - left
    weighted = []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (down if dy else 1 - down) * (right if dx else 1 - right) * inside
        at = np.minimum(top + dy, height - 1), np.minimum(left + dx, width - 1)
        weighted.append(fetch(picture[None], at[0][None], at[1][None])[0] * weight)
    return np.stack(weighted)


# --- NonMaxSuppression: boxes [N, B, 4], scores [N, classes, B]; how many boxes it leaves depends on the data


def _infer_nms(op: Op) -> list[TensorType]:
    boxes, scores = op.type(0).shape, op.type(1).shape
    if len(boxes) != 3 or len(scores) != 3 or boxes[2] != 4 or (boxes[0], boxes[1]) != (scores[0], scores[2]):
        seen = f"boxes {shapes.text(boxes)}, scores {shapes.text(scores)}"
        raise ModelError(op.label, seen, "allowed: [N, B, 4] and [N, classes, B]")
    if shapes.is_static(boxes) and not kept_per_class(op):
        return [TensorType(dtypes.int64, (0, 3))]
    count = op.attr("count")
    return [TensorType(dtypes.int64, (Sym(f"{op.label}.selected") if count is None else int(count), 3))]


def kept_per_class(op: Op) -> int:
    """The most boxes that NonMaxSuppression keeps of a class of a picture."""
    boxes = op.shape(0)[1]
    if not op.has(2):
        return 0
    return min(boxes, max(0, int(op.const(2).reshape(-1)[0]))) if op.is_const(2) else boxes


def _nms_bound(op: Op) -> int | None:
    pictures, classes = op.shape(1)[:2]
    return pictures * classes * kept_per_class(op) or None


def _number(array: np.ndarray | None, default: float) -> float:
    return default if array is None else float(array.reshape(-1)[0])


def _nms(
    op: Op, boxes: np.ndarray, scores: np.ndarray, most: np.ndarray | None = None, iou: np.ndarray | None = None,
    least: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Rows of picture, class and box: for each class the best boxes that overlap no better one too much."""
    limit, overlap, threshold = int(_number(most, 0)), _number(iou, 0), _number(least, -np.inf)
    chosen = []
    for picture, corners in enumerate(_as_corners(op, boxes.astype(np.float64))):
        for label, ranked in enumerate(scores[picture]):
            order = [b for b in np.argsort(-ranked, kind="stable") if ranked[b] > threshold]
            chosen += [(picture, label, box) for box in _best(corners, order, limit, overlap)]
    return np.array(chosen, np.int64).reshape(-1, 3)


def _as_corners(op: Op, boxes: np.ndarray) -> np.ndarray:
    """Boxes as their lower and higher corner. They come as two corners in any order, or as centre and size."""
    if op.attr("center_point_box", 0):
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([centre - half, centre + half], axis=-1)
    a, b = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], axis=-1)


def _best(corners: np.ndarray, order: list[int], limit: int, overlap: float) -> list[int]:
    kept: list[int] = []
    for box in order:
        if len(kept) >= limit:
            break
        if not kept or (_iou(corners[box], corners[kept]) <= overlap).all():
            kept.append(int(box))
    return kept


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with several; 0 where a box is empty."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=-1) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0)


define("RoiAlign", _infer_roi, _roi_align)
define("NonMaxSuppression", _infer_nms, _nms, bound=_nms_bound)
