"""torch.compile max-autotune, several models at once: python bench/gpu_peers.py --deadline 400 resnet50:1 mobilenetv2:128 ...

Each model compiles in a process of its own, all at the same time, for that takes minutes; when all are ready, or at the
deadline, those that are ready are timed one after the other, alone on the GPU. One line of JSON a model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from gpu_models import peer  # noqa: E402


def serve(name: str, batch: int, precision: str) -> None:
    """Compiles, says so, waits for a line on stdin, times."""

    def meanwhile() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    milliseconds = peer(name, batch, precision, True, meanwhile)
    print(json.dumps({"model": name, "batch": batch, "torch_compile_ms": round(milliseconds, 4)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--deadline", type=float, default=400, help="seconds")
    parser.add_argument("--after", type=Path, help="time nothing before this file is there")
    parser.add_argument("--serve", action="store_true", help="what the processes are started with")
    args = parser.parse_args()
    if args.serve:
        name, _, batch = args.models[0].partition(":")
        serve(name, int(batch or 1), args.precision)
        return
    started = time.monotonic()
    command = [sys.executable, __file__, "--serve", "--precision", args.precision]
    logs = {model: tempfile.TemporaryFile() for model in args.models}  # noqa: SIM115 (open as long as the processes)
    processes = {
        model: subprocess.Popen([*command, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        for model, log in logs.items()
    }
    waiting = dict(processes)
    for process in processes.values():
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
    while waiting and time.monotonic() - started < args.deadline:
        time.sleep(0.5)
        for model, process in list(waiting.items()):
            assert process.stdout
            if b"ready" in (process.stdout.read() or b"") or process.poll() is not None:
                print(f"{model}: {time.monotonic() - started:.0f} s", flush=True)
                del waiting[model]
    for model in waiting:
        print(f"{model}: not compiled in {args.deadline:.0f} s", flush=True)
        processes[model].kill()
    while args.after and not args.after.exists():
        time.sleep(0.5)
    for model in [m for m in args.models if m not in waiting]:
        answer, _ = processes[model].communicate(b"go\n")
        logs[model].seek(0)
        print(answer.decode().strip() or f"{model}: failed, {logs[model].read()[-600:].decode(errors='replace')}", flush=True)


if __name__ == "__main__":
    main()
