"""The kernel families that have a GPU form, by name."""

from redline.kernels.attention import triton as attention
from redline.kernels.conv import triton as conv
from redline.kernels.depthwise import triton as depthwise
from redline.kernels.gpu import GpuFamily
from redline.kernels.matmul import triton as matmul
from redline.kernels.nest import triton as nest
from redline.kernels.pool import triton as pool
from redline.kernels.row import triton as row
from redline.kernels.scan import triton as scan
from redline.kernels.scatter import triton as scatter
from redline.kernels.sort import triton as sort

GPU_FAMILIES: dict[str, GpuFamily] = {
    module.FAMILY.name: module.FAMILY for module in (attention, conv, depthwise, matmul, nest, pool, row, scan, scatter, sort)
}
