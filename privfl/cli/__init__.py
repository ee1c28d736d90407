"""The command line: ``privfl --help`` names its commands."""

from privfl.cli.app import main

__all__ = ["main"]
