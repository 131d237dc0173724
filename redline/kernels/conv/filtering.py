"""Minimal filtering in one dimension, F(m, 3) of stride 1 or 2: m outputs from a patch of inputs d by as many products.

    y = A^T [ (G g) * (B^T d) ]

Of stride 2, the even inputs meet the outer taps, which is F(m, 2), and the odd ones meet the middle tap, one product each.
Points: 0, 1, -1 (as many as are needed, then 2, -2) and infinity. Source: Blahut, Fast Algorithms for Signal Processing.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Filtering:
    """``of_filter`` is G [products, 3]; the others are C of vectors: y = B^T d and y = A^T d."""

    of_filter: np.ndarray
    of_input: str
    of_output: str


def patch(step: int, outputs: int) -> int:
    """Inputs that ``outputs`` neighbours read; the products are as many."""
    return step * (outputs - 1) + 3


def _strided(outer: np.ndarray, outputs: int) -> np.ndarray:
    """G of stride 2: ``outer`` [outputs + 1, 2] of the outer taps, then the middle tap for every output."""
    even = np.stack([outer[:, 0], np.zeros(outputs + 1), outer[:, 1]], axis=1)
    return np.concatenate([even, np.tile([[0.0, 1.0, 0.0]], (outputs, 1))])


KINDS = {
    (1, 2): Filtering(
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
        "y[0] = d[0] - d[2]; y[1] = d[1] + d[2]; y[2] = d[2] - d[1]; y[3] = d[1] - d[3];",
        "y[0] = d[0] + d[1] + d[2]; y[1] = d[1] - d[2] - d[3];",
    ),
    (1, 4): Filtering(
        np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
        """vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], far = d[4] - d[2], near = d[3] - d[1];
  y[0] = 4 * d[0] - 5 * d[2] + d[4]; y[1] = even + odd; y[2] = even - odd;
  y[3] = far + 2 * near; y[4] = far - 2 * near; y[5] = 4 * d[1] - 5 * d[3] + d[5];""",
        """vec p = d[1] + d[2], q = d[1] - d[2], r = d[3] + d[4], s = d[3] - d[4];
  y[0] = d[0] + p + r; y[1] = q + 2 * s; y[2] = p + 4 * r; y[3] = q + 8 * s + d[5];""",
    ),
    (2, 2): Filtering(
        _strided(np.array([[1, 0], [1, 1], [0, 1]]), 2),
        "y[0] = d[0] - d[2]; y[1] = d[2]; y[2] = d[4] - d[2]; y[3] = d[1]; y[4] = d[3];",
        "y[0] = d[0] + d[1] + d[3]; y[1] = d[1] + d[2] + d[4];",
    ),
    (2, 3): Filtering(
        _strided(np.array([[2, 0], [1, 1], [1, -1], [0, 2]]) / 2, 3),
        """y[0] = d[0] - d[4]; y[1] = d[2] + d[4]; y[2] = d[4] - d[2]; y[3] = d[6] - d[2];
  y[4] = d[1]; y[5] = d[3]; y[6] = d[5];""",
        "vec p = d[1] + d[2], q = d[1] - d[2]; y[0] = d[0] + p + d[4]; y[1] = q + d[5]; y[2] = p + d[3] + d[6];",
    ),
    (2, 4): Filtering(
        _strided(np.array([[3, 0], [-3, -3], [-1, 1], [1, 2], [0, 6]]) / 6, 4),
        """vec far = d[6] - d[2];
  y[0] = 2 * (d[0] - d[4]) + far; y[1] = d[6] - d[4] - 2 * d[2]; y[2] = d[6] - 3 * d[4] + 2 * d[2];
  y[3] = far; y[4] = d[8] - d[4] - 2 * far; y[5] = d[1]; y[6] = d[3]; y[7] = d[5]; y[8] = d[7];""",
        """vec p = d[1] + d[2], q = d[1] - d[2];
  y[0] = d[0] + p + d[3] + d[5]; y[1] = q + 2 * d[3] + d[6]; y[2] = p + 4 * d[3] + d[7]; y[3] = q + 8 * d[3] + d[4] + d[8];""",
    ),
}  # by (stride, outputs)
