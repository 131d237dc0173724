"""The engine file: its format (SPEC.md), header, writer, reader and plan checker. Needs neither compiler nor device."""

from redline.engine.header import FORMAT, IO, Access, Blob, Header, KernelRecord, Stamp, TensorPlan
from redline.engine.layout import blocks, checksum_text
from redline.engine.read import EngineFile, open_engine
from redline.engine.verify import check_plan
from redline.engine.write import write_engine

__all__ = [
    "FORMAT", "IO", "Access", "Blob", "EngineFile", "Header", "KernelRecord", "Stamp", "TensorPlan",
    "blocks", "check_plan", "checksum_text", "open_engine", "write_engine",
]  # fmt: skip
