"""One call as a row of steps, as wide as they are long, and the table of its kinds of kernels."""

from collections.abc import Mapping, Sequence

from redline.engine import KernelRecord
from redline.viz.markup import Markup, svg, table, tag, text
from redline.viz.work import Kind

WIDTH, HEIGHT, ROWS = 1200.0, 46.0, 4
HEADINGS = ["family", "nodes", "shapes", "count", "us each", "share", "GFLOP/s", "GB/s", "of its limit", "loss, us"]
NODES = 6  # that are named where there are more


def timeline(records: Sequence[KernelRecord], seconds: Sequence[float], colours: Mapping[str, str]) -> Markup:
    """The steps in order, in a few rows of equal duration; hovering over one tells what it is."""
    total = sum(seconds) or 1.0
    span, at, boxes = total / ROWS, 0.0, []
    for step, (record, taken) in enumerate(zip(records, seconds, strict=True)):
        label = tag("title", text(f"step {step}: {record.family}, {taken * 1e6:.1f} us\n{nodes(record)}\n{record.schedule}"))
        begin, end = at, at + taken
        while begin < end - 1e-12:
            row = min(ROWS - 1, int(begin / span + 1e-9))
            stop = min(end, (row + 1) * span) if row < ROWS - 1 else end
            place = {"x": WIDTH * (begin - row * span) / span, "y": row * (HEIGHT + 8), "height": HEIGHT}
            boxes.append(tag("rect", label, **place, width=WIDTH * (stop - begin) / span, fill=colours[record.family]))
            begin = stop
        at = end
    return svg(WIDTH, ROWS * (HEIGHT + 8), *boxes, label="the steps of one call in order")


def kind_table(kinds: Sequence[Kind], whole_s: float) -> Markup:
    """Time, rates and share of the limit of every kind."""
    headings = [
        "family",
        "nodes",
        "reads and writes",
        "count",
        "us each",
        "share",
        "GFLOP/s",
        "GB/s",
        "of its limit",
        "loss, us",
    ]
    return table(headings, [_row(kind, whole_s) for kind in kinds], words=3)


def _row(kind: Kind, whole_s: float) -> list[object]:
    record, each = kind.record, kind.seconds / kind.count
    shapes = " ".join("x".join(map(str, a.shape)) or "scalar" for a in (*record.reads[:2], *record.writes[:1]))
    rates = [f"{record.flops / each / 1e9:.1f}", f"{record.num_bytes / each / 1e9:.1f}"] if each > 0 else ["", ""]
    limits = [f"{kind.limit_s / kind.seconds:.0%}", f"{kind.loss_s * 1e6:.0f}"] if kind.limit_s and kind.seconds else ["", ""]
    share = f"{kind.seconds / whole_s:.1%}" if whole_s else ""
    return [record.family, nodes(record), shapes, kind.count, f"{each * 1e6:.1f}", share, *rates, *limits]


def nodes(record: KernelRecord) -> str:
    """The model's nodes in a kernel, the first few by name."""
    named = ", ".join(record.nodes[:NODES])
    return named if len(record.nodes) <= NODES else f"{named} and {len(record.nodes) - NODES} more"
