"""INT8 against the clock: Redline, ONNX Runtime (QDQ) and OpenVINO (nncf) on the zoo, in turns, two threads, batch 1.

Redline is built by ``precision="int8"`` from the samples that the others were calibrated on; its BF16 build of the same model
takes its turns too. ``--qdq`` times Redline on ONNX Runtime's own quantized models instead, whose answers it must give.

    python bench/int8_models.py --build      makes models and engines, without timing
    python bench/int8_models.py              writes docs/int8-models.md
"""

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path

import hardware
import int8_zoo
import numpy as np
import onnxruntime as ort
import openvino as ov
import zoo

import redline
from redline.cli.timing import Stats, alternate
from redline.runtime import Engine

NAMES = ("resnet50", "mobilenetv2", "yolov5s", "bert_base")
OWN = ("resnet50", "mobilenetv2", "minilm")
THREADS = 2
Arrays = dict[str, np.ndarray]

HEAD = """# INT8 models on the CPU

Written by `{command}` on {day}; run it to measure your own machine.

- Machine: {machine}
- Versions: {versions}
- Two threads, batch 1, the same inputs; the contestants take turns in blocks of {seconds:g} s, {blocks} each. Medians in ms.
- ONNX Runtime runs its quantizer's QDQ model, OpenVINO nncf's. All were calibrated on the same {samples} samples.
- The ratio is the faster peer's time over Redline's INT8: above 1, Redline is faster. Cosines (Redline, ONNX Runtime,
  OpenVINO) are with the float model's answers, the mean over all outputs of {tests} inputs.
"""


def engine_of(name: str, precision: str, opt_level: int) -> Path:
    """The engine, built unless it is there: delete .cache/int8/*.engine to build anew."""
    file = int8_zoo.FOLDER / f"{name}-{precision}.engine"
    if not file.exists():
        options = {"output": file, "num_threads": THREADS, "opt_level": opt_level, "shapes": zoo.shapes(name)}
        if precision == "int8":
            options |= {"precision": "int8", "calibrate": list(int8_zoo.samples(name))}
        elif precision == "bf16":
            options |= {"precision": "bf16"}
        file.parent.mkdir(parents=True, exist_ok=True)
        model = zoo.path(name) if precision in ("int8", "bf16") else int8_zoo.path(name, precision)
        redline.build(str(model), **options)
    return file


def onnxruntime_of(file: Path) -> Callable[[Arrays], Arrays]:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, THREADS
    session = ort.InferenceSession(str(file), options)
    names = [item.name for item in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def openvino_of(file: Path) -> Callable[[Arrays], Arrays]:
    config = {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = ov.Core().compile_model(str(file), "CPU", config)
    request, names = compiled.create_infer_request(), [output.get_any_name() for output in compiled.outputs]
    run = lambda feed: request.infer(feed, share_inputs=True, share_outputs=True)  # noqa: E731
    return lambda feed: dict(zip(names, run(feed).to_tuple(), strict=True))


def cosine(run: Callable[[Arrays], Arrays], expected: list[Arrays], feeds: list[Arrays]) -> float:
    found = []
    for feed, wide in zip(feeds, expected, strict=True):
        answers = run(feed)
        for key, array in wide.items():
            a, b = (x.reshape(-1).astype(np.float64) for x in (np.array(answers[key]), array))
            found.append(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))
    return float(np.mean(found))


def calls_of(name: str, kinds: tuple[str, ...], opt_level: int) -> dict[str, Callable[[Arrays], Arrays]]:
    calls: dict[str, Callable[[Arrays], Arrays]] = {}
    for kind in kinds:
        engine: Engine = redline.load(engine_of(name, kind, opt_level), num_threads=THREADS)
        calls[f"redline {kind}"] = engine.context().run
    if "int8" in kinds:
        calls["onnxruntime"] = onnxruntime_of(int8_zoo.path(name, "qdq"))
        calls["openvino"] = openvino_of(int8_zoo.path(name, "openvino"))
    else:
        calls["onnxruntime"] = onnxruntime_of(int8_zoo.path(name, kinds[0]))
    return calls


def timed(calls: dict[str, Callable[[Arrays], Arrays]], feed: Arrays, options: argparse.Namespace) -> dict[str, Stats]:
    contestants = {key: (lambda run=run: run(feed)) for key, run in calls.items()}
    return alternate(contestants, seconds_per_block=options.seconds, blocks=options.blocks)


def own_table(options: argparse.Namespace) -> list[str]:
    """Redline's INT8 and BF16 builds against the peers' INT8."""
    keys = ("redline int8", "redline bf16", "onnxruntime", "openvino")
    heading = ("model", "Redline INT8", "Redline BF16", "ONNX Runtime INT8", "OpenVINO INT8", "ratio", "cosine of each INT8")
    lines = [f"| {' | '.join(heading)} |", "|---|---:|---:|---:|---:|---:|---|"]
    for name in options.models:
        calls, feeds = (
            calls_of(name, ("int8", "bf16"), options.opt_level),
            [zoo.inputs(name, seed=s) for s in range(options.tests)],
        )
        wide = onnxruntime_of(zoo.path(name))
        expected = [wide(feed) for feed in feeds]
        cosines = [cosine(calls[key], expected, feeds) for key in ("redline int8", "onnxruntime", "openvino")]
        stats = timed(calls, feeds[0], options)
        times = [stats[key].median_s * 1e3 for key in keys]
        cells = [*(f"{t:.2f}" for t in times), f"**{min(times[2:]) / times[0]:.3f}**", ", ".join(f"{c:.4f}" for c in cosines)]
        lines.append(f"| {zoo.MODELS[name].title} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def qdq_table(options: argparse.Namespace) -> list[str]:
    """Redline on the models that ONNX Runtime's quantizer has written."""
    lines = ["| model | form | Redline | ONNX Runtime | ratio | cosine with ONNX Runtime |", "|---|---|---:|---:|---:|---:|"]
    for name in OWN:
        for kind in ("qdq", "qoperator"):
            calls, feeds = calls_of(name, (kind,), options.opt_level), [zoo.inputs(name, seed=s) for s in range(options.tests)]
            same = cosine(calls[f"redline {kind}"], [calls["onnxruntime"](feed) for feed in feeds], feeds)
            stats = timed(calls, feeds[0], options)
            ours, theirs = (stats[key].median_s * 1e3 for key in (f"redline {kind}", "onnxruntime"))
            cells = (zoo.MODELS[name].title, kind, f"{ours:.2f}", f"{theirs:.2f}", f"**{theirs / ours:.3f}**", f"{same:.6f}")
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def main(options: argparse.Namespace) -> None:
    if options.build:
        for name in options.models:
            for precision in ("int8", "bf16"):
                print(engine_of(name, precision, options.opt_level), flush=True)
        for name in OWN:
            for kind in ("qdq", "qoperator"):
                print(engine_of(name, kind, options.opt_level), flush=True)
        return
    head = HEAD.format(
        command="python bench/int8_models.py", day=date.today(), machine=hardware.machine(), samples=int8_zoo.SAMPLES,
        versions=hardware.versions("onnxruntime", "openvino", "nncf", "ziglang"), **vars(options),
    )  # fmt: skip
    lines = [head, "## Quantized by each runtime's own tool", "", *own_table(options), ""]
    lines += ["## ONNX Runtime's quantized models", "", *qdq_table(options)]
    if options.output:
        Path(options.output).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(NAMES), choices=zoo.NAMES)
    parser.add_argument("--build", action="store_true", help="make what is missing, and stop")
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--tests", type=int, default=4)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--output", default=str(zoo.ROOT / "docs" / "int8-models.md"))
    main(parser.parse_args())
