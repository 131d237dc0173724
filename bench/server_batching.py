"""Open-loop load on one model with dynamic batching and without, and how busy its cores are at the limit.

    python bench/server_batching.py --engines FOLDER --model NAME --p99-ms 100

FOLDER holds NAME/1/model.b1.engine, model.b2.engine, ... Two servers run, which differ in their configuration only. For each
the largest rate under the p99 limit is searched; then both are measured in turns at five rates around the smaller limit, and
each at its own. "holds": whether a run of three kept the p99. "busy": the part of the time during which the engine ran.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from redline.base import cpu
from redline.server import load_client

CONFIGS = {"batching": "[batching]\n", "no batching": ""}
FRACTIONS = (0.5, 0.7, 0.85, 0.95, 1.05)


def start(root):
    ports = ["--http-port", "0", "--grpc-port", "-1", "--metrics-port", "-1"]
    command = [sys.executable, "-m", "redline", "serve", str(root), *ports]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    return process, "http://" + line.split("http ")[1].split(",")[0].strip()


async def compute_seconds(target):
    stats = (await load_client.fetch(target.host, target.port, f"/v2/models/{target.model}/stats"))["model_stats"][0]
    return sum(batch["compute_infer"]["ns"] for batch in stats["batch_stats"]) / 1e9


async def once(url, model, rate, seconds, seed):
    """A run, and the part of its time during which the engine ran."""
    target = await load_client.make_target(url, model, {}, 1, 0)
    before = await compute_seconds(target)
    run = await load_client.open_loop(target, rate, max(seconds, load_client.MIN_REQUESTS / rate), seed, warmup_s=0.5)
    return run, (await compute_seconds(target) - before) / (run.seconds + 0.5)


def at_rate(urls, model, rates, p99_s, seconds):
    """For each server the best of up to three runs at its rate; those that have not held theirs yet take turns."""
    best, left = {}, list(urls)
    for seed in range(load_client.TRIES):
        for name in left:
            found = asyncio.run(once(urls[name], model, rates[name], seconds, seed))
            if name not in best or found[0].percentile_s(99) < best[name][0].percentile_s(99):
                best[name] = found
        left = [name for name in left if best[name][0].percentile_s(99) > p99_s]
    return best


async def limit(url, model, p99_s, seconds):
    target = await load_client.make_target(url, model, {}, 1, 0)
    return (await load_client.find_limit(target, p99_s, seconds, start=50.0, steps=5))[-1].asked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--p99-ms", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", default="")
    options = parser.parse_args()
    sizes = [int(p.name.split(".")[1][1:]) for p in (options.engines / options.model / "1").glob("model.b*.engine")]
    servers = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for name, config in CONFIGS.items():
                root = Path(scratch) / name.replace(" ", "_")
                shutil.copytree(options.engines / options.model, root / options.model)
                (root / options.model / "redline.toml").write_text(f"max_batch_size = {max(sizes)}\n{config}")
                servers[name] = start(root)
            limits = {
                name: asyncio.run(limit(url, options.model, options.p99_ms / 1e3, options.seconds))
                for name, (_, url) in servers.items()
            }
            rows = []
            for rates in [dict.fromkeys(servers, f * min(limits.values())) for f in FRACTIONS] + [limits]:
                urls = {name: url for name, (_, url) in servers.items()}
                best = at_rate(urls, options.model, rates, options.p99_ms / 1e3, options.seconds)
                for name, (run, busy) in best.items():
                    rows.append({
                        "server": name, "rate": run.asked, "answers": run.rate, "p50_ms": run.percentile_s(50) * 1e3,
                        "p99_ms": run.percentile_s(99) * 1e3, "mean_batch": run.mean_batch, "busy": busy,
                        "holds": run.percentile_s(99) * 1e3 <= options.p99_ms and not run.num_errors,
                    })  # fmt: skip
        finally:
            for process, _ in servers.values():
                process.terminate()
                process.wait()
    hardware = f"{cpu.model_name()}, {cpu.allowed_cores()} cores shared with the client"
    print(hardware, "largest rate under p99", options.p99_ms, "ms:", limits)
    for row in rows:
        print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if options.output:
        Path(options.output).write_text(json.dumps({"hardware": hardware, "limits": limits, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
