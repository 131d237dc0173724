"""The verb ``compare``: ``compare_engine`` holds an engine's answers against a witness's, output by output."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.text import Text

from redline.base.errors import InputError
from redline.cli import arrays, comparison, console, options, witness
from redline.cli.comparison import Verdict
from redline.cli.layers import compare_layers, first_wrong
from redline.cli.witness import Witness
from redline.engine import IO, without_steps
from redline.runtime import AnyEngine, load

Reference = Annotated[bool, typer.Option("--reference", help="Compare with the numpy interpreter instead of ONNX Runtime.")]
Layers = Annotated[bool, typer.Option("--layers", help="Walk the layers in order and name the first that goes wrong.")]
Samples = Annotated[int, typer.Option(min=1, help="How many sets of random inputs to try.")]


def command(
    model: options.Model,
    engine: options.EngineFile,
    inputs: options.Inputs = None,
    samples: Samples = 1,
    shapes: options.CallShapes = None,
    seed: options.Seed = 0,
    reference: Reference = False,
    layers: Layers = False,
) -> None:
    """Compares an engine's answers with those of ONNX Runtime on the model it was built from.

    Inputs that are not given are random. Every output is held to the tolerance of its data type, in norm and in its
    worst element. Of an engine for several shapes every plan is run, at its largest shape, unless --shapes or an input says
    which. Exits with 1 when an output differs by more.
    """
    loaded = load(engine)
    chosen = arrays.inputs_of(loaded.header, shapes)
    against = _witness(model, chosen, reference)
    given = arrays.read_inputs(inputs, against.inputs)
    if layers:
        _print_layers(model, loaded, {**given, **arrays.fill(chosen, given, seed)})
        return
    plans = [("", chosen)] if shapes or given else [(p.name, p.inputs) for p in without_steps(loaded.header)]
    failed = total = 0
    for name, ios in plans:
        verdicts = compare_engine(loaded, _witness(model, ios, reference), given, ios, samples=samples, seed=seed)
        for verdict in verdicts:
            console.out().print(_line(verdict, name))
        failed, total = failed + sum(not verdict.passed for verdict in verdicts), total + len(verdicts)
    plural = "s" if samples > 1 else ""
    console.out().print(f"{failed} of {total} outputs differ from {against.name}, {samples} sample{plural}")
    if failed:
        raise typer.Exit(1)


def _print_layers(model: Path, engine: AnyEngine, feed: Mapping[str, np.ndarray]) -> None:
    """The table of layers; exits with 1 where one goes wrong, which is named."""
    verdicts = compare_layers(model, engine, feed)
    rows = [(v.node, v.kernel, v.dtype, f"{v.snr_db:.1f} dB", f"{v.cosine:.5f}", f"{v.worst:.2e}") for v in verdicts]
    console.table("", ("layer", "kernel", "type", "SNR", "cosine", "worst element"), rows)
    wrong = first_wrong(verdicts)
    if wrong is not None:
        console.out().print(f"the first layer that goes wrong: {wrong.node} (SNR {wrong.snr_db:.1f} dB)")
        raise typer.Exit(1)
    console.out().print(f"none of {len(verdicts)} layers goes wrong")


def compare_engine(
    engine: AnyEngine, against: Witness, given: Mapping[str, np.ndarray], inputs: Sequence[IO], *, samples: int = 1,
    seed: int = 0,
) -> list[Verdict]:  # fmt: skip
    """The worst verdict of each output over ``samples`` sets of ``inputs``: ``given``, and random arrays for the others.

    Raises InputError when the model takes an input that neither the engine nor ``given`` has.
    """
    wanted = {io.name for io in inputs}
    for name in against.inputs:
        if name not in wanted and name not in given:
            seen = f"the model takes {name!r}, which the engine has frozen"
            raise InputError("--input", seen, "", f"give what it was frozen to: --input {name}=FILE.npy or a number")
    worst: dict[str, Verdict] = {}
    for sample in range(samples):
        feed = arrays.fill(inputs, given, seed + sample)
        everything = {**given, **feed}
        expected = against.run({name: everything[name] for name in against.inputs})
        for verdict in comparison.compare(expected, engine.run(feed)):
            worst[verdict.output] = comparison.worse(worst.get(verdict.output, verdict), verdict)
    return list(worst.values())


def _witness(model: Path, inputs: Sequence[IO], reference: bool) -> Witness:
    if reference:
        return witness.interpreter(model, {io.name: io.shape for io in inputs})
    return witness.onnx_runtime(model)


def _line(verdict: Verdict, plan: str) -> Text:
    where_from = f"{plan}: " if plan else ""
    word = ("same  ", "green") if verdict.passed else ("DIFFER", "bold red")
    where = f"[{', '.join(map(str, verdict.worst_index))}]"
    numbers = (
        f"  {where_from}{verdict.output}: relative L2 error {verdict.relative_l2:.2e}, largest error {verdict.max_abs:.3g}"
        f" at {where} (expected {verdict.expected:.6g}, found {verdict.actual:.6g})"
    )
    reason = f"; {verdict.difference}" if verdict.difference else ""
    return Text.assemble(word, numbers, reason)
