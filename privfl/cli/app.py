"""The commands, and what they share: one clear sentence on an error, exit code 2 for a config that
cannot be.
"""

from __future__ import annotations

import sys

import typer

from privfl.cli import auditing, data, demo, listing, running
from privfl.cli.screen import complain
from privfl.core import ConfigError, PrivflError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated learning with privacy layers.",
)
app.command("run")(running.run)
app.command("sweep")(running.sweep)
app.command("audit")(auditing.audit)
app.command("report")(running.report)
app.command("list")(listing.show)
app.add_typer(data.app, name="data")
app.command("demo")(demo.demo)


def main() -> None:
    """The entry point of the ``privfl`` command."""
    try:
        app()
    except PrivflError as error:
        complain(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
