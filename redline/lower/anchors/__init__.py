"""Operators with kernel families of their own: each function turns a chain into a problem and emits its step."""

from collections.abc import Mapping

from redline.lower.anchors.attention import attention, ragged_attention
from redline.lower.anchors.conv import conv
from redline.lower.anchors.conv_transpose import conv_transpose
from redline.lower.anchors.found import non_max_suppression, true_positions
from redline.lower.anchors.lines import scan, top_k
from redline.lower.anchors.matmul import matmul
from redline.lower.anchors.nbits import matmul_nbits
from redline.lower.anchors.pool import lp_pool, pool
from redline.lower.anchors.reduce import arg_extreme, reduce
from redline.lower.anchors.row import row
from redline.lower.anchors.scatter import scatter_elements, scatter_nd, tensor_scatter
from redline.lower.lowering import Anchor

ANCHORS: Mapping[str, Anchor] = {
    "ArgMax": arg_extreme,
    "ArgMin": arg_extreme,
    "Attention": attention,
    "AveragePool": pool,
    "Conv": conv,
    "ConvInteger": conv,
    "ConvTranspose": conv_transpose,
    "CumProd": scan,
    "CumSum": scan,
    "LayerNormalization": row,
    "LogSoftmax": row,
    "LpPool": lp_pool,
    "MatMul": matmul,
    "MatMulInteger": matmul,
    "MatMulNBits": matmul_nbits,
    "MaxPool": pool,
    "NonMaxSuppression": non_max_suppression,
    "RMSNormalization": row,
    "RaggedAttention": ragged_attention,
    "ReduceMax": reduce,
    "ReduceMean": reduce,
    "ReduceMin": reduce,
    "ReduceProd": reduce,
    "ReduceSum": reduce,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Softmax": row,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "TruePositions": true_positions,
}
