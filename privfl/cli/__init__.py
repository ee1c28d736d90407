"""The command line: run, sweep, report, list, data, demo."""

from privfl.cli.app import main

__all__ = ["main"]
