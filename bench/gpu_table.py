"""Markdown tables from what gpu_all.sh wrote: models beside their peers, and a roofline of each kernel of a model.

    python bench/gpu_table.py rows.jsonl --copy 2.98 --product 728 [--kernels resnet50:128 bert_base:32]

``--copy`` (TB/s) and ``--product`` (TFLOP/s) are the ceilings that ``gpu_models.py --ceilings`` measured.
"""

import argparse
import json
from pathlib import Path


def read(path: Path) -> dict[tuple[str, int], dict]:
    rows = [row for line in path.read_text().splitlines() if line for row in json.loads(line)]
    return {(row["model"], row["batch"]): row for row in rows if "ms" in row}


def models(rows: dict[tuple[str, int], dict]) -> None:
    print("| model | batch | ms | torch eager in a CUDA graph, ms | times faster | relative L2 error | launches | build, s |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, batch), row in rows.items():
        error = max(row["error"].values())
        peer = row.get("torch_graph_ms")  # in 16 bits only
        beside = (f"{peer:.3f}", f"{peer / row['ms']:.2f}") if peer else ("", "")
        cells = (name, batch, f"{row['ms']:.3f}", *beside, f"{error:.1e}")
        print("|", " | ".join(map(str, (*cells, row["launches"], row["build_s"]))), "|")


def kernels(row: dict, copy: float, product: float, shown: int = 12) -> None:
    merged: dict[tuple, list[float]] = {}
    for family, reads, write, schedule, us, flops, num_bytes in row["kernels"]:
        found = merged.setdefault((family, str(reads[0]), str(write), str(schedule), flops, num_bytes), [0, 0.0])
        found[0] += 1
        found[1] += us
    print("| kernel | times | us each | TFLOP/s | TB/s | of its ceiling | lost in all, us |")
    print("|---|---|---|---|---|---|---|")
    lines = []
    for (family, read, write, _schedule, flops, num_bytes), (count, total) in merged.items():
        each = total / count
        floor = max(flops / product, num_bytes / copy) / 1e6
        rates = f"{flops / each / 1e6:.0f} | {num_bytes / each / 1e6:.2f} | {100 * floor / each:.0f} %"
        lost = count * (each - floor)
        lines.append((lost, f"| {family} {read} -> {write} | {count:.0f} | {each:.1f} | {rates} | {lost:.0f} |"))
    for _, line in sorted(lines, reverse=True)[:shown]:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--copy", type=float, required=True)
    parser.add_argument("--product", type=float, required=True)
    parser.add_argument("--kernels", nargs="*", default=[])
    args = parser.parse_args()
    rows = read(args.rows)
    models(rows)
    for item in args.kernels:
        name, _, batch = item.partition(":")
        row = rows[name, int(batch)]
        print(f"\n{name}, batch {batch}: {row['ms']:.3f} ms, its kernels alone {row['sum_of_kernels_ms']:.3f}\n")
        kernels(row, args.copy, args.product)


if __name__ == "__main__":
    main()
