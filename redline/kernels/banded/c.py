"""A convolution and what reads its result, a band at a time, in C: the kernels of all of them, and KERNEL, which calls them.

Scratch holds the rows of a band and, above them, those of the band before that its readers need once more; then come the
rows of readers that others read, and what the kernels themselves need. The maker believes that a whole image were there: it
is handed the address at which it would begin. A reader is a kernel for one band, and is handed the addresses at which that
begins.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

from redline.kernels import cexpr
from redline.kernels.banded.cut import ROWS, Cut, window
from redline.kernels.banded.problem import MAKER, READERS, Problem, Reader
from redline.kernels.banded.schedule import Schedule, above, alone, cuts, held, held_rows, in_bands, is_legal
from redline.kernels.conv.direct import DirectKernel
from redline.kernels.ctext import block, loop, share
from redline.kernels.problem import CpuTarget, KernelCode, Operand, Packing

LINE = 64


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``; ``schedule`` must be legal for it."""
    assert is_legal(problem, schedule, target), f"{schedule} does not fit {problem}"
    kernel = BandedKernel(problem, schedule, target)
    text = kernel.text()
    return KernelCode("banded", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, kernel.packings)


@dataclass(frozen=True)
class BandedKernel:
    problem: Problem
    schedule: Schedule
    target: CpuTarget

    @cached_property
    def held(self) -> Operand:
        return held(self.problem)

    @property
    def row(self) -> int:
        """Elements of a row that is held."""
        return self.held.strides[ROWS]

    @cached_property
    def left(self) -> int:
        """Columns of padding in front of each row."""
        return max(seen.left for seen in self.problem.windows)

    @cached_property
    def above(self) -> int:
        return above(self.problem, self.schedule.maker.height)

    @property
    def held_rows(self) -> int:
        return held_rows(self.problem, self.schedule.rows, self.schedule.maker.height)

    @cached_property
    def maker(self) -> DirectKernel:
        one = replace(self.held, strides=(0, *self.held.strides[1:]))  # all images in one place
        return DirectKernel(replace(self.problem.maker, out=one), in_bands(self.problem, self.schedule), self.target)

    @cached_property
    def cuts(self) -> list[Cut]:
        return cuts(self.problem, self.schedule.rows)

    @cached_property
    def readers(self) -> list[KernelCode]:
        return [
            READERS[reader.family].render(small.problem, way, alone(self.target))
            for reader, small, way in zip(self.problem.readers, self.cuts, self.schedule.readers, strict=True)
        ]

    @property
    def packings(self) -> dict[int, Packing]:
        found = {1: self.maker.packing()}
        for number, code in enumerate(self.readers):
            found |= {self._argument(number, i): packing for i, packing in code.packings.items()}
        return found

    def _argument(self, reader: int, i: int) -> int:
        """The number among all reads of operand ``i`` of a reader, which is not what is held."""
        before = sum(len(each.others) for each in self.problem.readers[:reader])
        return len(self.problem.maker.reads) + before + i - (i > self.problem.readers[reader].place)

    def _result(self, reader: int) -> str:
        """C: where a reader's result is written, the rows of a band at a time if it is held."""
        if reader in self.problem.inner:
            return f"inner{reader}"
        before = sum(1 for number in range(reader) if number not in self.problem.inner)
        return f"args[{len(self.problem.reads) + before}]"

    @property
    def num_chunks(self) -> int:
        return self.problem.maker.out.shape[0] * self.schedule.parts

    @property
    def held_bytes(self) -> int:
        """Of the maker's rows."""
        return _lines(self.held_rows * self.row * self.held.dtype.size)

    def _inner_bytes(self, reader: int) -> int:
        """Of a reader's rows that are held."""
        out = self.cuts[reader].problem.writes[0]
        return _lines(out.num_bytes)

    @cached_property
    def starts(self) -> dict[int, int]:
        """Where in scratch what each reader's result is held begins, and after all of them, at -1, what the kernels need."""
        found, end = {}, self.held_bytes
        for reader in sorted(self.problem.inner):
            found[reader], end = end, end + self._inner_bytes(reader)
        return {**found, -1: end}

    @property
    def scratch_bytes(self) -> int:
        return self.starts[-1] + max(self.maker.scratch_bytes, *(code.scratch_bytes for code in self.readers))

    def text(self) -> str:
        lines = self.maker.functions()
        head = "static __attribute__((noinline)) void make(void *const *args, void *scratch, int64_t n, int64_t t0, int64_t t1)"
        whole = f"const int64_t d = 0, group = 0, p0 = 0, p1 = {self.maker.panels.count};"
        lines += block(head, [whole, *self.maker.band()])
        for number, code in enumerate(self.readers):
            lines += _renamed(cexpr.without_prelude(code.text), number).splitlines()
        return "\n".join([*lines, *self.main(), ""])

    def main(self) -> list[str]:
        s, kind = self.schedule, self.held.dtype.c
        own = len(self.problem.maker.reads)
        made = ", ".join(f"args[{i}]" for i in range(own))
        band = [
            f"{kind} *const whole = held + ({self.above} - b * {s.rows}) * {self.row} + {self.left * self.held.strides[2]};",
            f"void *const making[] = {{{made}, whole}};",
            *self._rows_above(),
            f"make(making, rest, n, b * {s.rows // s.maker.height}, (b + 1) * {s.rows // s.maker.height});",
        ]
        for number in range(len(self.readers)):
            band += self._read(number)
        body = [
            f"const int64_t part = chunk % {s.parts}, n = chunk / {s.parts};",
            *share("b", "part", self.problem.maker.out.shape[ROWS] // s.rows, s.parts),
            f"{kind} *const held = scratch;",
            *(f"void *const inner{r} = (char *)scratch + {start};" for r, start in self.starts.items() if r >= 0),
            f"void *const rest = (char *)scratch + {self.starts[-1]};",
            *self._padding(),
            *loop("b", "b0", "b1", band),
        ]
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)

    @property
    def _fill(self) -> str:
        """C: what stands outside the image."""
        fill = next((seen.fill for seen in self.problem.windows if seen.fill is not None), 0)
        return cexpr.to_storage(self.held.dtype, cexpr.literal(fill, self.held.dtype))

    def _padding(self) -> list[str]:
        """C: the columns beside the image, once for a part."""
        _, _, width, channels = self.held.shape
        begin, end = self.left * channels, (self.left + width) * channels
        fills = [
            f"for (int64_t i = {low}; i < {high}; ++i) held[r * {self.row} + i] = {self._fill};"
            for low, high in ((0, begin), (end, self.row))
            if high > low
        ]
        return loop("r", 0, self.held_rows, fills) if fills else []

    def _rows_above(self) -> list[str]:
        """C: the rows above band b that are needed: outside the image, made for the first band of a part, else moved."""
        if not self.above:
            return []
        rows, count, height = self.schedule.rows, self.above * self.row, self.schedule.maker.height
        tiles = rows // height
        outside = f"for (int64_t i = 0; i < {count}; ++i) held[i] = {self._fill};"
        moved = f"for (int64_t i = 0; i < {count}; ++i) held[i] = held[{rows * self.row} + i];"
        return [
            *block("if (b == 0)", [outside]),
            *block("else if (b == b0)", [f"make(making, rest, n, b * {tiles} - {self.above // height}, b * {tiles});"]),
            *block("else", [moved]),
        ]

    def _read(self, number: int) -> list[str]:
        """C: the band of one reader."""
        reader, small, code = self.problem.readers[number], self.cuts[number], self.readers[number]
        reads = [
            self._held_for(reader) if i == reader.place else self._moved(f"args[{self._argument(number, i)}]", small, i)
            for i in range(len(reader.problem.reads))
        ]
        inside, result = number in self.problem.inner, self._result(number)
        written = result if inside else self._moved(result, small, len(reads))
        call = f"kernel{number}(reading, rest, c);"
        inner = [f"void *const reading[] = {{{', '.join([*reads, written])}}};", *loop("c", 0, code.num_chunks, [call])]
        return block("", inner)

    def _held_for(self, reader: Reader) -> str:
        """C: where what is held for ``reader`` begins in band b."""
        if reader.of != MAKER:
            kind = reader.problem.reads[reader.place].dtype.c
            return f"({kind} *)inner{reader.of} + {reader.offset}" if reader.offset else f"inner{reader.of}"
        seen = window(reader.problem)
        assert seen is not None, "known since the problem was made"
        place = (self.above - seen.before) * self.row + (self.left - seen.left) * self.held.strides[2] + reader.offset
        return f"held + {place}" if place else "held"

    def _moved(self, address: str, small: Cut, i: int) -> str:
        """C: where operand ``i`` of a reader begins in band b of image n."""
        operand, rows = (small.problem.reads + small.problem.writes)[i], small.rows
        moves = [f"b * {rows * small.steps[i]}"] if small.steps[i] else []
        moves += [f"n * {small.images[i]}"] if small.images[i] and self.held.shape[0] > 1 else []
        return f"({operand.dtype.c} *){address} + {' + '.join(moves)}" if moves else address


def _lines(num_bytes: int) -> int:
    """Whole cache lines, and one beyond, for tiles that read groups of channels."""
    return (-(-num_bytes // LINE) + 1) * LINE


def _renamed(text: str, number: int) -> str:
    """A kernel's text as one of several: its functions and types under names of their own."""
    text = text.replace("void KERNEL(", f"static __attribute__((noinline)) void kernel{number}(")
    names = {*_FUNCTION.findall(text), *_TYPE.findall(text)} - {f"kernel{number}"}
    return re.sub(rf"\b({'|'.join(sorted(names))})\b", rf"\1_{number}", text) if names else text


_FUNCTION = re.compile(r"^static .*?\b(\w+)\((?!\()", re.M)  # not the attribute in front of it
_TYPE = re.compile(r"^typedef [\w ]+ (\w+)(?= __attribute__|;)", re.M)
