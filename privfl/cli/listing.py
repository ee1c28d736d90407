"""``privfl list``: what there is, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from privfl import catalog, config
from privfl.cli import compatible
from privfl.cli.screen import table
from privfl.core import ConfigError, unknown
from privfl.report import guarantees

GUARANTEES, KEYS = "guarantees", "keys"
Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]


def show(
    what: Annotated[
        str | None, typer.Argument(help=f"One of: {', '.join((*catalog.SEAMS, GUARANTEES, KEYS))}.")
    ] = None,
    compat: Annotated[
        bool, typer.Option("--compat", help="Which rule works over which channel, and why not.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="All of it, or all guarantees, as a page of Markdown.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what can be named in a config, its keys, and what channels promise."""
    if compat:
        if not as_json:
            print(compatible.page(catalog.compatibility()))  # noqa: T201
            return
        said = {name: guarantees.short(name) for name in catalog.CHANNELS.usable()}
        rows = [{**row, **said[row["channel"]]} for row in catalog.compatibility()]
        table("Rules over channels", rows, as_json)
        return
    if what == GUARANTEES:
        if page:
            print(guarantees.page(), end="")  # noqa: T201
        else:
            table("Who reads, and what one liar can do", guarantees.channel_rows(), as_json)
        return
    if what == KEYS:
        table("Keys of a config; each may be left out", config.every_key(), as_json)
        return
    if what is None and page:
        print(catalog.page(), end="")  # noqa: T201
        return
    if what is None:
        rows = [
            {"what": seam, "names": ", ".join(sorted(described))}
            for seam, described in catalog.SEAMS.items()
        ]
        table("What there is (privfl list WHAT for more)", rows, as_json)
        return
    if what not in catalog.SEAMS:
        raise ConfigError(unknown("list", what, (*catalog.SEAMS, GUARANTEES, KEYS)))
    described = catalog.describe(what)
    if what == "channels":
        described = [{**row, **guarantees.short(row["name"])} for row in described]
    table(what, described, as_json)
