"""The C text of a sort. A few of a row are kept in a sorted list as the row is read; many come from a merge sort."""

from redline.base.extents import high, is_open, minimum
from redline.base.shapes import size
from redline.kernels import cexpr
from redline.kernels.cexpr import c_type
from redline.kernels.ctext import block, loop, offset
from redline.kernels.parts import kernel, once, walk
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.sort.problem import Problem, Schedule

FEW = 96  # a longer list costs more to keep in order than a whole sort


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    axes = [(f"i{axis}", extent) for axis, extent in enumerate(problem.shape[:-1])]
    few = not is_open(problem.count) and problem.count <= FEW
    num_keys = problem.count if few else 2 * problem.length
    if size(problem.shape) == 0:
        part, num_keys = once([]), 0
    else:
        body = _few(problem) if few else _many(problem)
        part = walk(axes, [*_arrays(problem, num_keys), *body, *_store(problem)], schedule.max_chunks)
    num_chunks = minimum(part.num_steps, schedule.max_chunks)
    lines = [f"typedef {c_type(problem.key.dtype)} key;", *_before(problem)]
    text = "\n".join([*lines, *kernel(problem.reads, problem.writes, part, num_chunks)]) + "\n"
    return KernelCode("sort", cexpr.prelude(text) + text, num_chunks, 16 * high(num_keys))


def _before(problem: Problem) -> list[str]:
    """Whether key a comes before key b, which lay at an earlier position."""
    if not problem.key.dtype.is_float:
        test = "a > b" if problem.largest else "a < b"
    else:
        test = "(a > b) | ((a != a) & (b == b))" if problem.largest else "(a < b) | ((b != b) & (a == a))"
    return block("static inline _Bool before(key a, key b)", [f"return {test};"])


def _arrays(problem: Problem, num_keys: int) -> list[str]:
    return [f"int64_t *restrict at = scratch; key *restrict keys = (key *)(at + {num_keys});"]


def _each_key(problem: Problem, body: list[str]) -> list[str]:
    names = [f"i{axis}" for axis in range(len(problem.shape) - 1)] + ["i"]
    statements, value = cexpr.Renderer(problem.reads, names, extents=problem.extents).render(problem.key)
    return loop("i", 0, problem.length, [*statements, f"const key k = {value};", *body])


def _few(problem: Problem) -> list[str]:
    last = problem.count - 1
    insert = [
        f"int64_t j = count < {problem.count} ? count++ : {last};",
        "for (; j > 0 && before(k, keys[j - 1]); --j) keys[j] = keys[j - 1], at[j] = at[j - 1];",
        "keys[j] = k, at[j] = i;",
    ]
    test = f"if (count < {problem.count} || before(k, keys[{last}]))"
    return ["int64_t count = 0;", *_each_key(problem, block(test, insert))]


def _many(problem: Problem) -> list[str]:
    """Runs of 1, 2, 4, ... keys are merged from one half of the arrays into the other."""
    n = problem.length
    merge = [
        f"const int64_t middle = low + run < {n} ? low + run : {n}, high = middle + run < {n} ? middle + run : {n};",
        "int64_t a = low, b = middle;",
        *loop("to", "low", "high", [
            "const _Bool right = a == middle || (b < high && before(keys[from + b], keys[from + a]));",
            "const int64_t next = from + (right ? b++ : a++);",
            f"keys[{n} - from + to] = keys[next], at[{n} - from + to] = at[next];",
        ]),
    ]  # fmt: skip
    runs = block(f"for (int64_t low = 0; low < {n}; low += 2 * run)", merge)
    return [
        *_each_key(problem, ["keys[i] = k, at[i] = i;"]), "int64_t from = 0;",
        *block(f"for (int64_t run = 1; run < {n}; run *= 2)", [*runs, f"from = {n} - from;"]),
        "keys += from, at += from;",
    ]  # fmt: skip


def _store(problem: Problem) -> list[str]:
    names = [f"i{axis}" for axis in range(len(problem.shape) - 1)] + ["j"]
    return loop("j", 0, problem.count, [
        cexpr.store(problem.values, "out0", offset(names, problem.values.strides), "keys[j]"),
        cexpr.store(problem.indices, "out1", offset(names, problem.indices.strides), f"({problem.indices.dtype.c})at[j]"),
    ])  # fmt: skip
