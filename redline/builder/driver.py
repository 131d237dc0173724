"""The build, read top to bottom: ONNX -> graph -> passes -> kernel problems -> tuned code -> engine file."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from redline import frontend, passes
from redline.base import dtypes, log
from redline.base.errors import BuildError, closest
from redline.builder import quantization
from redline.builder.accuracy import worst_error
from redline.builder.cuda import build_cuda, check_ragged
from redline.builder.plans import Part, Reader, parts_of, ragged_part
from redline.builder.quantization import Metric, Wish
from redline.builder.shapes import Given
from redline.builder.wanted import Fixed, Wanted, largest
from redline.builder.workshop import Made, Progress, Workshop
from redline.codegen.c import isa, toolchain
from redline.ir import Graph
from redline.kernels import dot
from redline.kernels.problem import CpuTarget
from redline.quant.weights import narrow_weights
from redline.runtime import AnyEngine, load

WEIGHT_BITS = {"w8": 8, "w4": 4}  # of matrix products' weights alone, by precision
STORAGE = {  # of float32 values, by precision; dot.SPLIT keep them and split the factors of products
    "fp32": None, **dict.fromkeys(dot.SPLIT), "bf16": dtypes.bfloat16, "fp16": dtypes.float16,
}  # fmt: skip


def build(
    model: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    shapes: Given | Sequence[Given] | None = None,
    buckets: Mapping[str, Fixed | None] | None = None,
    freeze: Mapping[str, frontend.Frozen] | None = None,
    precision: str = "fp32",
    opt_level: int = 3,
    timing_cache: str | os.PathLike[str] | None = None,
    memory_limit: int | None = None,
    target: str = "cpu",
    num_threads: int = 0,
    calibrate: Any = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    calibrator: str = "mse",
    max_drop: float | None = None,
    min_cosine: float | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
    ragged: bool = False,
) -> AnyEngine:
    """Builds an engine from an ONNX model (a path, bytes or a ModelProto), writes it and loads it.

    ``output``: where the engine goes; without it, beside a model given as a path, and nowhere for other models.
    ``shapes`` fixes the inputs' open dimensions, or leaves them open in a range (docs/shapes.md); several of them in a list
    are so many profiles of one engine. ``buckets``: names of fixed shapes that get a plan of their own; one called ``opt``
    without shapes is the tuned shape of every profile. ``ragged`` makes of inputs
    [batch, length] ones of sequences one behind the other, without padding. ``freeze`` makes inputs constants: arrays, or a
    number for all elements.
    ``opt_level`` 0 to 5: how many tactics are timed for a kernel. ``timing_cache``: a file of tactic timings
    (default: one for this machine in the cache folder).
    ``calibrate``: samples for the precisions int8 and best (an .npz, a folder of .npy, an iterable of input dicts), or a
    ``calibration_cache`` file, which is written where it does not exist. ``max_drop``, ``min_cosine`` and ``metric`` are the
    gate of the precision best (builder/gate.py).
    ``memory_limit``: the most bytes that weights and arena may take. ``num_threads``: what the engine is tuned for (0: all
    that the process may use). ``progress(stage, done, total)`` is called along the way.

    ``target`` cuda or cuda:sm_90: see builder/cuda.py; where the GPU is not on this machine, call ``build_cuda`` instead, for
    an engine cannot be loaded without it.

    Raises ModelError, UnsupportedError, BuildError or CompilerError, each saying what to do.
    """
    started = time.perf_counter()
    if target.split(":")[0] == "cuda":
        check_ragged(ragged)
        path = build_cuda(
            model, output=output, shapes=shapes, buckets=buckets, freeze=freeze, precision=precision, opt_level=opt_level,
            timing_cache=timing_cache, memory_limit=memory_limit, target=target, calibrate=calibrate,
            calibration_cache=calibration_cache, calibrator=calibrator, max_drop=max_drop, min_cosine=min_cosine,
            metric=metric, progress=progress,
        )  # fmt: skip
        return load(path)
    wanted = Wanted.of(shapes, buckets)
    wish = Wish(precision, calibrate, calibration_cache, calibrator, max_drop, min_cosine, metric)
    _check_options(precision, opt_level, num_threads)
    destination = _destination(model, output)
    wish.check()
    report = progress or (lambda stage, done, total: None)
    cpu_target = _with_split_factors(isa.target(target.removeprefix("cpu:"), num_threads), precision)
    shop = Workshop(cpu_target, toolchain.find(), opt_level, timing_cache, report)
    report("read", 0, 1)
    made = _make(model, wanted, freeze or {}, ragged, shop, wish)
    _check_memory(made, memory_limit)
    report("write", 0, 1)
    engine = made.write(destination)
    log.debug(1, f"built {engine.report['model']}: {made.steps} kernels in {time.perf_counter() - started:.1f} s")
    return engine


def _make(
    model: Any, wanted: Wanted, freeze: Mapping[str, frontend.Frozen], ragged: bool, shop: Workshop, wish: Wish
) -> Made:  # fmt: skip
    """The engine: of one plan for fixed shapes, which every precision has, or of plans that need not be."""
    reader = Reader(frontend.read(model), freeze, STORAGE.get(wish.precision))
    if ragged:
        given = wanted.only("a ragged build", "build an engine for each")
        if not wanted.is_open:
            raise BuildError("ragged", "shapes that are all fixed", "allowed: ranges", "give --shapes MIN,OPT,MAX")
        _check_open(wish.precision)
        parts = [ragged_part(reader, given)]
        return shop.assemble(parts, {**_summary(parts, reader, wish.precision, shop), "ragged": True})
    if wanted.num_plans == 1 and not wanted.is_open:
        graph = reader.graph(largest(wanted.profiles[0]))
        if not frontend.found(graph):
            return _make_fixed(model, graph, reader, shop, wish)
    _check_open(wish.precision)
    parts = list(parts_of(reader, wanted))
    return shop.assemble(parts, _summary(parts, reader, wish.precision, shop))


def _make_fixed(model: Any, graph: Graph, reader: Reader, shop: Workshop, wish: Wish) -> Made:
    """The engine for fixed shapes."""
    precision = wish.precision
    summary = _report(graph.name, reader.num_nodes, precision, shop.opt_level)
    shop.report("optimise", 0, 1)
    graph = passes.optimize(graph)
    if precision in quantization.PRECISIONS:
        return quantization.make(model, graph, summary, shop, wish, lambda: shop)
    made = shop.make(_weighed(graph, precision), STORAGE.get(precision), summary)
    if precision == "fp32":
        return made
    shop.report("compare", 0, 1)
    exact = replace(shop, target=dot.without_parts(shop.target))
    reference = exact.make(graph, None, {}, opt_level=0)
    return made.reporting({**summary, "error": worst_error(made.write(None), reference.write(None))})


def _weighed(graph: Graph, precision: str) -> Graph:
    """``graph`` with narrow weights, where the precision asks for them."""
    if precision not in WEIGHT_BITS:
        return graph
    narrow = narrow_weights(graph, WEIGHT_BITS[precision])
    if not any(node.op == "MatMulNBits" for node in narrow.operations):
        raise BuildError("--precision", f"{precision}: no matrix product with constant weights", "", "build in fp32 or bf16")
    return narrow


def _with_split_factors(target: CpuTarget, precision: str) -> CpuTarget:
    """``target`` as code of this precision sees it; raises BuildError where it is of no use."""
    if precision not in dot.SPLIT:
        return target
    if "amx" not in target.features:
        seen = f"{precision} on {isa.text(target)}, which has no matrix unit (AMX)"
        raise BuildError("--precision", seen, "the unit multiplies bfloat16 sixteen times as fast", "build in fp32 or bf16")
    return replace(target, features=target.features | {precision})


def _check_open(precision: str) -> None:
    if precision not in STORAGE:
        seen = f"{precision} with open shapes, several plans or results whose shapes depend on data"
        raise BuildError("--precision", seen, f"allowed: {', '.join(STORAGE)}", "fix the shapes, or build in one of these")


def _check_options(precision: str, opt_level: int, num_threads: int) -> None:
    known = (*STORAGE, *WEIGHT_BITS, *quantization.PRECISIONS)
    if precision not in known:
        raise BuildError("--precision", f"there is no precision {precision!r}", closest(precision, known))
    if opt_level not in range(6):
        raise BuildError("--opt-level", f"{opt_level} is out of range", "allowed: 0 to 5")
    if num_threads < 0:
        raise BuildError("--threads", f"{num_threads} is out of range", "allowed: 1 and more, or 0 for all that there are")


def _summary(parts: Sequence[Part], reader: Reader, precision: str, shop: Workshop) -> dict[str, Any]:
    return _report(parts[0].program.name, reader.num_nodes, precision, shop.opt_level)


def _report(name: str, num_nodes: int, precision: str, opt_level: int) -> dict[str, Any]:
    """The report in the header: only what is the same in every build from the same model and timing cache."""
    return {"model": name, "nodes": num_nodes, "precision": precision, "opt_level": opt_level}


def _check_memory(made: Made, limit: int | None) -> None:
    weights = made.weights.num_bytes
    arena = max(header.arena_bytes + header.scratch_bytes * header.num_threads for header in made.headers)
    if limit is not None and weights + arena > limit:
        seen = f"the engine needs {_mib(weights + arena)} (weights {_mib(weights)}, arena {_mib(arena)})"
        raise BuildError("--memory-limit", seen, f"allowed: {_mib(limit)}", "raise the limit, or build for smaller shapes")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def _destination(model: Any, output: str | os.PathLike[str] | None) -> Path | None:
    """Where the engine goes; a folder that is not there is found out before the work begins."""
    if output is None:
        return Path(model).with_suffix(".engine") if isinstance(model, str | os.PathLike) else None
    path = Path(output)
    if not path.parent.is_dir():
        raise BuildError("--output", f"there is no folder {str(path.parent)!r}", "", "make it, or name another file")
    return path
