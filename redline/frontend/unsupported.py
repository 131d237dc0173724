"""What a model holds that Redline does not build: collected over the whole model, told in one error."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from redline.base.errors import UnsupportedError

MAX_NAMED = 3


@dataclass(frozen=True)
class Unsupported:
    """One ONNX node that cannot be built, why, and what its user can do."""

    node: str
    op: str
    domain: str
    reason: str
    remedy: str


def error_of(items: Sequence[Unsupported]) -> UnsupportedError:
    """One error for all of them, equal causes counted together."""
    causes: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for item in items:
        causes[item.domain, item.op, item.reason, item.remedy].append(item.node)
    lines = [_line(*cause, nodes) for cause, nodes in sorted(causes.items(), key=lambda c: -len(c[1]))]
    seen = f"{len(items)} node{'s' if len(items) != 1 else ''} cannot be built:"
    return UnsupportedError("model", "\n  ".join([seen, *lines]))


def _line(domain: str, op: str, reason: str, remedy: str, nodes: list[str]) -> str:
    named = ", ".join(nodes[:MAX_NAMED]) + (f" and {len(nodes) - MAX_NAMED} more" if len(nodes) > MAX_NAMED else "")
    kind = f"{domain}.{op}" if domain else op
    return f"{len(nodes)} x {kind} ({named}): {reason}" + (f"; {remedy}" if remedy else "")
