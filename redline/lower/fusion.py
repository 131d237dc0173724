"""Which nodes share a kernel.

Three kinds of operators: *anchors* have a kernel family of their own (matmul, convolution, softmax, ...); *expressions*
say what one element is and can be computed wherever it is needed; everything else is not lowered. An anchor takes the
chain of elementwise operators behind it into its epilogue; an expression either ends in memory or is computed inside its
readers, as ``Policy`` decides.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from redline.base.shapes import size, static
from redline.ir import CONSTANT, INPUT, Graph, Node, Value
from redline.lower import elementwise, indexing
from redline.ops.attention_form import MASK

MAX_INLINE_NODES = 24
MAX_BETWEEN = 16  # elementwise nodes between a value and where its readers come together
INLINE_READERS = frozenset(
    {"AveragePool", "TruePositions", "Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "ArgMax", "ArgMin"}
)
NO_EPILOGUE = frozenset(
    {
        "Attention",
        "RaggedAttention",
        "TopK",
        "CumSum",
        "CumProd",
        "ScatterElements",
        "ScatterND",
        "TensorScatter",
        "NonMaxSuppression",
        "TruePositions",
    }
)  # their kernels write the result as it is
ATTENTION = frozenset({"Attention", "RaggedAttention"})
PRODUCTS = frozenset({"MatMul", "Conv", "ConvTranspose"}) | ATTENTION
SMALL_ELEMENTS = 1 << 12
MOVES = frozenset({"Identity", "Reshape", "Transpose", "Slice", "Expand"})  # views, where strides allow it
CHEAP = frozenset({"Cast", "Identity", "Reshape", "Transpose", "Slice", "Expand", "Neg", "Not"})


def is_elementwise(node: Node) -> bool:
    return elementwise.supported(node.op) and len(node.types) == 1


def is_expression(node: Node) -> bool:
    return (elementwise.supported(node.op) or indexing.supported(node.op)) and len(node.types) == 1


def reads_inline(node: Node) -> bool:
    """Whether the operator computes its data input where it reads it (a prologue) rather than from memory."""
    return node.op in INLINE_READERS or node.op.startswith("Reduce") or is_expression(node)


@dataclass(frozen=True)
class Chain:
    """An anchor and the elementwise nodes in its epilogue, in order; ``reason`` says why it ends where it does."""

    anchor: Node
    epilogue: tuple[Node, ...]
    reason: str

    @property
    def last(self) -> Node:
        return self.epilogue[-1] if self.epilogue else self.anchor


class Consumers:
    """Who reads each value; graph outputs are listed apart."""

    def __init__(self, graph: Graph) -> None:
        self.readers = graph.readers
        self._places = {node: place for place, node in enumerate(graph.operations)}
        self.outputs = frozenset(value for _, value in graph.outputs)

    def place(self, node: Node) -> int:
        """Where ``node`` stands in the order of execution."""
        return self._places[node]

    def of(self, value: Value) -> Sequence[Node]:
        return self.readers.get(value, ())


def chain_of(anchor: Node, consumers: Consumers, taken: Mapping[Node, Chain]) -> Chain:
    """Follows the readers while they are elementwise on the same shape, and where there are several, come together again."""
    if anchor.op in NO_EPILOGUE:
        return Chain(anchor, (), f"{anchor.op} has no epilogue")
    if len(anchor.types) > 1 and any(consumers.of(v) or v in consumers.outputs for v in anchor.outputs()[1:]):
        return Chain(anchor, (), "has several results")
    epilogue: list[Node] = []
    while True:
        reason, more = _readers_up_to_one(epilogue[-1] if epilogue else anchor, consumers, taken)
        if reason:
            return Chain(anchor, tuple(epilogue), reason)
        epilogue += more


def _readers_up_to_one(node: Node, consumers: Consumers, taken: Mapping[Node, Chain]) -> tuple[str, list[Node]]:
    """The nodes behind ``node``, in order, up to the first that everything goes through; or why there is none."""
    found: list[Node] = []
    waiting: dict[Node, None] = {}  # what reads the value or something found, and is not found itself
    last = node
    while len(found) < MAX_BETWEEN:
        waiting |= dict.fromkeys(consumers.of(last.out))
        if last.out in consumers.outputs or not waiting:
            return "is an output of the graph", []
        last = min(waiting, key=consumers.place)
        if last in taken:
            return f"{last.op} belongs to another kernel", []
        if not is_elementwise(last) or last.types[0].shape != node.types[0].shape:
            if len(waiting) == 1 and not found:
                return f"{last.op} is not elementwise on the same shape", []
            break
        del waiting[last]
        found.append(last)
        if not waiting:
            return "", found
    return f"is read by {len(consumers.of(node.out))} nodes", []


def trimmed(chain: Chain, consumers: Consumers) -> Chain:
    """Without the last nodes that only widen bytes: what reads the result computes them again from fewer bytes."""
    readers = consumers.of(chain.last.out)
    if chain.last.out in consumers.outputs or not readers or not all(map(reads_inline, readers)):
        return chain
    nodes = [chain.anchor, *chain.epilogue]
    count = len(nodes)
    while count > 1 and _is_unary(nodes[count - 1]) and nodes[count - 1].out.dtype.size > 1:
        count -= 1
        if nodes[count - 1].out.dtype.size == 1:
            return Chain(chain.anchor, tuple(nodes[1:count]), f"{nodes[count].op} widens bytes")
    return chain


def _is_unary(node: Node) -> bool:
    """Whether only one input is more than a constant."""
    return sum(v is not None and not is_leaf(v.node) for v in node.inputs) == 1


def chains(graph: Graph, consumers: Consumers, is_anchor: Mapping[str, object]) -> dict[Node, Chain]:
    """The chain that each anchor and each absorbed node belongs to."""
    member: dict[Node, Chain] = {}
    for node in graph.operations:
        if node.op in is_anchor:
            chain = trimmed(chain_of(node, consumers, member), consumers)
            member.update(dict.fromkeys((node, *chain.epilogue), chain))
    return member


class Policy:
    """Decides for every expression whether it is computed in its readers or written to memory, and why."""

    def __init__(self, consumers: Consumers) -> None:
        self.consumers = consumers
        self.weight: dict[Node, int] = {}  # nodes that one element of an inlined value costs

    def reason_to_store(self, node: Node) -> str | None:
        """Why the value of ``node`` goes to memory; None when its readers compute it."""
        value, readers = node.out, self.consumers.of(node.out)
        inlined = sum(self.weight.get(v.node, 0) for v in node.inputs if v is not None)
        reason = self._reason(node, readers, inlined)
        if value in self.consumers.outputs:
            reason = "is an output of the graph"
        self.weight[node] = 0 if reason else 1 + inlined
        return reason

    def _reason(self, node: Node, readers: Sequence[Node], inlined: int) -> str | None:
        blocked = [reader.op for reader in readers if not reads_inline(reader)]
        if blocked:
            return f"{blocked[0]} reads memory"
        cheap = node.op in CHEAP and inlined == 0
        if len(readers) > 1 and not cheap:
            return f"is read by {len(readers)} nodes"
        if inlined >= MAX_INLINE_NODES:
            return "the expression is long enough"
        grows = any(_elements(reader) > 2 * _elements(node) for reader in readers if is_expression(reader))
        return "its reader repeats it" if grows and not cheap else None


def _elements(node: Node) -> int:
    return size(static(node.types[0].shape, node.name))


def may_be_narrow(value: Value, consumers: Consumers, large: Collection[Node] | None = None) -> bool:
    """Whether a float32 value may be stored in 16 bits: not where its kernel computes in the type of its result, nor
    masks, whose -3.4e38 would become infinite, nor what is small and multiplied by nothing.

    ``large``: the nodes whose results count as large, where sizes are not to be asked for. There masks that are moved first are
    masks too: a row of them may begin anywhere, and what is narrower than four bytes cannot be copied ahead from there."""
    readers = consumers.of(value)
    if _is_mask(value, consumers, large is not None) or value.op in NO_EPILOGUE - ATTENTION:
        return False
    is_multiplied = any(reader.op in PRODUCTS for reader in readers)
    return is_multiplied or (is_large(value.node) if large is None else value.node in large)


def _is_mask(value: Value, consumers: Consumers, moved: bool) -> bool:
    """Whether attention reads ``value`` as a mask; ``moved``: or a moved form of it."""
    readers = consumers.of(value)
    if any(reader.op in ATTENTION and value in reader.inputs[MASK:] for reader in readers):
        return True
    return moved and any(reader.op in MOVES and _is_mask(reader.out, consumers, moved) for reader in readers)


def is_large(node: Node) -> bool:
    return size(static(node.types[0].shape, node.name)) > SMALL_ELEMENTS


def is_only_attended(value: Value, consumers: Consumers) -> bool:
    """Whether ``value`` is read as query, key or value of attention and by nothing else, directly or moved."""
    readers = consumers.of(value)
    if value in consumers.outputs or not readers:
        return False
    return all(
        (reader.op in ATTENTION and value not in reader.inputs[MASK:])
        or (reader.op in MOVES and value == reader.inputs[0] and is_only_attended(reader.out, consumers))
        for reader in readers
    )


def is_only_multiplied(value: Value, consumers: Consumers) -> bool:
    """Whether products read a float32 value, at once or moved, and attention does not: the rule for what may be stored in 16
    bits where shapes are open. It does not ask for sizes, and attention of open lengths reads float32 only."""
    found: set[str] = set()
    stack, seen = [value], {value}
    while stack:
        for reader in consumers.of(stack.pop()):
            found |= {reader.op} & PRODUCTS
            if reader.op in MOVES and reader.out not in seen:
                seen.add(reader.out)
                stack.append(reader.out)
    return bool(found) and not found & ATTENTION


def is_leaf(node: Node) -> bool:
    return node.op in (INPUT, CONSTANT)
