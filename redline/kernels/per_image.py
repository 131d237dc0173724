"""Kernels of images whose number alone is open: the kernel made for one image, called for each of them.

Everything but the batch is constant then, so nothing is lost in a chunk. ``images(problem)`` gives the closed problem of one
image, ``wrapped`` the kernel for all of them from the one for that.
"""

from dataclasses import fields, replace
from typing import Any, TypeVar

from redline.base.errors import BuildError
from redline.base.extents import Extent, extents_in, is_open
from redline.kernels.ctext import block
from redline.kernels.expr import Expr, Index, Load, integer, transform, walk
from redline.kernels.problem import KernelCode, Operand

P = TypeVar("P")


def applies(problem: Any) -> bool:
    """Whether the first axis of ``problem.out``, and nothing else, is open."""
    batch = problem.out.shape[0]
    found = set(extents_in(tuple((o.shape, o.strides) for o in (*problem.reads, *problem.writes))))
    return is_open(batch) and found == {batch}


def images(problem: P) -> P:
    """The problem of one image."""
    batch = problem.out.shape[0]  # type: ignore[attr-defined]
    changed: dict[str, Any] = {}
    for field in fields(problem):  # type: ignore[arg-type]
        value = getattr(problem, field.name)
        if isinstance(value, Operand):
            changed[field.name] = _single(value, batch)
        elif isinstance(value, tuple) and value and isinstance(value[0], Operand):
            changed[field.name] = tuple(_single(operand, batch) for operand in value)
        elif isinstance(value, Expr):
            changed[field.name] = _of_one(value, problem, batch)
    return replace(problem, **changed)  # type: ignore[type-var]


def _single(operand: Operand, batch: Extent) -> Operand:
    return replace(operand, shape=(1, *operand.shape[1:])) if operand.shape[:1] == (batch,) else operand


def _of_one(epilogue: Expr, problem: Any, batch: Extent) -> Expr:
    """``epilogue`` at image 0; raises BuildError where it uses the number of the image for more than addresses."""

    def first(node: Expr) -> Expr | None:
        if not isinstance(node, Load) or problem.reads[node.operand].shape[:1] != (batch,):
            return None
        if not isinstance(node.index[0], Index) or node.index[0].axis != 0:
            raise _refused()
        return Load(node.dtype, node.operand, (integer(0), *node.index[1:]))

    result = transform(epilogue, first)
    if any(isinstance(node, Index) and node.axis == 0 for node in walk(result)):
        raise _refused()
    return result


def _refused() -> BuildError:
    seen = "an operator behind a convolution or pool depends on the number of the image"
    return BuildError("--shapes", seen, "", "fix the batch")


def wrapped(code: KernelCode, problem: Any) -> KernelCode:
    """The kernel for all images from ``code``, the one for ``images(problem)``."""
    batch, operands = problem.out.shape[0], (*problem.reads, *problem.writes)
    places = []
    for i, operand in enumerate(operands):
        step = operand.strides[0] * operand.dtype.size if operand.shape[:1] == (batch,) else 0
        places.append(f"(char *)args[{i}] + n * {step}" if step else f"args[{i}]")
    body = [
        f"const int64_t n = chunk / {code.num_chunks};",
        f"void *const image[] = {{{', '.join(places)}}};",
        f"one_image(image, scratch, chunk - n * {code.num_chunks});",
    ]
    text = code.text.replace("void KERNEL(", "static void one_image(")
    lines = block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)
    return replace(code, text="\n".join([text.rstrip(), *lines, ""]), num_chunks=batch * code.num_chunks)
