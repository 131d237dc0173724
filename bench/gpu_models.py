"""CUDA engines of the zoo's models on the GPU at hand: right (against ONNX Runtime in float32) and how fast.

    python bench/gpu_models.py --out DIR resnet50:1 resnet50:128 bert_base:1 ... [--precision fp16] [--opt 3] [--peers]

Times are medians of replays of one CUDA graph with inputs and outputs on the device, by CUDA events. Inputs are fresh random
ones each time; arena and outputs are poisoned before each checked run. The models are the committed skeletons with their
weights filled again, so nothing needs to be downloaded; the peers are PyTorch's modules in 16 bits (torch_peers.py).
"""

import argparse
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import zoo  # noqa: E402

from redline.builder import quantization  # noqa: E402
from redline.builder.cuda import build_cuda  # noqa: E402
from redline.runtime.cuda.driver import Driver  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402

REPLAYS = 60
_SPEC = importlib.util.spec_from_file_location("zoo_skeletons", ROOT / "tests" / "skeletons.py")
skeletons = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(skeletons)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def reference(model: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def fresh(name: str, batch: int, seed: int) -> dict[str, np.ndarray]:
    if name == "minilm":
        rng = np.random.default_rng(seed)
        ids = rng.integers(1000, 30522, (batch, 32))
        mask = (np.arange(32) < rng.integers(8, 33, (batch, 1))).astype(np.int64)
        return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return zoo.inputs(name, batch, seed)


def replay_seconds(engine, context, replays: int = REPLAYS) -> tuple[float, float]:
    """Seconds of one inference on the device, and of the call that starts it on the host."""
    loaded, driver = engine._open(), engine._open().driver
    graph = context.prepare(context.device_inputs(), context.device_outputs())
    with loaded.current():
        begin, end = driver.event(), driver.event()
        for _ in range(10):
            context.replay(graph)
        driver.wait(context.stream)
        times, host = [], []
        for _ in range(replays):
            driver.record(begin, context.stream)
            started = time.perf_counter()
            context.replay(graph)
            host.append(time.perf_counter() - started)
            driver.record(end, context.stream)
            times.append(driver.seconds(begin, end))
    return float(np.median(times)), float(np.median(host))


def calibration(name: str, model: bytes, args) -> dict:
    """For int8: the ranges of six random inputs, kept in a file."""
    if args.precision not in quantization.PRECISIONS:
        return {}
    path = Path(args.ranges or args.out) / f"ranges_{name}.json"
    if not path.exists():
        feeds = [zoo.inputs(name, 1, 20_000 + i) for i in range(6)]
        quantization.calibrate(model, feeds, path, shapes=zoo.shapes(name, 1))
    return {"calibration_cache": path}


def one(name: str, batch: int, args) -> dict:
    row: dict = {"model": name, "batch": batch, "precision": args.precision, "gpu": Driver().name(0)}
    path = Path(args.out) / "engines" / f"{name}_{batch}_{args.precision}.engine"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = skeletons.load(name).SerializeToString()
    started = time.perf_counter()
    cache = Path(args.out) / f"timings_{args.precision}.json"
    build_cuda(
        model, output=path, shapes=zoo.shapes(name, batch), precision=args.precision, opt_level=args.opt, timing_cache=cache,
        target="cuda", **calibration(name, model, args),
    )  # fmt: skip
    row["build_s"] = round(time.perf_counter() - started, 1)
    started = time.perf_counter()
    engine = load(path)
    row["load_s"] = round(time.perf_counter() - started, 2)
    context = engine.context()
    inputs = fresh(name, batch, int(time.time()) % 100000)
    started = time.perf_counter()
    context.run(inputs)
    row["first_run_s"] = round(time.perf_counter() - started, 2)
    if batch <= args.check_up_to:
        context.poison()
        found = context.run(inputs)
        expected = reference(model, inputs)
        names = [port.name for port in engine.outputs]
        row["error"] = {n: round(relative(found[n], e), 7) for n, e in zip(names, expected, strict=True)}
        again = context.run(inputs)
        row["repeatable"] = all(np.array_equal(found[n], again[n]) for n in names)
    if args.replays:
        seconds, host = replay_seconds(engine, context, args.replays)
        row["ms"], row["host_us"] = round(1e3 * seconds, 4), round(1e6 * host, 1)
    row["launches"] = engine.report.get("launches")
    if args.top:
        profile(engine, context, inputs, args.top, row)
    context.close()
    engine.close()
    return row


def profile(engine, context, inputs, top: int, row: dict) -> None:
    seconds = np.median(context.profile(inputs, 3), axis=0)
    row["sum_of_kernels_ms"] = round(1e3 * float(seconds.sum()), 4)
    kernels = engine.header.kernels
    families: dict[str, float] = {}
    for kernel, each in zip(kernels, seconds, strict=True):
        families[kernel.family] = families.get(kernel.family, 0.0) + each
    print("  by family (us):", {k: round(1e6 * float(v), 1) for k, v in sorted(families.items(), key=lambda p: -p[1])})
    merged: dict[tuple, list] = {}
    for kernel, each in zip(kernels, seconds, strict=True):
        reads = [tuple(a.shape) for a in kernel.reads[:2]]
        key = (kernel.family, str(reads), tuple(kernel.writes[0].shape), kernel.schedule)
        merged.setdefault(key, [0, 0.0, kernel.flops, kernel.num_bytes])
        merged[key][0] += 1
        merged[key][1] += each
    for key, (count, total, flops, num_bytes) in sorted(merged.items(), key=lambda p: -p[1][1])[:top]:
        each = total / count
        rates = f"{flops / each / 1e12:6.1f} TF {num_bytes / each / 1e9:6.0f} GB/s"
        print(f"  {1e6 * total:8.1f} us = {count:2} x {1e6 * each:7.1f}  {rates}  {key[0]} {key[1]} -> {key[2]} {key[3]}")
    row["kernels"] = [_facts(kernel, float(each)) for kernel, each in zip(kernels, seconds, strict=True)]


def ceilings() -> dict[str, float]:
    """TB/s of a copy (read plus written) and TFLOP/s of a large bfloat16 product, by PyTorch on random data."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(1 << 30, device="cuda", dtype=torch.float32)
    target = torch.empty_like(source)
    found = {}
    for name, work, amount in (
        ("copy_tb_s", lambda: target.copy_(source), 8 * source.numel() / 1e12),
        ("product_tflop_s", lambda: a @ b, 2 * 8192**3 / 1e12),
    ):
        times = []
        for _ in range(12):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        found[name] = round(amount / float(np.median(times[3:])), 2)
    return found


def _facts(k, seconds: float) -> list:
    shapes = [list(a.shape) for a in k.reads[:2]], list(k.writes[0].shape)
    return [k.family, *shapes, k.schedule, round(1e6 * seconds, 2), k.flops, k.num_bytes]


def peer(name: str, batch: int, precision: str, compiled: bool, meanwhile=lambda: None) -> float:
    """Milliseconds of PyTorch: eager captured in a CUDA graph, or torch.compile max-autotune.

    ``meanwhile`` is called between compiling and timing.
    """
    import torch
    import torch_peers

    torch.backends.cudnn.benchmark = True
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    model, inputs = torch_peers.make(name, batch, dtype)
    if compiled:
        model = torch.compile(model, mode="max-autotune")
    with torch.inference_mode():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(4):
                model(*inputs)
        torch.cuda.synchronize()
        if compiled:
            run = lambda: model(*inputs)  # noqa: E731
        else:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                model(*inputs)
            run = graph.replay
        meanwhile()
        times = []
        for _ in range(REPLAYS):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
    return float(np.median(times[10:]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", default="/tmp/gpu_models")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--opt", type=int, default=3)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--replays", type=int, default=REPLAYS)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--check-up-to", type=int, default=4)
    parser.add_argument("--ceilings", action="store_true")
    parser.add_argument("--ranges", help="a folder of ranges_MODEL.json for --precision int8")
    args = parser.parse_args()
    if args.ceilings:
        print(json.dumps(ceilings()), flush=True)
    rows = []
    for item in args.models:
        name, _, batch = item.partition(":")
        started = time.perf_counter()
        try:
            row = one(name, int(batch or 1), args)
        except Exception:
            row = {"model": name, "batch": batch, "failed": traceback.format_exc()[-1800:]}
        rows.append(row)
        keep(rows, args)  # before the peers, which may take longer than there is time
        if args.peers:
            for compiled in (False, True) if args.compiled else (False,):
                try:
                    row["torch_compile_ms" if compiled else "torch_graph_ms"] = round(
                        peer(name, int(batch or 1), args.precision, compiled), 4
                    )
                except Exception:
                    row["peer_failed"] = traceback.format_exc()[-600:]
                keep(rows, args)
        row["whole_s"] = round(time.perf_counter() - started, 1)
        shown = {k: v for k, v in row.items() if k not in ("kernels", "failed")}
        print(json.dumps(shown), flush=True)
        if "failed" in row:
            print(row["failed"], flush=True)
        keep(rows, args)


def keep(rows: list[dict], args) -> None:
    (Path(args.out) / f"rows_{args.precision}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
