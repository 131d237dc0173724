"""The rewriting machine: immutable nodes and graphs, patterns, rules, a verifier and a printer. Knows no operator names."""

from redline.ir.graph import CONSTANT, INPUT, Attrs, Graph, Node, TensorType, Value, constant, input_node
from redline.ir.pattern import Any_, Const, Pat, match
from redline.ir.rewrite import Rewriter, Rule, rewrite, substitute

__all__ = [
    "CONSTANT", "INPUT", "Any_", "Attrs", "Const", "Graph", "Node", "Pat", "Rewriter", "Rule", "TensorType", "Value",
    "constant", "input_node", "match", "rewrite", "substitute",
]  # fmt: skip
