"""One HTML page, with everything in it: no script, no font and no picture comes from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.viz.markup import Markup, tag, text

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #d5d9de; --mark: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #15181c; --faint: #3a4048; --mark: #ff6b6b; } }
body { max-width: 1240px; margin: 2rem auto; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid var(--faint); }
p { margin: .4rem 0; } svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--faint); } .roof { stroke: var(--mark); stroke-width: 1.5; } circle { fill-opacity: .65; }
rect { stroke: var(--paper); stroke-width: .6; } rect:hover, circle:hover { stroke: var(--ink); stroke-width: 2; }
table { border-collapse: collapse; font-size: 13px; width: 100%; } th, td { padding: .15rem .5rem; vertical-align: top; }
th { border-bottom: 1px solid var(--ink); text-align: left; } .number { text-align: right; white-space: nowrap; }
td.word { overflow-wrap: anywhere; } tr:nth-child(even) td { background: color-mix(in srgb, var(--faint) 30%, transparent); }
.key span { display: inline-block; margin-right: 1.2em; } .key i { display: inline-block; width: .8em; height: .8em;
  margin-right: .35em; border-radius: 2px; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, sentences below it, and what they speak of."""

    heading: str
    sentences: Sequence[str]
    body: Markup


def page(title: str, sentences: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page; ``sentences`` stand below the title."""
    head = tag("head", '<meta charset="utf-8">', tag("title", text(title)), tag("style", STYLE))
    parts = [tag("h1", text(title)), *_paragraphs(sentences)]
    for section in sections:
        parts.append(tag("section", tag("h2", text(section.heading)), *_paragraphs(section.sentences), section.body))
    return "<!doctype html>\n" + tag("html", head, tag("body", *parts), lang="en") + "\n"


def _paragraphs(sentences: Sequence[str]) -> list[Markup]:
    return [tag("p", text(sentence)) for sentence in sentences]
