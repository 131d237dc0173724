"""The ceilings of a machine: what is measured for which processor. How high they are decides nothing here."""

import pytest

from redline.base import cpu
from redline.codegen.c import isa, toolchain
from redline.tune import ceilings


@pytest.mark.parametrize("row", isa.ROWS, ids=lambda row: row.name)
def test_every_processor_has_ceilings(row, monkeypatch):
    if not row.needs <= cpu.features():
        pytest.skip(f"this processor is no {row.name}")
    monkeypatch.setattr(ceilings, "STEPS", 1000)
    monkeypatch.setattr(ceilings, "READ_BYTES", ceilings.MEMORY_BYTES)
    monkeypatch.setattr(ceilings, "TRIES", 1)
    host = isa.host_target(2)
    target = host if host.name == row.name else isa.target(row.name, 2)
    found = ceilings.measure(target, toolchain.find())
    wanted = {"float32"} | {kind for kind, feature in ceilings.NEEDS.items() if feature in target.features}
    assert set(found.operations) == wanted
    assert found.num_threads == 2
    assert min(*found.operations.values(), found.memory, found.cache) > 0
