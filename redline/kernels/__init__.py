"""The kernel vocabulary: problems, schedules and the code made from them, one folder a family. Never sees operators."""

from redline.kernels import attention, conv, depthwise, matmul, nbits, nest, pool, row, scan, scatter, sort
from redline.kernels.problem import Family

_MODULES = (attention, conv, depthwise, matmul, nbits, nest, pool, row, scan, scatter, sort)
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}
