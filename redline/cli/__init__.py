"""The command line: one file per verb, each a thin skin over a Python call."""

from redline.cli.app import app, main

__all__ = ["app", "main"]
