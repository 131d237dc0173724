"""The report on one engine: how fast it is and beside whom, where the time goes, what the machine would allow, and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redline.base.ceilings import Ceilings
from redline.engine import Header
from redline.viz.arena import arena
from redline.viz.markup import Markup, svg, table, tag, text
from redline.viz.page import Section, page
from redline.viz.roofline import roofline
from redline.viz.steps import kind_table, timeline
from redline.viz.work import kinds

PALETTE = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#edc948", "#9c755f", "#ff9da7", "#8a8f98")
BAR, GAP, NAMES, WORDS = 26.0, 10.0, 320.0, 270.0
WIDTH = 1200.0
ALONE = "Each step waits for the one before it, so together they take a little more than a call."


@dataclass(frozen=True)
class Contestant:
    """The calls of one runtime: median and 99th percentile in seconds."""

    name: str
    median_s: float
    p99_s: float


@dataclass(frozen=True)
class Measured:
    """What was measured. ``steps_s``: of each kernel of ``header``; the engine itself is the first contestant."""

    title: str
    hardware: str
    header: Header
    steps_s: Sequence[float]
    contestants: Sequence[Contestant]
    ceilings: Ceilings | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def report(measured: Measured) -> str:
    """The page as text of HTML."""
    header = measured.header
    families = list(dict.fromkeys(kernel.family for kernel in header.kernels))
    colours = {family: PALETTE[number % len(PALETTE)] for number, family in enumerate(families)}
    found = kinds(header.kernels, measured.steps_s, measured.ceilings)
    whole = sum(measured.steps_s)
    steps = timeline(header.kernels, measured.steps_s, colours)
    sections = [
        Section("Latency", ["Medians; the mark is the 99th percentile."], _bars(measured.contestants)),
        Section("One call, step by step", [ALONE], _key(colours) + steps),
        *_roofline_section(measured, colours),
        Section("Kernels", _kernel_sentences(measured), kind_table(found, whole)),
        Section("Memory", [_memory_sentence(header)], arena(header, PALETTE)),
        *_gate_section(header.report),
    ]
    stamp = (
        f"Made for {header.stamp.target} and {header.num_threads} threads by {header.stamp.builder}, {header.stamp.toolchain}."
    )
    return page(measured.title, [measured.hardware, stamp, *measured.notes], sections)


def _bars(contestants: Sequence[Contestant]) -> Markup:
    own, most = contestants[0].median_s, max(contestant.p99_s for contestant in contestants) or 1.0
    drawn: list[Markup] = []
    for row, each in enumerate(contestants):
        y, scale = row * (BAR + GAP), (WIDTH - NAMES - WORDS) / most
        said = f"{each.median_s * 1e3:.3f} ms" + (f", {each.median_s / own:.2f} times the engine's" if row and own else "")
        drawn += [
            tag("text", text(each.name), x=NAMES - 10, y=y + BAR * 0.7, text_anchor="end"),
            tag("rect", x=NAMES, y=y, width=each.median_s * scale, height=BAR, fill=PALETTE[min(row, 1)]),
            tag("line", x1=NAMES + each.p99_s * scale, x2=NAMES + each.p99_s * scale, y1=y, y2=y + BAR, class_="roof"),
            tag("text", text(said), x=NAMES + each.p99_s * scale + 8, y=y + BAR * 0.7),
        ]
    return svg(WIDTH, len(contestants) * (BAR + GAP), *drawn, label="latency of each runtime")


def _key(colours: Mapping[str, str]) -> Markup:
    names = (tag("span", tag("i", style=f"background:{colour}"), text(family)) for family, colour in colours.items())
    return tag("p", *names, class_="key")


def _roofline_section(measured: Measured, colours: Mapping[str, str]) -> list[Section]:
    if measured.ceilings is None:
        return []
    said = "Kernels of one kind together; a disc's area is its share of the time. Lines: what this machine can do."
    found = kinds(measured.header.kernels, measured.steps_s, measured.ceilings)
    return [Section("Roofline", [said], roofline(found, measured.ceilings, colours))]


def _kernel_sentences(measured: Measured) -> list[str]:
    total = sum(measured.steps_s)
    flops = sum(kernel.flops for kernel in measured.header.kernels)
    said = f"{len(measured.header.kernels)} steps, {total * 1e3:.3f} ms, {flops / 1e9:.2f} GFLOP"
    if total:
        said += f", {flops / total / 1e9:.1f} GFLOP/s"
    if measured.ceilings is None:
        return [said + "."]
    limit = "A kernel's limit is its arithmetic at the peak of its types, or its bytes: weights from memory, others from cache."
    return [said + ".", limit]


def _memory_sentence(header: Header) -> str:
    apart = sum(tensor.num_bytes for tensor in header.tensors if tensor.space == "arena")
    return f"Steps to the right, bytes upward: {header.arena_bytes} bytes shared by tensors of {apart}."


def _gate_section(facts: Mapping[str, object]) -> list[Section]:
    """The layers that were weighed for lower precision, where a build did that."""
    layers = facts.get("layers")
    if not isinstance(layers, list) or not layers:
        return []
    columns = list(layers[0])
    rows = [[_cell(layer.get(column)) for column in columns] for layer in layers]
    return [Section("Precision, layer by layer", [], table(columns, rows, words=2))]


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
