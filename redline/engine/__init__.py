"""The engine file: its format (SPEC.md), header, writer, reader and plan checker. Needs neither compiler nor device.

The writer is imported at its first use: a process that only runs engines does without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from redline.engine.header import FORMAT, IO, Access, Blob, Header, KernelRecord, OpenDim, Stamp, TensorPlan, Variant
from redline.engine.layout import blocks, checksum_text
from redline.engine.profile import shape_at, sole_dimension
from redline.engine.read import EngineFile, open_engine, read_header
from redline.engine.variants import blob_of, encode_steps, joined, spans, without_steps
from redline.engine.verify import check_plan, check_variants

if TYPE_CHECKING:
    from redline.engine.write import write_engine

__all__ = [
    "FORMAT", "IO", "Access", "Blob", "EngineFile", "Header", "KernelRecord", "OpenDim", "Stamp", "TensorPlan",
    "Variant", "blob_of", "blocks", "check_plan", "check_variants", "checksum_text", "encode_steps", "joined", "open_engine",
    "read_header", "shape_at", "sole_dimension", "spans", "without_steps", "write_engine",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name != "write_engine":
        raise AttributeError(f"module 'redline.engine' has no attribute {name!r}")
    return importlib.import_module("redline.engine.write").write_engine
