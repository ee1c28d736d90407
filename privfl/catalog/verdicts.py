"""Which rule works over which channel, read off what both declare."""

from __future__ import annotations

from collections.abc import Mapping

from privfl.catalog.tables import AGGREGATORS, CHANNELS
from privfl.engine.compatibility import readable

MARKS: Mapping[str, str] = {
    "+": "works",
    "g": "works on the means of groups",
    "s": "works: the channel's servers run it on data that neither reads",
    ".": "does not: the rule reads single updates, and the channel shows its server only their sum",
    ":": "does not: the rule must know whose row is whose, and the channel's rows are anonymous",
    "x": "does not: the channel's servers cannot run it on hidden data",
}
"""One letter for how a rule and a channel go together, and what it means."""


def compatibility() -> list[dict[str, str]]:
    """For every rule and channel: whether they work together, through which hybrid, or why not;
    read off what they declare.
    """
    return [
        verdict(rule, channel)
        for rule in sorted(AGGREGATORS.usable())
        for channel in sorted(CHANNELS.usable())
    ]


def _from(rule: str, channel: str) -> str:
    """The packages that bring what privfl does not."""
    brought = [(rule, AGGREGATORS.origin(rule)), (channel, CHANNELS.origin(channel))]
    return ", ".join(f"{name} from {where}" for name, where in brought if where != "privfl")


def works(rule: str, channel: str) -> bool:
    """Whether a rule works over a channel, by their names: it reads what the channel opens, or the
    channel's servers run it.
    """
    maker, described = AGGREGATORS[rule], CHANNELS[channel]
    kind = described.kind
    if kind.runs:
        return maker in kind.runs
    return readable(maker.reads, maker.needs_ids, kind)


def hybrids_for(rule: str) -> list[str]:
    """The hybrids under which a rule works although nobody reads an update."""
    return [name for name in CHANNELS.usable() if _hybrid(name) and works(rule, name)]


def _hybrid(channel: str) -> bool:
    kind = CHANNELS[channel].kind
    return bool(kind.runs) or kind.groups


def verdict(rule: str, channel: str) -> dict[str, str]:
    """One row of the compatibility table."""
    maker, kind = AGGREGATORS[rule], CHANNELS[channel].kind
    row = {"rule": rule, "channel": channel, "verdict": "works", "through": "", "because": ""}
    row |= {"from": _from(rule, channel), "mark": "+"}
    if works(rule, channel):
        if maker in kind.runs:
            row["mark"] = "s"
            row["because"] = f"the servers of {channel} run it on data that neither reads"
        elif kind.groups:
            row["mark"] = "g"
            row["because"] = "it reads the means of groups"
        return row
    if kind.runs:
        row["mark"] = "x"
        row["because"] = f"the servers of {channel} cannot run {rule} on hidden data"
    elif kind.opens == "total":
        row["mark"] = "."
        row["because"] = (
            f"{rule} reads individual updates; {channel} shows the server only their sum"
        )
    else:
        row["mark"] = ":"
        row["because"] = (
            f"{rule} needs to know whose row is whose, and the rows of {channel} are anonymous"
        )
    through = hybrids_for(rule)
    if through:
        return row | {"verdict": "through", "through": ", ".join(through)}
    if maker.needs_ids and kind.opens == "total":
        row["because"] = (
            f"{rule} follows single clients by name; {channel} shows the server only their sum"
        )
    return row | {"verdict": "impossible"}
