"""The rewriting machine on made-up operators: it knows no real ones."""

import time

import numpy as np
import pytest

from redline.base import dtypes
from redline.base.errors import RedlineError
from redline.ir import Graph, Node, Rule, TensorType, Value, constant, input_node, rewrite, substitute
from redline.ir.rewrite import MAX_ROUNDS

TYPE = TensorType(dtypes.float32, (2,))
X = input_node("x", TYPE)


def op(name, *inputs, outputs=1, origin=()):
    return Node(name, inputs, (TYPE,) * outputs, name=f"the {name}", origin=origin)


def graph(*values):
    return Graph("g", (X,), tuple((f"y{i}", value) for i, value in enumerate(values)))


def rule(*ops):
    return lambda function: Rule(function.__name__, frozenset(ops), function)


@rule("Twice")
def halve(node, rewriter):
    """Twice(x) -> Once(Once(x))"""
    return op("Once", op("Once", node.inputs[0]).out).out


@rule("Skip")
def skip(node, rewriter):
    """Skip(x) -> x"""
    return node.inputs[0]


def test_a_rule_replaces_and_readers_follow():
    new, fired = rewrite(graph(op("Read", op("Twice", X.out).out).out), [halve])
    assert [node.op for node in new.nodes] == ["Input", "Once", "Once", "Read"]
    assert fired == {"halve": 1}


def test_a_graph_without_matches_is_shared_whole():
    old = graph(op("Read", op("Other", X.out).out).out)
    new, fired = rewrite(old, [halve, skip])
    assert new.nodes == old.nodes and fired == {}


def test_a_chain_collapses_in_one_walk():
    value = X.out
    for _ in range(MAX_ROUNDS + 10):
        value = op("Skip", value).out
    new, fired = rewrite(graph(value), [skip])
    assert new.outputs == (("y0", X.out),)
    assert fired == {"skip": MAX_ROUNDS + 10}


def test_multiple_outputs_are_replaced_one_by_one():
    @rule("Pair")
    def swap(node, rewriter):
        return tuple(reversed(op("Riap", *node.inputs, outputs=2).outputs()))

    pair = op("Pair", X.out, outputs=2)
    new, _ = rewrite(graph(*pair.outputs()), [swap])
    assert [value.index for _, value in new.outputs] == [1, 0]
    assert len(list(new.operations)) == 1


def test_a_replacement_of_another_type_is_refused():
    @rule("Twice")
    def wrong(node, rewriter):
        return constant(np.zeros(3, np.float32))

    with pytest.raises(RedlineError, match=r"\[rule wrong\] Twice\(the Twice\) of .*became.*bug in Redline"):
        rewrite(graph(op("Twice", X.out).out), [wrong])


def test_rules_that_never_rest_are_named():
    @rule("Twice")
    def forever(node, rewriter):
        return op("Twice", *node.inputs).out

    with pytest.raises(RedlineError, match=r"rules \['forever'\] did not come to rest"):
        rewrite(graph(op("Twice", X.out).out), [forever])


def test_new_nodes_carry_the_provenance_of_all_they_stand_for():
    @rule("Outer")
    def fuse(node, rewriter):
        return op("Middle", op("Fused", node.inputs[0].node.inputs[0]).out).out

    first = op("First", X.out, origin=("n0",))
    outer = op("Outer", op("Inner", first.out, origin=("n1",)).out, origin=("n2",))
    new, _ = rewrite(graph(outer.out), [fuse])
    origins = {node.op: node.origin for node in new.operations}
    assert origins == {"First": ("n0",), "Fused": ("n1", "n2"), "Middle": ("n1", "n2")}


def test_provenance_stays_local_where_the_match_would_run_wide():
    value = X.out
    for i in range(100):
        value = op("Step", value, origin=(f"s{i}",)).out

    @rule("Last")
    def restart(node, rewriter):
        return op("New", X.out).out

    new, _ = rewrite(graph(op("Last", value, origin=("last",)).out), [restart])
    assert [node.origin for node in new.operations] == [("last",)]


def test_uses_are_those_before_the_walk_carried_over():
    seen = {}

    @rule("Read")
    def look(node, rewriter):
        seen[node.name] = rewriter.uses(node.inputs[0]), rewriter.uses(node.out)

    twice = op("Twice", X.out).out
    once_read = op("Twice", X.out).out
    reads = [Node("Read", (v,), (TYPE,), name=n) for n, v in (("a", twice), ("b", twice), ("c", once_read))]
    rewrite(graph(*(r.out for r in reads), reads[0].out), [halve, look])
    assert seen == {"a": (2, 2), "b": (2, 1), "c": (1, 1)}


def test_uses_add_up_where_two_values_become_one():
    seen = []

    @rule("Read")
    def look(node, rewriter):
        seen.append(rewriter.uses(node.inputs[0]))

    skipped = op("Skip", op("Base", X.out).out).out
    rewrite(graph(op("Read", skipped).out, op("Other", skipped).out, op("Other", skipped).out), [skip, look])
    assert min(seen) >= 3


def test_absent_inputs_stay_absent():
    new, _ = rewrite(graph(op("Read", None, op("Skip", X.out).out).out), [skip])
    assert next(iter(new.operations)).inputs == (None, X.out)


def test_time_grows_with_the_graph_and_not_with_its_square():
    def seconds(length):
        value = X.out
        for _ in range(length):
            value = op("Twice", value).out
        started = time.process_time()
        rewrite(graph(value), [halve])
        return time.process_time() - started

    seconds(500)
    assert seconds(8000) < 64 * max(seconds(1000), 1e-3)


def test_substitute_reaches_the_inputs_of_replacements():
    a = op("A", X.out).out
    b = op("B", a).out
    c = op("C", b).out
    new = substitute(graph(c, a), {a: op("A2", X.out).out, b: op("B2", a).out})
    assert [node.op for node in new.nodes] == ["Input", "A2", "B2", "C"]


def test_substitute_follows_chains_of_replacements():
    a, b = op("A", X.out).out, op("B", X.out).out
    assert substitute(graph(op("R", a).out), {a: b, b: X.out}).nodes[-1].inputs == (X.out,)
    assert substitute(graph(a), {a: b, b: X.out}).outputs == (("y0", X.out),)


def test_substitute_shares_what_does_not_change():
    pair = op("Pair", X.out, outputs=2)
    kept = op("Kept", pair.outputs()[0]).out
    new = substitute(graph(kept, pair.outputs()[1]), {pair.outputs()[1]: Value(op("N", X.out))})
    assert kept.node in new.nodes and new.outputs[1][1].op == "N"


def test_substitute_refuses_another_type():
    with pytest.raises(RedlineError, match=r"\[substitute\].*became int64\[2\]"):
        substitute(graph(X.out), {X.out: constant(np.zeros(2, np.int64))})
