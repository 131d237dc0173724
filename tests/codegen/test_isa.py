"""Targets: names there and back, what they need, and the host's own."""

import itertools

import pytest

from redline.base.errors import BuildError
from redline.codegen.c import isa

ZEN4 = isa.needs(isa.target("avx512+bf16+vbmi+vnni"))


@pytest.mark.parametrize("name", ["generic", "avx2", "avx512", "avx512+vnni", "avx512+bf16+vbmi+vnni"])
def test_a_name_gives_a_target_that_has_this_name(name):
    assert isa.text(isa.target(name, 3)) == name
    assert isa.target(name, 3).num_threads == 3


def test_vector_width_and_registers():
    assert [(t.vector_bytes, t.num_registers) for t in map(isa.target, ("avx512", "avx2", "generic"))] == [
        (64, 32), (32, 16), (16, 16),
    ]  # fmt: skip


def test_more_options_need_more_of_the_processor():
    needs = [isa.needs(isa.target(name)) for name in ("generic", "avx2", "avx512", "avx512+vnni")]
    assert not needs[0]
    assert all(a < b for a, b in itertools.pairwise(needs))
    assert "avx512_vnni" in needs[3]


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (frozenset(), "generic"),
        (isa.needs(isa.target("avx2")), "avx2"),
        (isa.needs(isa.target("avx2")) | {"avx512f"}, "avx2"),  # some of AVX-512 is not enough
        (isa.needs(isa.target("avx512")), "avx512"),
        (isa.needs(isa.target("avx512")) | {"avx512_vnni", "avx512vbmi"}, "avx512+vnni"),  # half of vbmi
        (ZEN4 | {"sse4a", "clzero"}, "avx512+bf16+vbmi+vnni"),
    ],
)
def test_the_host_gets_the_best_row_that_it_can_run(features, name):
    target = isa.host_target(2, features)
    assert isa.text(target) == name
    assert isa.needs(target) <= features


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("avx521", "[target] there is no target 'avx521'; did you mean 'avx512'?"),
        ("neon", "[target] there is no target 'neon'; known: avx2, avx512, cpu, generic"),
        ("avx2+vnni", "[target] avx2 has no option 'vnni'; known: none"),
        ("avx512+vnn", "[target] avx512 has no option 'vnn'; did you mean 'vnni'?"),
    ],
)
def test_an_unknown_target_is_refused(name, message):
    with pytest.raises(BuildError) as error:
        isa.target(name)
    assert str(error.value) == message


def test_the_processor_family_must_be_known(monkeypatch):
    monkeypatch.setattr(isa.platform, "machine", lambda: "riscv64")
    with pytest.raises(BuildError, match=r"\[target\] this machine is riscv64; Redline writes code for x86_64 only"):
        isa.host_target()
