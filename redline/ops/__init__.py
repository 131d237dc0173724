"""The graph vocabulary: what every operator means, one file a family. ``make`` builds nodes, ``run`` interprets graphs."""

from redline.ops.interpreter import run
from redline.ops.registry import Op, OpDef, define, evaluate, infer, known, lookup, make, make_node

__all__ = ["Op", "OpDef", "define", "evaluate", "infer", "known", "lookup", "make", "make_node", "run"]
