"""What ``privfl list`` shows: every name, what it is, its keys, where it acts, its paper."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Sequence
from typing import Any

from privfl import attacks
from privfl.catalog.parts import fields_of, needs_of
from privfl.catalog.plugins import JoinedTable, PluggedTable
from privfl.catalog.tables import AGGREGATORS, SEAMS
from privfl.core import ConfigError, DefenceSeat


def describe(what: str) -> list[dict[str, Any]]:
    """One row for each name of a seam: what it is, its keys, and where it acts."""
    rows = []
    maker: Any
    for name in sorted(SEAMS[what]):
        row: dict[str, Any] = {"name": name, "from": origin(what, name)}
        try:
            maker = SEAMS[what][name]
        except ConfigError as broken:
            rows.append(row | {"is": str(broken)})
            continue
        if what == "aggregators":
            row["seat"] = seat_of(maker)
        if what == "channels":
            row |= {
                "opens": maker.kind.opens,
                "runs": ", ".join(
                    sorted(r for r in AGGREGATORS.usable() if AGGREGATORS[r] in maker.kind.runs)
                ),
            }
        if what == "data_seats":
            row["guarantee"] = f"none: broken by {', '.join(maker.broken_by)}"
        if what == "attacks":
            row |= {"family": attacks.family_of(maker), "seat": attacks.seats_of(maker)}
        if what in ("aggregators", "attacks", "data_seats"):
            row["paper"] = paper_of(maker)
        row["keys"] = ", ".join(key for key in fields_of(maker, _supplied(what, maker))[0])
        row["is"] = (inspect.getdoc(maker) or "").split("\n\n")[0].replace("\n", " ")
        rows.append(row)
    return rows


def origin(what: str, name: str) -> str:
    """Where a name of a seam comes from: privfl, or the package that brings it.

    >>> origin("aggregators", "krum")
    'privfl'
    """
    table = SEAMS[what]
    if isinstance(table, JoinedTable):
        table = table.table_of(name)
    return table.origin(name) if isinstance(table, PluggedTable) else "privfl"


def _supplied(what: str, maker: Any) -> Sequence[str]:
    """The arguments of a name that come from the program and not from the config."""
    if what in ("aggregators", "bounds"):
        return tuple(needs_of(maker))
    if what == "channels":
        return (maker.kind.rule_field,) if maker.kind.runs else ()
    return ("shape", "classes") if what == "models" else ()


def seat_of(maker: Any) -> str:
    """Where a defence acts: as the rule, before it, after it, at the client, or in several of
    these.
    """
    return "+".join(seat for seat in typing.get_args(DefenceSeat) if seat in maker.seats)


_PAPER = re.compile(
    r"((?:[A-Z][\w'’-]+(?:, | and |, and | et al\. |,? |-)?(?:(?:el|El|de|van)"
    r" )?)+)\(?((?:19|20)\d\d)"
)


def paper_of(maker: Any) -> str:
    """The first paper that the docstring of a class, or else of its module, names: authors and
    year.

    >>> from privfl import aggregators
    >>> paper_of(aggregators.TrimmedMean)
    'Yin et al. 2018'
    """
    for text in (inspect.getdoc(maker), inspect.getdoc(inspect.getmodule(maker))):
        found = _PAPER.search((text or "").replace("\n", " "))
        if found:
            return f"{found.group(1).strip(' ,')} {found.group(2)}"
    return ""
