"""Engines of several plans: there and back, and what a file may not say of them."""

import json
from dataclasses import replace

import pytest

from redline.base.errors import EngineError
from redline.engine import check_variants, open_engine, spans, without_steps
from redline.engine.header import IO, OpenDim, Variant
from redline.engine.variants import decode_steps, encode_steps
from tests.small_engines import small_engine, two_plans


@pytest.fixture
def header(tmp_path):
    file = open_engine(two_plans(tmp_path / "m.engine"))
    yield file.header
    file.close()


def test_there_and_back(tmp_path):
    small = small_engine().header
    file = open_engine(two_plans(tmp_path / "m.engine"))
    plan = file.plan(1)
    assert replace(plan, name="", plan=0, variants=(), blobs=()) == small
    assert (plan.name, plan.plan) == ("other", 1)
    assert [p.kernels for p in without_steps(file.header)] == [small.kernels, ()]
    check_variants(file.header, "m")
    file.close()


def variant(header, **changes):
    return replace(header, variants=(replace(header.variants[0], **changes),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: variant(h, name=""), r"its plans are number 0 and on, of the names \['', ''\]"),
        (lambda h: replace(h, plan=1), "its plans are number 1 and on"),
        (lambda h: replace(h, variants=(*h.variants, replace(h.variants[0], name="x"))), "the steps of plan 'x' are missing"),
        (lambda h: variant(h, inputs=()), "plan 'other' has other inputs or outputs than the first"),
        (lambda h: variant(h, outputs=h.outputs[::-1]), "plan 'other' has other inputs or outputs than the first"),
        (lambda h: variant(h, inputs=(IO("x", "float64", (6, 33)),)), "plan 'other' has other inputs or outputs"),
        (lambda h: variant(h, inputs=(IO("x", "float32", (6,)),)), "plan 'other' has other inputs or outputs"),
        (lambda h: variant(h, inputs=(IO("x", "float32", (-6, 33)),)), "x has shape"),
        (lambda h: variant(h, dims=(OpenDim("n", 1, 2, 3),)), "no input says what dimension 'n' is"),
        (lambda h: variant(h, dims=(OpenDim("n", 3, 2, 1),)), "dimension 'n' goes from 3 over 2 to 1"),
    ],
)
def test_plans_that_do_not_fit_are_refused(header, change, message):
    with pytest.raises(EngineError, match=message):
        check_variants(change(header), "m")


def test_steps_that_are_malformed():
    steps = json.loads(encode_steps(small_engine().header))
    for change in ({"arena_bytes": "1"}, {"more": 1}, {"kernels": None}):
        with pytest.raises(EngineError, match=r"\[m\] its plans are malformed: plan\.2"):
            decode_steps(json.dumps({**steps, **change}).encode(), "m", 2)


def test_the_widest_range_of_all_plans():
    n = OpenDim("n", 1, 2, 8)
    wide = IO("x", "float32", (16, 3), (((2, 1),), ((3, 0),)))
    header = replace(small_engine().header, inputs=(wide,), outputs=(), dims=(n,))
    narrow = Variant("narrow", (IO("x", "float32", (20, 3)),), (), ())
    assert spans(replace(header, variants=(narrow,))) == {"x": ((2, 20), (3, 3))}
