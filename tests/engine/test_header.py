"""The header: there and back, and everything that is not exactly it refused."""

import json
from dataclasses import replace

import pytest

from redline.base.errors import EngineError
from redline.engine.header import Header, decode, encode
from tests.small_engines import small_engine


@pytest.fixture
def header() -> Header:
    return small_engine().header


def test_there_and_back(header):
    assert decode(encode(header), "engine") == header


def test_the_same_header_gives_the_same_bytes(header):
    shuffled = replace(header, report=dict(reversed(list({"b": 1, "a": {"d": 2, "c": None}}.items()))))
    assert encode(shuffled) == encode(replace(header, report={"a": {"c": None, "d": 2}, "b": 1}))


@pytest.mark.parametrize("name", ["ä", "日本", "a\nb", '"', "\x00", "\U0001f600", ""])
def test_any_name_survives(header, name):
    named = replace(header, inputs=(replace(header.inputs[0], name=name),))
    assert decode(encode(named), "engine") == named


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_writer_refuses_numbers_that_json_has_not(header, value):
    with pytest.raises(ValueError, match="JSON"):
        encode(replace(header, report={"seconds": value}))


def change(header, path, value):
    """The header's text with the value at ``path`` replaced; ``...`` removes it."""
    data = json.loads(encode(header))
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["arena_bytes"], ..., "header: fields missing ['arena_bytes'], unknown []"),
        (["more"], 1, "header: fields missing [], unknown ['more']"),
        (["arena_bytes"], 1.0, "header.arena_bytes: expected 64-bit integer, found float"),
        (["arena_bytes"], True, "header.arena_bytes: expected 64-bit integer, found bool"),
        (["arena_bytes"], 1 << 63, "header.arena_bytes: expected 64-bit integer, found int"),
        (["arena_bytes"], None, "header.arena_bytes: expected 64-bit integer, found NoneType"),
        (["report"], [], "header.report: expected object, found list"),
        (["stamp"], "x", "header.stamp: expected Stamp, found str"),
        (["inputs"], {}, "header.inputs: expected array, found dict"),
        (["inputs", 0, "shape", 1], "3", "header.inputs[0].shape[1]: expected 64-bit integer, found str"),
        (["kernels", 2, "reads", 1, "space"], 0, "header.kernels[2].reads[1].space: expected str, found int"),
        (["kernels", 0, "seconds"], "1", "header.kernels[0].seconds: expected float, found str"),
        (["kernels", 0, "seconds"], 10**400, "header.kernels[0].seconds: expected float, found int"),
        (["kernels", 0, "barrier"], 1, "header.kernels[0].barrier: expected bool, found int"),
    ],
)
def test_what_does_not_fit_is_named(header, path, value, message):
    with pytest.raises(EngineError) as error:
        decode(change(header, path, value), "m.engine")
    assert str(error.value) == f"[m.engine] its header is malformed: {message}; build the engine again"


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"{", b"\xff", b"NaN", b'{"stamp": NaN}', b"[" * 100_000, b"1" * 10_000, '"ä"'.encode()],
    ids=lambda text: repr(text[:12]),
)
def test_other_texts_are_refused(text):
    with pytest.raises(EngineError, match="its header is malformed"):
        decode(text, "m.engine")
