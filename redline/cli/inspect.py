"""The verb ``inspect``: prints what engine_facts.py or model_facts.py say of a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from redline.base.errors import RedlineError
from redline.cli import console, extras
from redline.cli.engine_facts import describe_engine
from redline.cli.options import Json
from redline.engine.layout import MAGIC

File = Annotated[Path, typer.Argument(metavar="FILE", help="An engine or an ONNX model.", show_default=False)]


def command(file: File, json: Json = False) -> None:
    """Shows what is in an engine or an ONNX model; runs nothing of it.

    Of an engine: inputs and outputs, what it was made for, every kernel with the nodes of the model it stands for, the
    memory plan. Of a model: inputs and outputs, opsets, operators by count, parameters.
    """
    is_engine = _starts_with_magic(file)
    facts = describe_engine(file) if is_engine else extras.load("redline.cli.model_facts", "inspect").describe_model(file)
    if json:
        console.print_json(facts)
        return
    _print_tensors(facts)
    (_print_engine if is_engine else _print_model)(facts)


def _starts_with_magic(file: Path) -> bool:
    if not file.is_file():
        raise RedlineError(str(file), "there is no such file")
    with open(file, "rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def _print_tensors(facts: dict[str, Any]) -> None:
    console.out().print(f"{facts['file']}: {console.num_bytes(facts['num_bytes'])}")
    rows = [
        (kind, t["name"], t["dtype"], "x".join(map(str, t["shape"])) or "scalar")
        for kind in ("input", "output")
        for t in facts[f"{kind}s"]
    ]
    console.table("", ("", "name", "dtype", "shape"), rows, numbers_from=4)


def _print_model(facts: dict[str, Any]) -> None:
    out = console.out()
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    out.print(f"opset {opsets}; IR version {facts['ir_version']}; producer {facts['producer'] or 'not named'}")
    size = console.num_bytes(facts["parameter_bytes"])
    out.print(f"{facts['num_nodes']} nodes; {console.count(facts['num_parameters'])} parameters, {size}")
    console.table("", ("operator", "count"), facts["operators"].items())


def _print_engine(facts: dict[str, Any]) -> None:
    out, stamp, memory = console.out(), facts["stamp"], facts["memory"]
    needs = " ".join(stamp["features"]) or "nothing beyond its architecture"
    out.print(f"made for {stamp['target']} and {facts['num_threads']} threads by {stamp['builder']} with {stamp['toolchain']}")
    out.print(f"needs a processor with: {needs}")
    out.print("parts: " + ", ".join(f"{name} {console.num_bytes(size)}" for name, size in facts["parts"].items()))
    if facts["plans"]:
        headings = ("plan", "takes", "where", "kernels", "reads of the weights", "arena")
        console.table("plans", headings, [_plan_row(plan) for plan in facts["plans"]], numbers_from=3)
    console.table(
        f"kernels of {facts['plans'][0]['name']}" if facts["plans"] else "kernels",
        ("step", "family", "writes", "chunks", "time", "schedule", "nodes of the model"),
        [_kernel_row(kernel) for kernel in facts["kernels"]],
        numbers_from=7,
    )
    out.print(
        f"memory: arena {console.num_bytes(memory['arena_bytes'])}"
        f" ({console.num_bytes(memory['arena_bytes_without_sharing'])} without sharing),"
        f" scratch {console.num_bytes(memory['scratch_bytes_per_thread'])} a thread"
    )
    rows = [(t["name"], t["offset"], t["num_bytes"], f"{t['first_step']}..{t['last_step']}") for t in memory["arena"]]
    console.table("arena", ("tensor", "offset", "bytes", "steps"), rows)


def _plan_row(plan: dict[str, Any]) -> tuple[object, ...]:
    takes = ", ".join(f"{name} {text}" for name, text in plan["takes"].items())
    ranges = ", ".join(f"{name} {text}" for name, text in plan["ranges"].items())
    sizes = (console.num_bytes(plan["weight_bytes"]), console.num_bytes(plan["memory"]["arena_bytes"]))
    return plan["name"], takes, ranges, len(plan["kernels"]), *sizes


def _kernel_row(kernel: dict[str, Any]) -> tuple[object, ...]:
    time = "" if kernel["seconds"] is None else console.seconds(kernel["seconds"])
    nodes, writes = ", ".join(kernel["nodes"]), " ".join(kernel["writes"])
    return kernel["step"], kernel["family"], writes, kernel["num_chunks"], time, kernel["schedule"], nodes
