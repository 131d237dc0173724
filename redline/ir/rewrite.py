"""Rewriting: rules applied to every node, inputs first, until nothing changes; and replacing values by others outright.

A rule looks at one node whose inputs are already rewritten and answers with the values that replace its outputs, or
None. It may ask the rewriter how often a value is read. Replacements must have the types of what they replace.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from redline.base.errors import RedlineError
from redline.ir.graph import CONSTANT, INPUT, Graph, Node, Value

Replacement = Value | tuple[Value, ...] | None
MAX_ROUNDS = 64
MAX_MATCHED_NODES = 32


@dataclass(frozen=True)
class Rule:
    """``apply(node, rewriter)``; ``ops`` names the operators it looks at (empty: all)."""

    name: str
    ops: frozenset[str]
    apply: Callable[[Node, "Rewriter"], Replacement]


class Rewriter:
    """One walk over a graph. Counts of reads are those of the graph before the walk, carried over to the new values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.mapped: dict[Value, Value] = {}
        self.fired: dict[str, int] = {}
        self._uses: dict[Value, int] = {}
        self._settled: set[Node] = set()

    def uses(self, value: Value) -> int:
        """How many reads ``value`` has; 1 for a value made by a rule in this walk. For deciding on profit, never on truth."""
        return self._uses.get(value, 1)

    def walk(self, rules: Sequence[Rule]) -> Graph:
        for node in self.graph.nodes:
            fresh = node.with_inputs(tuple(v and self.mapped[v] for v in node.inputs))
            reads = [self.graph.uses.get(value, 0) for value in node.outputs()]
            self._uses.update(zip(fresh.outputs(), reads, strict=True))
            values = self._apply(rules, fresh)
            if values is not None:
                for value, count in zip(values, reads, strict=True):
                    self._uses[value] = self._uses.get(value, 0) + count
            self._settle(node, values or fresh.outputs())
        outputs = tuple((name, self.mapped[value]) for name, value in self.graph.outputs)
        return Graph(self.graph.name, self.graph.inputs, outputs)

    def _settle(self, old: Node, values: tuple[Value, ...]) -> None:
        self.mapped.update(zip(old.outputs(), values, strict=True))
        self._settled.update(value.node for value in values)

    def _apply(self, rules: Sequence[Rule], node: Node) -> tuple[Value, ...] | None:
        for rule in rules:
            if rule.ops and node.op not in rule.ops:
                continue
            result = rule.apply(node, self)
            if result is None:
                continue
            values = (result,) if isinstance(result, Value) else result
            self._check(rule, node, values)
            self.fired[rule.name] = self.fired.get(rule.name, 0) + 1
            return self._adopt(values, node)
        return None

    @staticmethod
    def _check(rule: Rule, node: Node, values: tuple[Value, ...]) -> None:
        types = tuple(value.type for value in values)
        if types != node.types:
            raise RedlineError(f"rule {rule.name}", f"{node!r} of {node.types} became {types}", "", "this is a bug in Redline")

    def _adopt(self, values: tuple[Value, ...], old: Node) -> tuple[Value, ...]:
        """Gives the nodes that a rule has just made the provenance of the nodes they stand for."""
        boundary: set[Node] = set()

        def is_fresh(node: Node) -> bool:
            known = node is old or node in self._settled or node.op in (INPUT, CONSTANT)
            if known:
                boundary.add(node)
            return not known

        fresh = _ordered((value.node for value in values), is_fresh)
        origin = _origin_between(old, boundary)
        renewed: dict[Node, Node] = {}
        for node in fresh:
            inputs = tuple(v and Value(renewed.get(v.node, v.node), v.index) for v in node.inputs)
            renewed[node] = replace(node, inputs=inputs, origin=node.origin or origin, name=node.name or old.name)
        self._settled.update(renewed.values())
        return tuple(Value(renewed.get(v.node, v.node), v.index) for v in values)


def _ordered(roots: Iterable[Node], enter: Callable[[Node], bool]) -> list[Node]:
    """The nodes reachable from ``roots`` through nodes that ``enter`` accepts, inputs of a node before the node."""
    done: dict[Node, None] = {}
    stack = [(node, False) for node in roots]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done[node] = None
        elif enter(node):
            stack.append((node, True))
            stack += [(v.node, False) for v in reversed(node.inputs) if v is not None]
    return list(done)


def _origin_between(old: Node, boundary: set[Node]) -> tuple[str, ...]:
    """The provenance of ``old`` and of everything above it down to ``boundary``; of ``old`` alone where that runs wide."""
    seen: dict[Node, None] = {}
    stack = [old]
    while stack:
        node = stack.pop()
        if node in seen or node in boundary or node.op in (INPUT, CONSTANT):
            continue
        if len(seen) == MAX_MATCHED_NODES:
            return old.origin
        seen[node] = None
        stack += [v.node for v in node.inputs if v is not None]
    return tuple(dict.fromkeys(name for node in reversed(seen) for name in node.origin)) or old.origin


def rewrite(graph: Graph, rules: Sequence[Rule]) -> tuple[Graph, dict[str, int]]:
    """Applies ``rules`` until none fires. Returns the graph and how often each rule fired."""
    total: dict[str, int] = {}
    for _ in range(MAX_ROUNDS):
        walker = Rewriter(graph)
        graph = walker.walk(rules)
        for name, count in walker.fired.items():
            total[name] = total.get(name, 0) + count
        if not walker.fired:
            return graph, total
    seen = f"rules {sorted(total)} did not come to rest in {MAX_ROUNDS} rounds"
    raise RedlineError("rewrite", seen, "", "this is a bug in Redline")


def substitute(graph: Graph, replacements: Mapping[Value, Value]) -> Graph:
    """``graph`` reading the replacement of each value instead of the value, in the replacements' own inputs too.

    A replacement may read any value of the graph but what depends on the value it replaces.
    """
    for before, after in replacements.items():
        if before.type != after.type:
            raise RedlineError("substitute", f"{before!r} of {before.type} became {after.type}", "", "this is a bug in Redline")

    def final(value: Value) -> Value:
        while value in replacements:
            value = replacements[value]
        return value

    renewed: dict[Node, Node] = {}
    stack = [(final(value).node, False) for _, value in graph.outputs]
    while stack:
        node, expanded = stack.pop()
        if node in renewed:
            continue
        inputs = [v and final(v) for v in node.inputs]
        if expanded:
            renewed[node] = node.with_inputs(tuple(v and Value(renewed[v.node], v.index) for v in inputs))
        else:
            stack.append((node, True))
            stack += [(v.node, False) for v in reversed(inputs) if v is not None]
    outputs = tuple((name, Value(renewed[final(v).node], final(v).index)) for name, v in graph.outputs)
    return Graph(graph.name, graph.inputs, outputs)
