"""What lowering does not know is written in terms of what it does know, as the operators themselves say how."""

from collections.abc import Set

from redline.ir import CONSTANT, INPUT, Graph, Node, Rewriter, Rule, rewrite
from redline.ir.rewrite import Replacement
from redline.ops.registry import lookup, view

# Kernels of their own: these stay, although they could be written with simpler operators.
KERNELS = frozenset({"LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax"})
# Until transposes have passed them.
WHOLE = KERNELS | {"Resize"}
# Until the passes that are made for them have run.
UNTIL_RECOGNISED = frozenset({"InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth"})


def run(graph: Graph, whole: Set[str] = WHOLE) -> Graph:
    """Decomposes until only ``whole`` operators and those without a decomposition remain."""

    def decompose(node: Node, rewriter: Rewriter) -> Replacement:
        if node.op in (INPUT, CONSTANT) or node.op in whole:
            return None
        definition = lookup(node.op, node.name)
        result = definition.decompose(view(node)) if definition.decompose is not None else None
        return result[: len(node.types)] if isinstance(result, tuple) else result

    return rewrite(graph, [Rule("decompose", frozenset(), decompose)])[0]
