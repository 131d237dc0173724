"""Measures what this machine can do at most: multiply-adds on registers alone, and reading one large array after another.

Where a type is multiplied by the matrix unit, its ceiling is that unit's.
"""

import ctypes
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from redline.base.ceilings import Ceilings
from redline.codegen.c.compile import compile_one
from redline.codegen.c.link import link
from redline.codegen.c.toolchain import Toolchain
from redline.kernels.problem import CpuTarget

STEPS = 2_000_000  # of some nanoseconds
READ_BYTES = 256 << 20  # by a thread in a try
CACHE_BYTES, MEMORY_BYTES = 4 << 20, 256 << 20  # of one thread: in the shared cache, and beyond any
TRIES = 6

TEXT = """#define _GNU_SOURCE
#include <stdint.h>
#define EXPORT __attribute__((visibility("default")))
typedef float vec __attribute__((vector_size(BYTES)));
typedef int32_t words __attribute__((vector_size(BYTES)));
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define START(i) vec s##i = {0};
#define MULTIPLY(i) STEP(s##i); __asm__ volatile("" : "+CLASS"(s##i), "+CLASS"(x));
#define ADD(i) + s##i
EXPORT int64_t rl_peak(void *out, int64_t steps) {
  vec x = {1.0f};
  EACH(START)
  for (int64_t i = 0; i < steps; ++i) { EACH(MULTIPLY) }
  *(vec *)out = x EACH(ADD);
  return steps * 12 * OPERATIONS;
}
EXPORT int64_t rl_read(void *data, int64_t num_bytes, int64_t times) {
  words a = {0}, b = {0}, c = {0}, d = {0};
  for (int64_t i = 0; i < times; ++i) {
    const words *at = data, *end = (const words *)((char *)data + num_bytes);
    for (; at < end; at += 4) { a |= at[0]; b |= at[1]; c |= at[2]; d |= at[3]; }
    __asm__ volatile("" : "+CLASS"(a) : : "memory");
  }
  a |= b | c | d;
  __asm__ volatile("" : : "CLASS"(a));
  return num_bytes * times;
}
"""
# The instruction's C, and its operations for each of the 4-byte lanes of a vector.
DOTS = {
    "float32": ("s += x * x", 2),
    "bfloat16": ("s = __builtin_ia32_dpbf16ps_512(s, (bf16)x, (bf16)x)", 4),
    "int8": ("s = (vec)__builtin_ia32_vpdpbusd512((words)s, (words)x, (words)x)", 8),
}
NEEDS = {"bfloat16": "bf16", "int8": "vnni"}
TILED = {"bfloat16": ("tdpbf16ps", 2), "int8": ("tdpbusd", 4)}  # the instruction, and the groups' products
TILE_TEXT = """
#include <sys/syscall.h>
#include <unistd.h>
#define TILED(b, a, c) INSTRUCTION " %tmm" #b ", %tmm" #a ", %tmm" #c "\\n"
EXPORT int64_t rl_peak_tiled(void *out, int64_t steps) {
  syscall(SYS_arch_prctl, 0x1023, 18); /* as rl_permit of executor.c */
  static const uint8_t shapes[64] __attribute__((aligned(64))) = {
    1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, 16, 16, 16, 16, 16, 16, 16 };
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
  for (int64_t i = 0; i < steps; ++i) __asm__ volatile(TILED(6, 4, 0) TILED(7, 4, 1) TILED(6, 5, 2) TILED(7, 5, 3));
  __asm__ volatile("tilerelease");
  return steps * 4 * 16 * 16 * 16 * 2 * GROUP;
}
"""


def measure(target: CpuTarget, toolchain: Toolchain) -> Ceilings:
    """The ceilings for ``target.num_threads`` threads, the best of several tries each; takes a second or two."""
    threads = target.num_threads
    kinds = [kind for kind in DOTS if kind not in NEEDS or NEEDS[kind] in target.features]
    with ThreadPoolExecutor(threads) as pool:
        operations = {kind: _peak(kind, target, toolchain, pool) for kind in kinds}
        library = _compiled("float32", target, toolchain)
        cache, memory = (_bandwidth(library, size, threads, pool) for size in (CACHE_BYTES, MEMORY_BYTES))
    return Ceilings(threads, operations, memory, cache)


def peak(kind: str, target: CpuTarget, toolchain: Toolchain) -> float:
    """Operations a second of ``kind`` by ``target.num_threads`` threads."""
    with ThreadPoolExecutor(target.num_threads) as pool:
        return _peak(kind, target, toolchain, pool)


def _peak(kind: str, target: CpuTarget, toolchain: Toolchain, pool: ThreadPoolExecutor) -> float:
    library = _compiled(kind, target, toolchain)
    run, steps = (library.rl_peak_tiled, STEPS // 8) if _is_tiled(kind, target) else (library.rl_peak, STEPS)
    outs = [_aligned(64) for _ in range(target.num_threads)]
    return _rate([lambda out=out: run(out.ctypes.data, steps) for out in outs], pool)  # type: ignore[misc]


def _is_tiled(kind: str, target: CpuTarget) -> bool:
    return kind in TILED and "amx" in target.features


def _bandwidth(library: ctypes.CDLL, num_bytes: int, threads: int, pool: ThreadPoolExecutor) -> float:
    times = READ_BYTES // num_bytes
    arrays = [_aligned(num_bytes) for _ in range(threads)]
    return _rate([lambda data=data: library.rl_read(data.ctypes.data, num_bytes, times) for data in arrays], pool)  # type: ignore[misc]


def _rate(works: list[Callable[[], int]], pool: ThreadPoolExecutor) -> float:
    """What the works do a second, all at once; each says how much it did."""
    best = 0.0
    for _ in range(TRIES):
        began = time.perf_counter()
        done = sum(pool.map(lambda work: work(), works))
        best = max(best, done / (time.perf_counter() - began))
    return best


def _compiled(kind: str, target: CpuTarget, toolchain: Toolchain) -> ctypes.CDLL:
    step, per_lane = DOTS[kind]
    head = [
        f"#define BYTES {target.vector_bytes}",
        f"#define STEP(s) {step}",
        f"#define OPERATIONS {per_lane * target.vector_bytes // 4}",
        "typedef __bf16 bf16 __attribute__((vector_size(BYTES)));" if kind == "bfloat16" else "",
    ]
    body = [TEXT.replace("CLASS", "v" if target.vector_bytes == 64 else "x")]
    if _is_tiled(kind, target):
        instruction, group = TILED[kind]
        head += [f'#define INSTRUCTION "{instruction}"', f"#define GROUP {group}"]
        body += [TILE_TEXT]
    text = "\n".join([*head, *body])
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(link([compile_one(text, target, toolchain)], toolchain))
        file.flush()
        library = ctypes.CDLL(file.name, mode=os.RTLD_LOCAL)
    for peak in [library.rl_peak, *([library.rl_peak_tiled] if _is_tiled(kind, target) else [])]:
        peak.argtypes, peak.restype = (ctypes.c_void_p, ctypes.c_int64), ctypes.c_int64
    library.rl_read.argtypes, library.rl_read.restype = (ctypes.c_void_p, *[ctypes.c_int64] * 2), ctypes.c_int64
    return library


def _aligned(num_bytes: int) -> np.ndarray:
    """Memory that has been written to and begins at a multiple of 64."""
    raw = np.ones(num_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + num_bytes]
