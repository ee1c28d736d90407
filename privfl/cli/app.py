"""The commands, and what they share: one clear sentence on an error, exit code 2 for a config or a
model that cannot be.

A command's module, and torch with it, is imported when the command runs: until then this file knows
its name and what it is for.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, TextIO

import typer

from privfl.cli.remembered import remembered
from privfl.cli.screen import complain, say
from privfl.version import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": (
        "running:run",
        "Train federatedly as a config says; leaves a run folder with a report.",
    ),
    "gossip": (
        "gossiping:gossip",
        "Train without a server: every node of a graph trains, meets its neighbours, and moves.",
    ),
    "sweep": (
        "sweeping:sweep",
        "Run a config for every combination of some keys' values, and print one row for each.",
    ),
    "compare": ("comparing:compare", "Show runs beside each other, and in what they differ."),
    "audit": (
        "auditing:audit",
        "Attack a run through every adversary's view, under each of its layers; prints the"
        " report card, and writes a page and audit.json.",
    ),
    "deal": (
        "dealing:deal",
        "Deal ahead, as the dealer of a config: a file for each server, so that the dealer need not"
        " be online.",
    ),
    "inspect": (
        "inspecting:inspect",
        "Look for a backdoor in a run's model; writes inspect.json and a page, inspect.html.",
    ),
    "verify": (
        "verifying:verify_run",
        "Check a run folder against its hash-chained transcript, and print its head for"
        " publishing.",
    ),
    "infer": (
        "inferring:infer",
        "Ask a run's model about encrypted samples, and compare with its answers in the clear.",
    ),
    "vertical": (
        "vertical:vertical",
        "Train a network split between parties with different columns; attack it as each could.",
    ),
    "report": ("running:report", "Draw the report of a run again."),
    "list": (
        "listing:show",
        "Show what can be named in a config, its keys, and what channels promise.",
    ),
    "data": ("data:app", "Data sets: what is here, and how to get the rest."),
    "native": (
        "native:native",
        "Compiled kernels: whether they are there, and what uses them; --build makes them.",
    ),
    "net": ("network:app", "The same runs over a network, over Flower with TLS."),
    "demo": (
        "demo:demo",
        "Train 20 clients on real digits under each privacy layer, all honest and with Byzantine"
        " clients; needs no download, and leaves the page of one of these runs.",
    ),
}
"""Where each command is, under ``privfl.cli``, and what it is for."""


def _version(wanted: bool) -> bool:
    if wanted:
        print(f"privfl {__version__}")  # noqa: T201
        raise typer.Exit
    return wanted


def made(words: Sequence[str]) -> typer.Typer:
    """The commands, the one that these words name with all that it needs imported."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Federated learning with privacy layers.",
    )
    app.callback()(_options)
    named = next((word for word in words if not word.startswith("-")), "")
    for name, (where, purpose) in COMMANDS.items():
        if name != named:
            app.command(name, help=purpose)(_stub)
            continue
        module, _, attribute = where.partition(":")
        real = vars(importlib.import_module(f"privfl.cli.{module}"))[attribute]
        if isinstance(real, typer.Typer):
            app.add_typer(real, name=name)
        else:
            app.command(name)(real)
    return app


def _stub() -> None:
    """A command's place in the help."""


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Federated learning with privacy layers."""


def words_to_complete() -> list[str]:
    """The words that a shell asks to complete: bash says them in one variable, zsh, fish and
    PowerShell in another.
    """
    said = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return said.split()[1:]


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a command says things: whose file and line it is helps nobody who typed one."""
    say(f"privfl: {message}")


def main() -> None:
    """The entry point of the ``privfl`` command."""
    words = sys.argv[1:] or words_to_complete()
    try:
        with warnings.catch_warnings(), remembered(sys.argv[1:]) as known:
            warnings.showwarning = _warn
            if not known:
                made(words)()
    except Exception as error:
        from privfl.core import ConfigError, PrivflError, UnsupportedModel

        if not isinstance(error, PrivflError):
            raise
        complain(error)
        sys.exit(2 if isinstance(error, ConfigError | UnsupportedModel) else 1)
