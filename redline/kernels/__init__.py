"""The kernel vocabulary: problems, schedules and the code made from them, one folder a family. Never sees operators."""

from redline.kernels import (
    attention,
    banded,
    collect,
    conv,
    count,
    depthwise,
    expanded,
    matmul,
    nbits,
    nest,
    pool,
    row,
    scan,
    scatter,
    select,
    sort,
    suppress,
)
from redline.kernels.problem import Family

_MODULES = (
    attention, banded, collect, conv, count, depthwise, expanded, matmul, nbits, nest, pool, row, scan, scatter, select,
    sort, suppress,
)  # fmt: skip
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}
