"""Weight-only INT8 and INT4 against the clock, one row: four products of 4096 x 4096 in a chain, which no cache holds.

Redline in FP32, BF16, w8 and w4, and ONNX Runtime's MatMulNBits on the same 8- and 4-bit weights, in turns. GB/s count codes,
scales and zero points (FP32 and BF16: weights) once a call.

    python bench/int8_weights.py --build      makes the engines, without timing
    python bench/int8_weights.py              writes docs/int8-weights.md
"""

import argparse
from datetime import date
from pathlib import Path

import hardware
import numpy as np
import onnx
import onnxruntime as ort
import zoo
from int8_files import FOLDER
from onnx import TensorProto, helper, numpy_helper

import redline
from redline.cli.timing import alternate
from redline.quant.weights import BLOCKS, quantized

SIZE, LAYERS, THREADS = 4096, 4, 2
PRECISIONS = ("fp32", "bf16", "w8", "w4")
HEAD = """# Weight-only INT8 and INT4, one row

Written by `python bench/int8_weights.py` on {day}; run it to measure your own machine.

- Machine: {machine}
- Versions: {versions}
- {layers} products of 1 x {size} by {size} x {size} in a chain, two threads, in turns; medians. The error is that of the result
  relative to float64, |y - y'| / |y|, on normally distributed weights.

| what | ms | GB/s of weights | error |
|---|---:|---:|---:|
"""


def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((SIZE, SIZE), np.float32) / SIZE**0.5 for _ in range(LAYERS)]


def model(bits: int) -> onnx.ModelProto:
    """The chain with MatMulNBits, or with float weights for 0 bits."""
    nodes, constants = [], {}
    for i, w in enumerate(weights()):
        x, y = (f"h{i}" if i else "x"), (f"h{i + 1}" if i < LAYERS - 1 else "y")
        if not bits:
            constants[f"w{i}"] = w
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [y]))
            continue
        found = quantized(w, bits, BLOCKS[bits])
        names = [f"{kind}{i}" for kind in "bsz"]
        constants |= dict(zip(names, found.packed(), strict=True))
        attrs = {"K": SIZE, "N": SIZE, "bits": bits, "block_size": found.block}
        nodes.append(helper.make_node("MatMulNBits", [x, *names], [y], domain="com.microsoft", **attrs))
    port = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, SIZE))  # noqa: E731
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "chain", [port("x")], [port("y")], held)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def bytes_of(precision: str) -> float:
    """Bytes that one weight takes."""
    if precision in ("fp32", "bf16"):
        return 4 if precision == "fp32" else 2
    bits = int(precision[1:])
    return bits / 8 + (4 if bits == 8 else 8) / BLOCKS[bits]


def build() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for precision in PRECISIONS:
        file = FOLDER / f"chain-{precision}.engine"
        if not file.exists():
            redline.build(model(0), precision=precision, num_threads=THREADS, output=file)
    for bits in (8, 4):
        file = FOLDER / f"chain-w{bits}.onnx"
        if not file.exists():
            onnx.save(model(bits), str(file))


def main(options: argparse.Namespace) -> None:
    build()
    if options.build:
        return
    feed = {"x": np.random.default_rng(1).standard_normal((1, SIZE), np.float32)}
    calls = {}
    for precision in PRECISIONS:
        context = redline.load(FOLDER / f"chain-{precision}.engine", num_threads=THREADS).context()
        calls[f"Redline {precision}"] = lambda run=context.run: run(feed)["y"]
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = THREADS
    for bits in (8, 4):
        session = ort.InferenceSession(str(FOLDER / f"chain-w{bits}.onnx"), settings)
        calls[f"ONNX Runtime w{bits}"] = lambda session=session: session.run(None, feed)[0]
    exact = feed["x"].astype(np.float64)
    for w in weights():
        exact = exact @ w
    errors = {name: float(np.linalg.norm(run() - exact) / np.linalg.norm(exact)) for name, run in calls.items()}
    rows = []
    for name, stats in alternate(calls, seconds_per_block=0.5, blocks=4).items():
        rate = bytes_of(name.split()[-1]) * SIZE * SIZE * LAYERS / stats.median_s / 1e9
        rows.append(f"| {name} | {stats.median_s * 1e3:.2f} | {rate:.1f} | {errors[name]:.1e} |")
        print(rows[-1], flush=True)
    head = HEAD.format(
        day=date.today(), machine=hardware.machine(), versions=hardware.versions("onnxruntime", "ziglang"), size=SIZE,
        layers=LAYERS,
    )  # fmt: skip
    if options.output:
        Path(options.output).write_text(head + "\n".join(rows) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", action="store_true", help="make what is missing, and stop")
    parser.add_argument("--output", default=str(zoo.ROOT / "docs" / "int8-weights.md"))
    main(parser.parse_args())
