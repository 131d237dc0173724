"""How a model is to be served: what ``config.pbtxt`` or ``redline.toml`` says, as one frozen dataclass."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from redline.server.types import TensorSpec


@dataclass(frozen=True)
class QueuePolicy:
    """What a queue does with requests that wait. ``max_size`` 0: any number. ``delay``: late ones go last, else they fail."""

    max_size: int = 0
    timeout_us: int = 0
    allow_override: bool = False
    delay: bool = False


@dataclass(frozen=True)
class Batching:
    """Dynamic batching. ``adaptive``: batches grow only as far as measured times say that it pays.

    ``auto_delay``: requests wait (at most max_delay_us) only while the next is expected sooner than merging it would save.
    """

    preferred: tuple[int, ...] = ()
    max_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority: int = 0
    policy: QueuePolicy = QueuePolicy()
    policies: Mapping[int, QueuePolicy] = field(default_factory=dict)
    adaptive: bool = True
    auto_delay: bool = True


@dataclass(frozen=True)
class Instances:
    """``count`` executions at a time, each with ``threads`` threads (0: an equal share of the cores).

    ``isolated``: each runs in a process of its own, which is restarted when it dies.
    """

    count: int = 1
    threads: int = 0
    isolated: bool = False


@dataclass(frozen=True)
class Versions:
    """Which versions are served: the ``latest`` so many, or those in ``specific``, or (neither given) all."""

    latest: int = 1
    specific: tuple[int, ...] = ()
    all: bool = False

    def select(self, present: list[int]) -> list[int]:
        """The versions to serve of those present, in rising order."""
        if self.all:
            return sorted(present)
        if self.specific:
            return sorted(set(self.specific) & set(present))
        return sorted(present)[-self.latest :]


@dataclass(frozen=True)
class WarmupInput:
    """``source``: "zero", "random", or the name of a file in the model's ``warmup`` folder."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class Warmup:
    """Requests of ``batch_size`` to run before the first caller's, ``count`` times."""

    name: str
    batch_size: int
    count: int
    inputs: tuple[WarmupInput, ...]


@dataclass(frozen=True)
class Step:
    """One model of an ensemble: its inputs and outputs by the names of the ensemble's tensors."""

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelConfig:
    """One model. ``max_batch_size`` 0: no batch dimension. ``batching`` None: requests run one by one.

    ``inputs`` and ``outputs`` are without the batch dimension; empty where the model file is to say them.
    """

    name: str
    backend: str = ""
    max_batch_size: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batching: Batching | None = None
    instances: Instances = Instances()
    versions: Versions = Versions()
    warmups: tuple[Warmup, ...] = ()
    steps: tuple[Step, ...] = ()
    cache: bool = False
    default_file: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    metric_tags: Mapping[str, str] = field(default_factory=dict)
