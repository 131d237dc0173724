"""The order of all passes: a table of contents of what happens to a model between the front end and lowering."""

from collections.abc import Callable, Set

from redline import ops
from redline.base import env, log
from redline.ir import Graph
from redline.ir.verify import verify
from redline.passes import (
    bound_rounding,
    channels_last,
    decompose,
    eliminate_common_subexpressions,
    flush_weights,
    fold_constants,
    fold_padding,
    fold_requantization,
    fold_scale_shift,
    integer_products,
    merge_projections,
    mix_before_upsampling,
    propagate_quantization,
    push_transposes,
    quantized,
    reassociate,
    recognise_activations,
    recognise_attention,
    recognise_normalization,
    shape_rows,
    simplify_arithmetic,
    simplify_movement,
    sink_reshapes,
    slice_early,
    transposed_as_product,
)

Observer = Callable[[str, Graph], None]
NOTHING: frozenset[str] = frozenset()


def optimize(graph: Graph, observer: Observer | None = None, keep: Set[str] = NOTHING, signed: bool = False) -> Graph:
    """The graph in the form that lowering takes: few operators, image tensors channels last.

    ``observer`` is told the name of each pass and the graph after it. Operators named in ``keep`` are not decomposed.
    All shapes must be static. ``signed``: quantized activations become int8, not uint8.
    """
    walk = _Walk(graph, observer)
    is_quantized = quantized.holds_quantization(graph)
    keep = keep | quantized.WHOLE if is_quantized else keep

    def simplify() -> None:
        _simplify(walk)

    # Exporters' spellings -> one operator each
    walk(lambda g: decompose.run(g, decompose.WHOLE | decompose.UNTIL_RECOGNISED | keep), "decompose")
    simplify()
    walk(recognise_activations.run)
    walk(recognise_normalization.run)
    walk(recognise_attention.run)

    # Fewer and larger operators
    walk(fold_padding.run)
    walk(transposed_as_product.run)
    walk(channels_last.run)
    walk(lambda g: decompose.run(g, decompose.WHOLE | keep), "decompose")
    simplify()
    walk(slice_early.run)
    walk(fold_scale_shift.run)
    walk(merge_projections.run)

    # Layout
    walk(push_transposes.run)
    walk(sink_reshapes.run)
    simplify()
    walk(fold_scale_shift.run)
    walk(mix_before_upsampling.run)
    walk(recognise_normalization.take_scale_and_bias)
    walk(flush_weights.run)
    walk(shape_rows.run)
    walk(lambda g: decompose.run(g, decompose.KERNELS | keep), "decompose")
    simplify()

    return use_integers(walk.graph, observer, keep, signed) if is_quantized else walk.graph


def use_integers(graph: Graph, observer: Observer | None = None, keep: Set[str] = NOTHING, signed: bool = False) -> Graph:
    """An optimized graph whose QuantizeLinear and DequantizeLinear have become arithmetic of integers."""
    walk = _Walk(graph, observer)
    walk(lambda g: propagate_quantization.run(g, signed), "propagate_quantization")
    walk(integer_products.run)
    walk(fold_requantization.run)
    walk(lambda g: decompose.run(g, decompose.KERNELS | (keep - quantized.WHOLE) | quantized.KERNELS), "decompose")
    _simplify(walk)
    walk(bound_rounding.run)
    return walk.graph


def _simplify(walk: "_Walk") -> None:
    walk(fold_constants.run)
    walk(simplify_movement.run)
    walk(simplify_arithmetic.run)
    walk(reassociate.run)
    walk(fold_constants.run)
    walk(eliminate_common_subexpressions.run)


class _Walk:
    """A graph on its way through the passes, verified (REDLINE_DEBUG >= 1) and printed (5) after each."""

    def __init__(self, graph: Graph, observer: Observer | None) -> None:
        self.graph, self._observer = graph, observer

    def __call__(self, run: Callable[[Graph], Graph], name: str = "") -> None:
        name = name or run.__module__.rpartition(".")[2]
        self.graph = run(self.graph)
        if env.debug_level() >= 1:
            verify(self.graph, ops.infer, f"after {name}")
        if env.debug_level() >= 5:
            log.debug(5, f"after {name}: {self.graph}")
        if self._observer is not None:
            self._observer(name, self.graph)
