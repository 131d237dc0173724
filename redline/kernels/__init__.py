"""The kernel vocabulary: problems, schedules and the code made from them, one folder a family. Never sees operators."""

from redline.kernels import attention, conv, depthwise, matmul, nest, pool, row
from redline.kernels.problem import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (attention.FAMILY, conv.FAMILY, depthwise.FAMILY, matmul.FAMILY, nest.FAMILY, pool.FAMILY, row.FAMILY)
}
