"""The graph vocabulary: what every operator means, one file a family. ``make`` builds nodes, ``run`` interprets graphs."""

from redline.ops import (  # noqa: F401  (each registers its operators)
    activations,
    attention,
    binary,
    col2im,
    convert,
    detect,
    einsum,
    gather,
    generate,
    grid,
    linear,
    logic,
    move,
    nbits,
    nn_channel_norm,
    nn_conv,
    nn_loss,
    nn_norm,
    nn_pool,
    order,
    quantize,
    quantized_contrib,
    quantized_math,
    ragged_attention,
    reduce,
    reshape,
    resize,
    rnn,
    rotary,
    scatter,
    select,
    signal,
    slicing,
    softmax,
    unary,
    unique,
)
from redline.ops.interpreter import run
from redline.ops.registry import Op, OpDef, define, evaluate, infer, known, lookup, make, make_node
from redline.ops.window import Window, explicit_window

ELEMENTWISE = frozenset(name for name, op in known().items() if op.elementwise)

__all__ = [
    "ELEMENTWISE", "Op", "OpDef", "Window", "define", "evaluate", "explicit_window", "infer", "known", "lookup", "make",
    "make_node", "run",
]  # fmt: skip
