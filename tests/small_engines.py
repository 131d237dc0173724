"""A small engine made by hand, for the tests of the file format and the runtime: y = (x + 1 + 2 x) * w, z = -x, by chunks."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects
from redline.codegen.c.link import link_engine
from redline.codegen.c.plan import Plan, Ref, Space, Step
from redline.engine import (
    IO,
    Access,
    Header,
    KernelRecord,
    Stamp,
    TensorPlan,
    blob_of,
    encode_steps,
    joined,
    write_engine,
)  # fmt: skip

CHUNKS, LENGTH = 6, 33
SIZE = CHUNKS * LENGTH
SHAPE = (CHUNKS, LENGTH)
ARENA = 2 * 832  # two tensors of SIZE floats, each rounded up to 64 bytes


@dataclass(frozen=True)
class Small:
    header: Header
    code: bytes
    weights: np.ndarray

    def write(self, path: Path) -> Path:
        write_engine(path, self.header, {"code": [self.code], "weights": [self.weights.data]})
        return path

    def expected(self, x: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {"y": (x + 1 + 2 * x) * self.weights[16:].reshape(SHAPE), "z": -x}


def kernel(symbol: str, expression: str, num_reads: int) -> str:
    """A kernel of SIZE floats in CHUNKS chunks: ``expression`` of a[i], b[i], c[i]. Checks that its scratch is its own."""
    reads = "".join(f"    const float *{'abc'[i]} = args[{i}];\n" for i in range(num_reads))
    return f"""#include <stdint.h>
void {symbol}(void *const *args, void *scratch, int64_t chunk) {{
{reads}    float *out = args[{num_reads}];
    *(volatile int64_t *)scratch = chunk;
    for (int64_t i = chunk * {LENGTH}; i < (chunk + 1) * {LENGTH}; i++) out[i] = {expression};
    if (*(volatile int64_t *)scratch != chunk) __builtin_trap();
}}
"""


@functools.cache
def small_engine(target_name: str = "cpu") -> Small:
    target, compiler = isa.target(target_name), toolchain.find()
    texts = [kernel("plus", "a[i] + 1", 1), kernel("twice", "2 * a[i]", 1), kernel("scale", "(a[i] + b[i]) * c[i]", 3)]
    texts.append(kernel("negative", "-a[i]", 1))
    x, t, u = Ref(Space.INPUT), Ref(Space.ARENA), Ref(Space.ARENA, 832)
    y, z, w = Ref(Space.OUTPUT), Ref(Space.OUTPUT, 0, 1), Ref(Space.WEIGHTS, 64)
    steps = (
        Step("plus", CHUNKS, (x, t)), Step("twice", CHUNKS, (x, u), barrier=False),
        Step("scale", CHUNKS, (t, u, w, y)), Step("negative", CHUNKS, (x, z), barrier=False),
    )  # fmt: skip
    code = link_engine(compile_objects(texts, target, compiler), [Plan(steps, ARENA, 64)], target, compiler)
    weights = np.zeros(16 + SIZE, np.float32)
    weights[16:] = np.arange(SIZE) % 7
    stamp = Stamp(isa.text(target), tuple(sorted(isa.needs(target))), "test", compiler.identity)
    tensors = (
        TensorPlan("t", "arena", 0, SIZE * 4, 0, 2), TensorPlan("u", "arena", 832, SIZE * 4, 1, 2),
        TensorPlan("w", "weights", 64, SIZE * 4, 0, 3),
    )  # fmt: skip
    records = (
        record("plus", [access("input", 0)], access("arena", 0)),
        record("twice", [access("input", 0)], access("arena", 1), False),
        record("scale", [access("arena", 0), access("arena", 1), access("weights", 2)], access("output", 0)),
        record("negative", [access("input", 0)], access("output", 1), False),
    )
    outputs = (IO("y", "float32", SHAPE), IO("z", "float32", SHAPE))
    header = Header(stamp, (IO("x", "float32", SHAPE),), outputs, tensors, records, ARENA, 64, 2, {"model": "small"})
    return Small(header, code, weights)


def two_plans(path: Path) -> Path:
    """The small engine with a second plan, the same by another name, whose code does not exist."""
    small = small_engine()
    other = replace(small.header, name="other")
    blobs = {"code": [small.code], blob_of(1): [encode_steps(other)], "weights": [small.weights.data]}
    write_engine(path, joined(small.header, other), blobs)
    return path


def access(space: str, tensor: int) -> Access:
    return Access(space, tensor, 0, "float32", SHAPE, (LENGTH, 1))


def record(symbol: str, reads: list[Access], write: Access, barrier: bool = True) -> KernelRecord:
    return KernelRecord(
        symbol, "pointwise", (symbol,), CHUNKS, barrier, tuple(reads), (write,), SIZE, 8 * SIZE, "default", 1e-6, "test"
    )  # fmt: skip
