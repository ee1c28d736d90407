"""``privfl list``: what there is, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from privfl import catalog
from privfl.cli.screen import table
from privfl.core import ConfigError, unknown

Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]


def show(
    what: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(catalog.SEAMS)}.")] = None,
    compat: Annotated[
        bool, typer.Option("--compat", help="Which rule works over which channel, and why not.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what can be named in a config."""
    if compat:
        table("Rules over channels", catalog.compatibility(), as_json)
        return
    if what is None:
        rows = [
            {"what": seam, "names": ", ".join(sorted(described))}
            for seam, described in catalog.SEAMS.items()
        ]
        table("What there is (privfl list WHAT for more)", rows, as_json)
        return
    if what not in catalog.SEAMS:
        raise ConfigError(unknown("list", what, catalog.SEAMS))
    table(what, catalog.describe(what), as_json)
