"""The runtimes that Redline is measured against, by name, behind one interface.

A peer's own package is imported only when the peer is opened: its file says how it is set up for a fair comparison
(fixed shapes, the same number of threads, latency rather than throughput, the precision said out loud).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from redline.base.errors import RedlineError, closest
from redline.base.shapes import StaticShape
from redline.cli import extras

FILES = {"onnxruntime": "redline.cli.peer_onnxruntime", "openvino": "redline.cli.peer_openvino"}
Arrays = Mapping[str, np.ndarray]


class Peer(Protocol):
    """A model made ready by another runtime."""

    title: str  # the runtime with its version and precision, for tables

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs by name; as fast as the runtime can, so they may be overwritten by the next run."""
        ...


def open_peer(
    name: str, model: Path, shapes: Mapping[str, StaticShape], num_threads: int, precision: str = "fp32"
) -> Peer:  # fmt: skip
    """The model in the runtime ``name``. Raises RedlineError for an unknown name or precision, or a missing package."""
    if name not in FILES:
        raise RedlineError("--vs", f"there is no peer {name!r}", closest(name, FILES))
    file = extras.load(FILES[name], f"--vs {name}")
    if precision not in file.PRECISIONS:
        raise RedlineError("--vs", f"{name} does not run in {precision!r}", closest(precision, file.PRECISIONS))
    peer: Peer = file.open_model(model, shapes, num_threads, precision)
    return peer
