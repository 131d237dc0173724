"""What a machine can do at most, as numbers; tune/ceilings.py measures them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ceilings:
    """Of ``num_threads`` threads at once.

    ``operations`` a second by the type of the operands ("float32", "bfloat16", "int8"; a multiply-add is two), and bytes a
    second read from ``memory`` and from the shared ``cache``.
    """

    num_threads: int
    operations: Mapping[str, float]
    memory: float
    cache: float
