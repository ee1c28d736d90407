"""``privfl list``: what there is, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from privfl import catalog, config
from privfl.cli import compatible, rooms
from privfl.cli.screen import table
from privfl.core import ConfigError, unknown
from privfl.report import guarantees

GUARANTEES, KEYS = "guarantees", "keys"
Rows = Sequence[Mapping[str, Any]]
Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]


def _rules() -> Rows:
    return [row for row in catalog.describe("aggregators") if "rule" in row.get("seat", "")]


def _defences() -> Rows:
    return [row for row in catalog.describe("aggregators") if row.get("seat") != "rule"]


def _inference() -> Rows:
    return [row for row in catalog.describe("attacks") if row["name"] in catalog.INFERENCE]


ALSO: Mapping[str, tuple[str, Callable[[], Rows]]] = {
    "rules": ("Aggregators that can be named in aggregator", _rules),
    "defences": ("What can be named in defences: it acts beside the aggregator", _defences),
    "inference": ("Attacks that only look: privfl audit plays them", _inference),
    "gossip": ("What the keys of a gossip config take (docs/gossip.md)", rooms.gossip),
    "vertical": ("What the keys of a vertical config take (docs/vertical.md)", rooms.vertical),
    "ways": ("Ways to train and to ask beside privfl run", rooms.ways),
}
"""Parts of a list that people ask for by a name of their own, and what is beside the seams."""


def show(
    what: Annotated[
        str | None,
        typer.Argument(
            help=f"One of: {', '.join((*catalog.SEAMS, *ALSO, GUARANTEES, KEYS))}; with --compat a"
            " rule or a channel."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="One part alone, as in list keys csv, or list aggregators krum."),
    ] = None,
    compat: Annotated[
        bool,
        typer.Option(
            "--compat", help="Which rule works over which channel, and why not; WHAT picks one."
        ),
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="All of it, or all guarantees, as a page of Markdown.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what can be named in a config, its keys, and what channels promise."""
    if name is not None:
        _one(what or "", name, compat or page, as_json)
        return
    if compat:
        _compat(what, as_json)
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
        print(catalog.page() + rooms.page(), end="")  # noqa: T201
        return
    if what is None:
        rows = [
            {"what": seam, "names": ", ".join(sorted(described))}
            for seam, described in catalog.SEAMS.items()
        ]
        for room in ("gossip", "vertical"):
            names = ", ".join(row["name"] for row in rooms.named_in(room))
            rows.append({"what": room, "names": names})
        rows.append({"what": "ways", "names": ", ".join(row["what"] for row in rooms.ways())})
        table("What there is (privfl list WHAT for more)", rows, as_json)
        return
    if what in ALSO:
        title, chosen = ALSO[what]
        table(title, chosen(), as_json)
        return
    if what not in catalog.SEAMS:
        raise ConfigError(unknown("list", what, (*catalog.SEAMS, *ALSO, GUARANTEES, KEYS)))
    described = catalog.describe(what)
    if what == "channels":
        described = [{**row, **guarantees.short(row["name"])} for row in described]
    table(what, described, as_json)


def _one(what: str, name: str, other: bool, as_json: bool) -> None:
    """What is said of one part: of ``keys``, of each part of that name, in whatever list."""
    if other or (what != KEYS and what not in catalog.SEAMS):
        with_parts = ", ".join((KEYS, *catalog.SEAMS))
        raise ConfigError(
            f"'{name}' is one word too many: a part's name goes with one of {with_parts}, as in"
            " privfl list keys csv, and with no --compat or --page."
        )
    lists = tuple(catalog.SEAMS) if what == KEYS else (what,)
    there = {one: catalog.describe(one) for one in lists}
    rows = [
        {"list": one, **row} for one, rows in there.items() for row in rows if row["name"] == name
    ]
    if not rows:
        known = {row["name"] for rows in there.values() for row in rows}
        raise ConfigError(unknown("part", name, known))
    wanted = ("list", "name", "keys", "is")
    shown = [{key: row[key] for key in wanted} for row in rows] if what == KEYS else rows
    table(f"{what}: {name}", shown, as_json)


def _compat(name: str | None, as_json: bool) -> None:
    """The pairs of rules and channels, or those of one of them."""
    pairs = catalog.compatibility()
    if name is None and not as_json:
        print(compatible.page(pairs))  # noqa: T201
        return
    if name is not None:
        known = sorted({row[side] for row in pairs for side in ("rule", "channel")})
        if name not in known:
            raise ConfigError(unknown("rule or channel", name, known))
        pairs = [row for row in pairs if name in (row["rule"], row["channel"])]
    said = {channel: guarantees.short(channel) for channel in catalog.CHANNELS.usable()}
    if as_json:
        table("", [{**row, **said[row["channel"]]} for row in pairs], as_json)
        return
    shown = [
        {
            ("channel" if row["rule"] == name else "rule"): row[
                "channel" if row["rule"] == name else "rule"
            ],
            "works": "yes" if row["verdict"] == "works" else "no",
            "why": row["because"],
            "hybrids for it": row["through"],
        }
        for row in pairs
    ]
    table(f"Where {name} works", shown, as_json)
