"""What a report says of differential privacy: tiles and the table of claims, or that there is
none.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from privfl.dp import above
from privfl.report.tables import table

NONE = (
    "No epsilon is claimed, for samples or for clients: this run adds no noise that its ledger"
    " could charge, so no bound holds on what its models tell of anybody's data. What a channel"
    " hides from its server is no such bound: everybody who takes part has the models."
)
FIGURES = (
    "Both figures bound the same releases from above, and the smaller one is claimed: RDP adds up"
    " moments of the privacy loss and loses a little where they become an epsilon, PLD follows the"
    " whole distribution of the loss, and is left out where that is not known."
)
_LONG = 24
"""Characters beyond which a cell is a sentence."""


def spent(
    lines: Sequence[Mapping[str, Any]] | None, so_far: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Tiles: name and figure of each unit's epsilon, from the claims of a run that has ended, else
    from what its last round says by unit (an upper bound by RDP); or that there is no claim.
    """
    if lines is None:
        return [(f"epsilon by RDP, {unit}", above(value)) for unit, value in so_far.items()]
    if not lines:
        return [("epsilon", "no claim")]
    tiles = []
    for line in lines:
        secret = "" if line["as_drawn"] is None else ", with secret coins"
        tiles.append((f"epsilon, {line['unit']} level{secret}", _rough(line["epsilon"])))
        if secret:
            tiles.append((f"epsilon, {line['unit']} level, seed known", _rough(line["as_drawn"])))
    return tiles


def claims(
    lines: Sequence[Mapping[str, Any]] | None, audited: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What each unit has spent, by both accountants, and what an audit found of it; that nothing
    is claimed where the ledger is empty, and nothing at all of a run that has not ended.
    """
    if lines is None:
        return []
    if not lines:
        return [f"<h2>Privacy</h2><p>{NONE}</p>"]
    seen = {row["unit"]: row for row in audited}
    rows = []
    for line in lines:
        who = (
            line["subject"]
            if line["subjects"] == 1
            else f"{line['subject']}, the dearest of {line['subjects']}"
        )
        figures = [_epsilon(line[name]) for name in ("epsilon", "rdp", "pld")]
        figures.append("the same" if line["as_drawn"] is None else _epsilon(line["as_drawn"]))
        beside = [*([line["refused"]] if line["refused"] else []), *line["notes"]]
        cells = (
            line["unit"],
            who,
            *figures,
            _shown(seen.get(line["unit"])),
            f"{line['delta']:g}",
            line["relation"],
            str(line["releases"]),
            " ".join(beside),
        )
        rows.append("".join(_cell(text) for text in cells))
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "unit",
            "who pays",
            "epsilon",
            "by RDP",
            "by PLD",
            "where the seed is known",
            "by an audit",
            "delta",
            "neighbours",
            "releases",
            "",
        )
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    said = "".join(f"<p>{html.escape(line['claim'])}</p>" for line in lines)
    said += f"<p>{FIGURES}</p>"
    return [f"<h2>Privacy</h2>{said}{table(f'<tr>{head}</tr>{body}')}", *map(follows, lines)]


def of_classes(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What clients of each class have spent, where they are drawn at rates of their own."""
    if not classes:
        return []
    names = ("class", "clients", "rate", "epsilon", "where the seed is known", "")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for one in classes:
        seen = one["seed known"]
        cells = (
            one["class"],
            str(one["clients"]),
            f"{one['rate']:.4g}",
            _epsilon(one["epsilon"]),
            "the same" if seen is None else _epsilon(seen),
            one["refused"] or "",
        )
        rows.append("".join(_cell(text) for text in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    said = "Each class is drawn at a rate of its own, which is public, and spends as much."
    return [f"<h3>By class of clients</h3><p>{said}</p>{table(f'<tr>{head}</tr>{body}')}"]


def follows(line: Mapping[str, Any]) -> str:
    """What follows from a claim: what is left to attacks, what groups have, what would change
    it.
    """
    unit, risk = line["unit"], line["risk"]
    if risk is None:
        return ""
    rows = [
        (f"a test of membership, wrong about {rate} of those not there, finds at most", risk[name])
        for name, rate in (("tpr_at_001", "0.1 %"), ("tpr_at_01", "1 %"))
    ]
    rows.append(("its true positive rate exceeds its false one by at most", risk["advantage"]))
    guess = f"a secret that is guessed with chance {risk['prior']:g} is guessed afterwards with"
    rows.append((f"{guess} at most", risk["reconstruction"]))
    cells = [(what, f"{share:.2%}") for what, share in rows]
    cells += [
        (f"epsilon of {k} {unit}s together", _epsilon(value)) for k, value in line["groups"].items()
    ]
    cells += [
        (f"epsilon by RDP, {change['what']}", _epsilon(change["epsilon"]))
        for change in line["changes"]
    ]
    body = "".join(
        f"<tr><th>{html.escape(what)}</th><td>{value}</td></tr>" for what, value in cells
    )
    return f"<h2>What that means for one {unit}, and what would change it</h2>{table(body)}"


def _cell(text: str) -> str:
    """A cell; one of sentences is no narrower than can be read, and a word or number stays on its
    line.
    """
    kind = ' class="long"' if len(text) > _LONG else "" if " " in text else ' class="word"'
    return f"<td{kind}>{html.escape(text)}</td>"


def _shown(row: Mapping[str, Any] | None) -> str:
    """What an audit found of a claim: its verdict with what it would have seen, and beside that
    what a black box shows.
    """
    if row is None:
        return "not audited (privfl audit RUN --dp)"
    if row["verdict"] == "no claim":
        return str(row["verdict"])
    said = row["alarms"] or f"would have seen: {row['would have seen']}"
    words = f"{row['verdict']} at level {row['level']:g}: {said}."
    if row["at least"] is None:
        return words
    claimed = _epsilon(row["of a claim of"])
    return (
        f"{words} Canaries alone: epsilon at least {row['at least']:.3f} of {claimed}"
        f" ({row['confidence']:.0%})."
    )


def _epsilon(value: float | str | None) -> str:
    return "no claim" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def _rough(value: float | str | None) -> str:
    """Three digits, never fewer than the number says: as the statement below it."""
    return above(value) if isinstance(value, float) else _epsilon(value)
