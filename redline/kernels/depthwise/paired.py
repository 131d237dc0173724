"""Depthwise convolutions of bfloat16, two vectors of channels at a time.

A load of neighbouring channels is a vector of pairs. The first of a pair is the word shifted left by 16, the second the word
without its lower half: float32 both, by instructions that do not compete with multiply-adds (widening one vector of channels
does). The sums of first and second channels are kept apart, the weights packed in the same order, and interleaved at the end.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redline.kernels import tile
from redline.kernels.depthwise.c import Border, DepthwiseKernel
from redline.kernels.problem import Packing
from redline.kernels.start import Start


@dataclass(frozen=True)
class PairedKernel(DepthwiseKernel):
    @property
    def half(self) -> int:
        """Lanes of a vector of sums."""
        return tile.lanes(self.held, self.target)

    @property
    def lanes(self) -> int:
        return 2 * self.half

    def packing(self) -> Packing:
        """[tap][channel], in every full block the first channels of its pairs before the second."""
        whole = self.g.channels - self.g.channels % self.lanes

        def apply(array: np.ndarray) -> np.ndarray:
            taps = array.reshape(array.shape[0], -1).T.astype(self.held.numpy)
            blocks = taps[:, :whole].reshape(len(taps), -1, self.half, 2).swapaxes(2, 3).reshape(len(taps), whole)
            return np.concatenate([blocks, taps[:, whole:]], axis=1).reshape(-1)

        return Packing(f"taps-pairs{self.lanes}-{self.held.name}", apply)

    def load_types(self, width: int) -> list[str]:
        if width != self.lanes:
            return super().load_types(width)
        num_bytes = self.half * self.held.size
        return [
            f"typedef {self.type} part __attribute__((vector_size({num_bytes}), aligned({self.held.size})));",
            f"typedef uint32_t pairs __attribute__((vector_size({num_bytes}), aligned({self.x_type.size})));",
        ]

    @cached_property
    def start(self) -> Start:
        """Zero: the sums of neighbouring channels lie apart."""
        return Start(None, self.problem.epilogue)

    def sums(self, border: Border, width: int) -> list[str]:
        return super().sums(border, width) if width != self.lanes else [f"part acc[2][{border.columns}] = {{0}};"]

    def row_of_taps(self, border: Border, width: int) -> list[str]:
        if width != self.lanes:
            return super().row_of_taps(border, width)
        found = self.reached(border)
        lines = []
        for tap in sorted({tap for uses in found.values() for _, tap in uses}):
            place = f"((const part *)(weights + {tap * self.g.channels}))"
            lines.append(f"const part t{tap}_0 = {place}[0], t{tap}_1 = {place}[1];")
        values = "const part first = (part)(both << 16), second = (part)(both & 0xffff0000u);"
        for pixel, uses in found.items():
            sums = [f"acc[0][{column}] += first * t{tap}_0; acc[1][{column}] += second * t{tap}_1;" for column, tap in uses]
            lines.append(f"{{ const pairs both = *(const pairs *)(row + {pixel}); {values} {' '.join(sums)} }}")
        return lines

    def spill(self, border: Border, width: int) -> list[str]:
        if width != self.lanes:
            return super().spill(border, width)
        lines = []
        for part in range(2):
            begin = part * self.half // 2
            order = ", ".join(f"{begin + i}, {begin + i + self.half}" for i in range(self.half // 2))
            value = f"__builtin_shufflevector(acc[0][i], acc[1][i], {order})"
            lines.append(f"for (int64_t i = 0; i < {border.columns}; ++i) *(part *)(sums[i] + {part * self.half}) = {value};")
        return lines
