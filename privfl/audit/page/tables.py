"""The details of an audit: every finding once, adversaries with equal eyes on one row."""

from __future__ import annotations

import html
from collections.abc import Sequence

from privfl.audit.assets import ASSETS, asset_of
from privfl.audit.equal_eyes import EqualEyes, merged
from privfl.audit.findings import AuditReport

_HEADS = ("adversaries", "attack", "figure", "measured in", "blind", "control", "more")
READ = (
    "Figures stand with their 95 % intervals in brackets. Blind is what somebody gets who saw"
    " nothing; the control is the same score against a truth that was dealt out at random. A row is"
    " coloured where its own figure is above what is blind; the card above corrects for being the"
    " worst of many. Adversaries with equal eyes are told the same and share a row."
)


def details(report: AuditReport) -> str:
    """A closed table for each layer and asset."""
    parts = []
    for layer in report.layers:
        for asset in ASSETS:
            asked = [
                one for one in report.findings if one.layer == layer and asset_of(one) == asset
            ]
            if asked:
                parts.append(_table(report, f"{layer}: {asset}", merged(asked)))
    return "".join(parts)


def _table(report: AuditReport, title: str, rows: Sequence[EqualEyes]) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEADS)
    body = "".join(_row(report, row) for row in rows)
    leaks = sum(row.finding.verdict == "leaks" for row in rows)
    count = f"{len(rows)} different finding{'s' * (len(rows) > 1)}, {leaks} above blind"
    return (
        f"<details><summary>{html.escape(title)} <span class=soft>{count}</span></summary>"
        f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>'
    )


def _row(report: AuditReport, row: EqualEyes) -> str:
    finding = row.finding
    threats = dict.fromkeys(
        str(threat)
        for threat in (report.threat_of(finding, who) for who in row.adversaries)
        if threat is not None
    )
    who = f"{', '.join(row.adversaries)} ({'; '.join(threats)})" if threats else ""
    value = "" if finding.value is None else str(finding.value)
    if finding.value is None:
        said = finding.undone or finding.theorem or finding.reason
        word = finding.verdict or "not found"
        word = "not found, with this effort" if word == "not found" else word
        more = f"{word}: {said}"
    else:
        more = finding.more
    cells = (
        who or ", ".join(row.adversaries),
        finding.attack,
        value,
        finding.metric if value else "",
        "" if finding.baseline is None else str(finding.baseline),
        "" if finding.control is None else str(finding.control),
        more,
    )
    kind = ' class="hot"' if finding.verdict == "leaks" else "" if value else ' class="na"'
    told = "".join(
        f'<td data-h="{name}">{html.escape(text)}</td>'
        for name, text in zip(_HEADS, cells, strict=True)
    )
    return f"<tr{kind}>{told}</tr>"
