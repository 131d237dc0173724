"""What an engine costs the host: getting ready, one asynchronous call, and whether memory stays flat over many runs.

    python bench/gpu_host.py model.engine [--runs 10000]

Run it in a process of its own: it also says whether torch or triton was imported.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from redline.runtime.cuda.driver import Driver  # noqa: E402
from redline.runtime.cuda.engine import load  # noqa: E402


def random(port, rng: np.random.Generator) -> np.ndarray:
    if port.dtype.kind == "f":
        return rng.standard_normal(port.shape).astype(port.dtype)
    return rng.integers(0, 2, port.shape).astype(port.dtype)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("--runs", type=int, default=10000)
    args = parser.parse_args()
    driver, rng = Driver(), np.random.default_rng(int(time.time()))
    driver.retain(0)
    started = time.perf_counter()
    engine = load(args.engine)
    context = engine.context()
    inputs, outputs = context.device_inputs(), context.device_outputs()
    context.launch(inputs, outputs)
    context.wait()
    ready = time.perf_counter() - started
    times = []
    for number in range(2000):
        started = time.perf_counter()
        context.launch(inputs, outputs)
        times.append(time.perf_counter() - started)
        if number % 20 == 19:
            context.wait()
    given = [{port.name: random(port, rng) for port in engine.inputs} for _ in range(16)]
    context.run(given[0])
    driver.push(driver.retain(0))
    before = driver.api.cuMemGetInfo()[1]
    started = time.perf_counter()
    for number in range(args.runs):
        context.run(given[number % 16])
    whole = (time.perf_counter() - started) / max(1, args.runs)
    after = driver.api.cuMemGetInfo()[1]
    found = {
        "engine": Path(args.engine).name, "ready_s": round(ready, 3), "host_us": round(1e6 * float(np.median(times)), 1),
        "host_us_p99": round(1e6 * float(np.quantile(times, 0.99)), 1), "runs": args.runs,
        "run_with_copies_us": round(1e6 * whole, 1), "lost_bytes": before - after,
        "imported": sorted({"torch", "triton", "onnx"} & set(sys.modules)),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
