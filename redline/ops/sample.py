"""Reading images between their pixels: the arithmetic shared by GridSample, DeformConv and RoiAlign."""

import numpy as np


def fetch(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """image [G, C, H, W] at integer rows and cols [G, ...]: [G, C, ...], 0 outside the image."""
    height, width = image.shape[2:]
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    flat = (np.where(inside, rows, 0) * width + np.where(inside, cols, 0)).astype(np.int64)
    pixels = image.reshape(*image.shape[:2], height * width)
    read = np.stack([plane[:, index.reshape(-1)].reshape(-1, *index.shape) for plane, index in zip(pixels, flat, strict=True)])
    return np.where(inside[:, None], read, 0).astype(image.dtype)


def bilinear(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """image [G, C, H, W] at fractional rows and cols [G, ...]: the mean of the four pixels around, weighted by nearness."""
    top, left = np.floor(rows), np.floor(cols)
    down, right = (rows - top)[:, None], (cols - left)[:, None]
    upper = fetch(image, top, left) * (1 - right) + fetch(image, top, left + 1) * right
    lower = fetch(image, top + 1, left) * (1 - right) + fetch(image, top + 1, left + 1) * right
    return upper * (1 - down) + lower * down
