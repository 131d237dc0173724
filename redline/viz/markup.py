"""HTML and SVG as text: every value that comes from outside is escaped here, and nowhere else."""

from collections.abc import Iterable, Sequence
from html import escape

Markup = str


def text(value: object) -> Markup:
    """Any value as text of a page."""
    return escape(str(value), quote=False)


def tag(name: str, *children: Markup, **attributes: object) -> Markup:
    """An element. ``children`` are markup already; attributes are escaped, ``class_`` is class and ``_`` becomes ``-``."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"' for key, value in attributes.items())
    return f"<{name}{given}>{''.join(children)}</{name}>"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], words: int = 1) -> Markup:
    """A table; its first ``words`` columns are flush left, the others are numbers. Cells are text."""
    kinds = ["word" if column < words else "number" for column in range(len(headings))]
    head = tag("tr", *(tag("th", text(h), class_=kind) for h, kind in zip(headings, kinds, strict=True)))
    body = (tag("tr", *(tag("td", text(c), class_=kind) for c, kind in zip(row, kinds, strict=True))) for row in rows)
    return tag("table", tag("thead", head), tag("tbody", *body))


def svg(width: float, height: float, *children: Markup, label: str) -> Markup:
    """A picture that scales with the page; ``label`` is what a screen reader says of it."""
    return tag(
        "svg", *children, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label
    )  # fmt: skip
