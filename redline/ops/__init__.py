"""The graph vocabulary: what every operator means, one file a family. ``make`` builds nodes, ``run`` interprets graphs."""

from redline.ops import (  # noqa: F401  (each registers its operators)
    activations,
    binary,
    convert,
    einsum,
    gather,
    generate,
    linear,
    logic,
    move,
    order,
    reduce,
    reshape,
    scatter,
    select,
    slicing,
    unary,
)
from redline.ops.interpreter import run
from redline.ops.registry import Op, OpDef, define, evaluate, infer, known, lookup, make, make_node

ELEMENTWISE = frozenset(name for name, op in known().items() if op.elementwise)

__all__ = ["ELEMENTWISE", "Op", "OpDef", "define", "evaluate", "infer", "known", "lookup", "make", "make_node", "run"]
