"""One model of the zoo against the clock: Redline and its peers in turns, on the same inputs, shapes and threads.

Runs in a process of its own, so that no other model's threads or memory are about, and prints one JSON object.

    python bench/contest.py resnet50 --threads 2
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np
import zoo

import redline
from redline.base.errors import RedlineError
from redline.cli.comparison import compare
from redline.cli.peers import open_peer
from redline.cli.timing import alternate

PEERS = ("onnxruntime:fp32", "openvino:fp32")


def engine_file(name: str, batch: int, threads: int, precision: str) -> Path:
    """Where ``build`` leaves the engine."""
    return zoo.FOLDER / f"{name}-b{batch}-t{threads}-{precision}.engine"


def build(name: str, batch: int, threads: int, precision: str, opt_level: int) -> Path:
    """The engine of ``name``, built now; the timing cache makes a repeated build quick."""
    file = engine_file(name, batch, threads, precision)
    options = {"precision": precision, "opt_level": opt_level, "num_threads": threads}
    redline.build(zoo.path(name), shapes=zoo.shapes(name, batch), output=file, **options)
    return file


def contest(options: argparse.Namespace) -> dict[str, object]:
    """Times, largest relative error against ONNX Runtime in FP32, memory; or the sentence that says why there is no engine."""
    name, shapes = options.model, zoo.shapes(options.model, options.batch)
    feed = zoo.inputs(name, options.batch)
    peers = {}
    for text in options.peers:
        peer, _, precision = text.partition(":")
        if peer != "torch":
            peers[text] = open_peer(peer, zoo.path(name), shapes, options.threads, precision or "fp32")
        elif name != "digits":
            peers[text] = import_module("peer_torch").open_model(name, shapes, options.threads, precision or "fp32")
    calls = {text: (lambda peer=peer: peer.run(feed)) for text, peer in peers.items()}
    found: dict[str, object] = {"titles": {text: peer.title for text, peer in peers.items()}}
    try:
        file = build(name, options.batch, options.threads, options.precision, options.opt_level)
    except RedlineError as error:
        found["refused"] = str(error)
    else:
        engine = redline.load(file, num_threads=options.threads)
        context = engine.context()
        calls = {"redline": lambda: context.run(feed), **calls}
        expected = open_peer("onnxruntime", zoo.path(name), shapes, options.threads).run(feed)
        copied = {key: np.array(value) for key, value in expected.items()}
        found["relative_l2"] = max(verdict.relative_l2 for verdict in compare(copied, engine.run(feed)))
        found["kernels"] = len(engine.header.kernels)
        found["memory"] = memory(file)
    stats = alternate(calls, seconds_per_block=options.seconds, blocks=options.blocks)
    return found | {"stats": {key: asdict(value) for key, value in stats.items()}}


def memory(engine: Path) -> dict[str, int]:
    command = [sys.executable, str(zoo.ROOT / "bench" / "memory.py"), str(engine)]
    measured: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options that a contest shares with the table of many."""
    parser.add_argument("--precision", default="fp32", help="precision that Redline builds for")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help="runtime:precision")
    return parser


if __name__ == "__main__":
    parsed = arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parsed.add_argument("model", choices=zoo.NAMES)
    parsed.add_argument("--threads", type=int, default=2)
    print(json.dumps(contest(parsed.parse_args())))
