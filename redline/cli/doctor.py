"""The verb ``doctor``: prints what diagnosis.py finds."""

import typer
from rich.text import Text

from redline.cli import console
from redline.cli.diagnosis import Finding, diagnose, system


def command() -> None:
    """Says whether this machine can build and run engines, and which command repairs what is missing.

    Exits with 1 when something that a build needs fails.
    """
    console.out().print(system())
    findings = diagnose()
    for finding in findings:
        console.out().print(_line(finding))
    if any(finding.required and not finding.ok for finding in findings):
        raise typer.Exit(1)


def _line(finding: Finding) -> Text:
    word, style = ("ok", "green") if finding.ok else ("FAIL", "bold red") if finding.required else ("note", "yellow")
    remedy = f"; repair: {finding.remedy}" if finding.remedy else ""
    return Text.assemble((f"{word:<5}", style), f"{finding.name:<14}{finding.detail}{remedy}")
