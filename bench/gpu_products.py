"""The crews of every large product of ViT-B/16 and BERT-base at batch 32, timed alone: python bench/gpu_products.py

One line a schedule: microseconds with weights from memory, the rest warm. The best Triton schedule known is printed beside.
"""

import argparse
import json
from pathlib import Path

from redline.base.dtypes import float16, float32
from redline.codegen.triton.compile import Request, compile_cubins
from redline.kernels.crew import Crew
from redline.kernels.expr import Acc, Load, call, cast, index
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuTarget
from redline.kernels.matmul import problem as matmul
from redline.kernels.matmul import triton
from redline.kernels.problem import Operand
from redline.runtime.cuda.driver import Driver
from redline.tune.cuda import Timer

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ROOT / "bench" / "gpu_timings" / "sm_90-h200-fp16.json"
dense = Operand.contiguous


def problem(tokens: int, n: int, k: int, kind: str) -> matmul.Problem:
    a, out = dense(float16, (32, tokens, k)), dense(float16, (32, tokens, n))
    b = Operand(float16, (32, k, n), (0, n, 1), True)
    extra = [dense(float32, (n,))]
    value = call("add", Acc(float32), Load(float32, 2, (index(2),)))
    if kind == "gelu":
        value = call("gelu", value)
    if kind == "residual":
        extra.append(out)
        value = call("add", value, cast(Load(float16, 3, (index(0), index(1), index(2))), float32))
    return matmul.Problem(a, b, out, cast(value, float16), tuple(extra))


def known_best(p: matmul.Problem) -> Schedule | None:
    """Of the kernel with these sizes in the recorded timings, the fastest schedule."""
    entries = json.loads(KNOWN.read_text())["entries"]
    marks = (f"shape={p.a.shape}", f"shape={p.out.shape}")
    found = [times for key, times in entries.items() if key.startswith("matmul") and all(m in key for m in marks)]
    times = {t: text for each in found for text, t in each.items() if text.startswith("Schedule(")}
    return eval(times[min(times)], {"Schedule": Schedule}) if times else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=20)
    parser.add_argument("--tokens", type=int, nargs="*", default=[197, 128])
    args = parser.parse_args()
    target, driver = GpuTarget(), Driver()
    timer = Timer(driver, 0, True)
    for tokens in args.tokens:
        for n, k, kind in ((3072, 768, "gelu"), (768, 3072, "residual"), (2304, 768, ""), (768, 768, "residual")):
            p = problem(tokens, n, k, kind)
            best = known_best(p)
            chosen = triton.crew.candidates(triton.size_of(p), target)[: args.most] + ([best] if best else [])
            codes = [triton.render(p, s, target) for s in chosen]
            cubins = compile_cubins([Request.of(c, [True] * (len(p.reads) + 1), target) for c in codes])
            print(f"{32 * tokens} x {n} x {k} {kind}", flush=True)
            for s, code, cubin in zip(chosen, codes, cubins, strict=True):
                if isinstance(cubin, str):
                    print("   ", s, cubin[:200])
                    continue
                seconds = timer.seconds(code, cubin, p)
                cost = f"{triton.crew.cost(triton.size_of(p), s, target) / 1755:.1f} guessed" if isinstance(s, Crew) else ""
                print(f"  {1e6 * seconds:7.1f} us {p.flops / seconds / 1e12:5.0f} TFLOP/s {cost} {s}", flush=True)
    timer.close()


if __name__ == "__main__":
    main()
