"""The build, read top to bottom: ONNX -> graph -> passes -> kernel problems -> tuned code -> engine file."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redline import frontend, passes
from redline.base import dtypes, log
from redline.base.errors import BuildError, closest
from redline.base.shapes import ShapeRange, StaticShape, fixed
from redline.builder import quantization
from redline.builder.accuracy import worst_error
from redline.builder.assemble import Assembly
from redline.builder.cuda import build_cuda
from redline.builder.quantization import Metric
from redline.builder.ragged import open_ragged
from redline.builder.shapes import Source, fixed_profile, open_first, profiles
from redline.builder.workshop import Made, Progress, Workshop
from redline.codegen.c import isa, toolchain
from redline.ir import Graph
from redline.lower import Program, lower
from redline.quant.weights import narrow_weights
from redline.runtime import Engine, load

WEIGHT_BITS = {"w8": 8, "w4": 4}  # of matrix products' weights alone, by precision
STORAGE = {"fp32": None, "bf16": dtypes.bfloat16, "fp16": dtypes.float16}  # of float32 values, by precision


def build(
    model: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, StaticShape | ShapeRange] | None = None,
    freeze: Mapping[str, np.ndarray] | None = None,
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
) -> Engine:
    """Builds an engine from an ONNX model (a path, bytes or a ModelProto), writes it and loads it.

    ``output``: where the engine goes; without it, beside a model given as a path, and nowhere for other models.
    ``shapes`` fixes the inputs' open dimensions, or leaves them open in a range (docs/shapes.md); ``ragged`` makes of inputs
    [batch, length] ones of sequences one behind the other, without padding. ``freeze`` makes inputs constants.
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
    if target.split(":")[0] == "cuda":
        if ragged:
            raise BuildError("ragged", "a CUDA engine", "allowed: engines for processors", "give fixed shapes, without ragged")
        path = build_cuda(
            model, output=output, shapes=fixed(shapes or {}, "a CUDA engine"), freeze=freeze, precision=precision,
            opt_level=opt_level,
            timing_cache=timing_cache, memory_limit=memory_limit, target=target, calibrate=calibrate,
            calibration_cache=calibration_cache,
            calibrator=calibrator, max_drop=max_drop, min_cosine=min_cosine, metric=metric, progress=progress,
        )  # fmt: skip
        return load(path)
    started = time.perf_counter()
    _check_options(precision, opt_level, num_threads)
    destination = _destination(model, output)
    wish = quantization.Wish(precision, calibrate, calibration_cache, calibrator, max_drop, min_cosine, metric)
    wish.check()
    report = progress or (lambda stage, done, total: None)
    cpu_target = isa.target(target.removeprefix("cpu:"), num_threads)
    compiler = toolchain.find()

    report("read", 0, 1)
    shop = Workshop(cpu_target, compiler, opt_level, timing_cache, report)
    if any(isinstance(shape, ShapeRange) for shape in (shapes or {}).values()):
        made = _make_open(model, shapes or {}, freeze or {}, precision, shop, ragged)
    elif ragged:
        raise BuildError("ragged", "shapes that are all fixed", "allowed: ranges", "give --shapes MIN,OPT,MAX")
    else:
        graph = frontend.load(model, shapes=fixed(shapes or {}, "this build"), freeze=freeze or {})
        if frontend.found(graph):
            made = _make_open(model, shapes or {}, freeze or {}, precision, shop, ragged=False)
        else:
            made = _make(model, graph, precision, shop, wish)
    _check_memory(made.assembly, memory_limit)
    report("write", 0, 1)
    engine = made.write(destination)
    log.debug(1, f"built {engine.report['model']}: {made.steps} kernels in {time.perf_counter() - started:.1f} s")
    return engine


def _make(model: Any, graph: Graph, precision: str, shop: Workshop, wish: quantization.Wish) -> Made:
    """The engine for fixed shapes."""
    num_nodes = sum(1 for _ in graph.operations)
    shop.report("optimise", 0, 1)
    graph = passes.optimize(graph)
    summary = _summary(graph.name, num_nodes, precision, shop.opt_level)
    if precision in quantization.PRECISIONS:
        return quantization.make(model, graph, summary, shop, wish, lambda: shop)
    made = shop.make(_weighed(graph, precision), STORAGE.get(precision), summary)
    if precision == "fp32":
        return made
    shop.report("compare", 0, 1)
    reference = shop.make(graph, None, {}, opt_level=0)
    return made.reporting({**summary, "error": worst_error(made.write(None), reference.write(None))})


def _weighed(graph: Graph, precision: str) -> Graph:
    """``graph`` with narrow weights, where the precision asks for them."""
    if precision not in WEIGHT_BITS:
        return graph
    narrow = narrow_weights(graph, WEIGHT_BITS[precision])
    if not any(node.op == "MatMulNBits" for node in narrow.operations):
        raise BuildError("--precision", f"{precision}: no matrix product with constant weights", "", "build in fp32 or bf16")
    return narrow


def _make_open(
    model: Any, shapes: Mapping[str, StaticShape | ShapeRange], freeze: Mapping[str, np.ndarray], precision: str,
    shop: Workshop, ragged: bool,
) -> Made:  # fmt: skip
    """The engine for ranges of shapes, or for results whose shapes depend on data."""
    if precision not in STORAGE:
        remedy = "fix the shapes, or build in one of these"
        raise BuildError("--precision", f"{precision} with open shapes", f"allowed: {', '.join(STORAGE)}", remedy)
    storage = STORAGE[precision]
    nodes = []

    def optimized(fixed: Mapping[str, StaticShape], counts: Sequence[int] = ()) -> Graph:
        graph = frontend.load(model, shapes=fixed, freeze=freeze, counts=counts)
        nodes.append(sum(1 for _ in graph.operations))
        return passes.optimize(graph)

    def found(fixed: Mapping[str, StaticShape]) -> Sequence[int]:
        counts = frontend.found(frontend.load(model, shapes=fixed, freeze=freeze))
        if counts and storage is not None:
            seen = f"{precision} with results whose shapes depend on data"
            raise BuildError("--precision", seen, "allowed: fp32", "build in fp32")
        return counts

    def lowered(fixed: Mapping[str, StaticShape], counts: Sequence[int]) -> Program:
        return lower(optimized(fixed, counts), storage, is_open=True)

    if ragged:
        opened, spans = open_ragged(
            shapes, frontend.declared(model), optimized, lambda graph: lower(graph, storage, is_open=True)
        )
        summary = _summary(opened.program.name, nodes[0], precision, shop.opt_level)
        return shop.assemble(opened.program, opened.largest, spans, {**summary, "ragged": True})
    tries = list(profiles(shapes, frontend.declared(model)))
    if not tries:  # every range holds one shape
        single = {name: s.max if isinstance(s, ShapeRange) else s for name, s in shapes.items()}
        if not found(single):
            program = lowered(single, ())
            return shop.assemble(program, program, None, _summary(program.name, nodes[0], precision, shop.opt_level))
        tries = [fixed_profile(single)]
    opened, spans = open_first(tries, Source(lowered, found))
    summary = _summary(opened.program.name, nodes[0], precision, shop.opt_level)
    return shop.assemble(opened.program, opened.largest, spans, summary)


def _check_options(precision: str, opt_level: int, num_threads: int) -> None:
    known = (*STORAGE, *WEIGHT_BITS, *quantization.PRECISIONS)
    if precision not in known:
        raise BuildError("--precision", f"there is no precision {precision!r}", closest(precision, known))
    if opt_level not in range(6):
        raise BuildError("--opt-level", f"{opt_level} is out of range", "allowed: 0 to 5")
    if num_threads < 0:
        raise BuildError("--threads", f"{num_threads} is out of range", "allowed: 1 and more, or 0 for all that there are")


def _summary(name: str, num_nodes: int, precision: str, opt_level: int) -> dict[str, Any]:
    """The report in the header: only what is the same in every build from the same model and timing cache."""
    return {"model": name, "nodes": num_nodes, "precision": precision, "opt_level": opt_level}


def _check_memory(assembly: Assembly, limit: int | None) -> None:
    header = assembly.header
    weights, arena = assembly.weights.num_bytes, header.arena_bytes + header.scratch_bytes * header.num_threads
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
