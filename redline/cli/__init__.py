"""The command line: one file per verb, each a thin skin over a Python call."""

from redline.cli.app import main

__all__ = ["main"]
