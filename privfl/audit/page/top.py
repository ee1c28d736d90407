"""The report card as it stands at the top of the page: the worst leak, then a line for each asset
under each layer.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from privfl.audit.assets import QUESTIONS, Asset
from privfl.audit.card import Line, worst
from privfl.audit.findings import AuditReport
from privfl.audit.lying import LieFinding
from privfl.audit.own_models import models_line

LIARS = "letter G, active"
"""The threat model of parties that lie: they know what the others know, and deviate."""
PROBED: frozenset[Asset] = frozenset({"samples", "labels", "text"})
"""What is asked in one round in which every client holds a few samples."""
_HEADS = ("asset", "verdict", "worst adversary", "gets", "claim", "change")


def anchor(layer: int) -> str:
    """The name of a layer's place on the page."""
    return f"layer-{layer}"


def headline(
    lines: Sequence[Line], picture: str, probe: str = "", lies: Sequence[LieFinding] = ()
) -> str:
    """The worst leak of all: who, what, the evidence, and what to change; ``picture`` is shown
    beside it. ``probe`` says in which round it was asked, of what is asked in a round apart: one in
    which a client holds little is no round of the run itself. Where nobody who only looks found
    anything, and one of the ``lies`` read an update, that is said, and not that nothing leaks.
    """
    top = worst(lines)
    read = [one for one in lies if one.read]
    if top is None and read:
        one = read[0]
        return (
            '<section class="worst"><div class="say"><p><b>Worst leak: a client\'s update</b> under'
            f" layer <b>{_say(one.layer)}</b>, to parties that lie.</p><p><b>Evidence:</b>"
            f" {len(read)} of {len(lies)} lies read one, as {_say(one.liars)}: {_say(one.does)}."
            " Attacks that tell no lie found nothing, with this effort.</p></div></section>"
        )
    if top is None:
        return (
            '<section class="worst none"><div class="say"><p><b>No leak was found, with this'
            " effort.</b> That is no proof that there is none: what was tried is below.</p></div>"
            "</section>"
        )
    asked = f" Asked in {_say(probe)}." if probe and top.asset in PROBED else ""
    parts = [
        f"<p><b>Worst leak: {_say(top.asset)}</b> under layer <b>{_say(top.layer)}</b>:"
        f" {_say(QUESTIONS[top.asset])} Yes, by {_say(_who(top))}.</p>",
        f"<p><b>Evidence:</b> {_say(top.attack)}: {_say(top.evidence)}, of {_say(top.counted)}."
        f"{asked}{f' The adversary {_say(top.threat.sentence)}.' if top.threat else ''}</p>",
        f"<p><b>Change:</b> {_say(top.change)}{_elsewhere(top)}.</p>",
    ]
    return f'<section class="worst"><div class="say">{"".join(parts)}</div>{picture}</section>'


def chips(report: AuditReport, lines: Sequence[Line]) -> str:
    """A link to each layer, with how many of the assets that were asked for leak under it."""
    if len(report.layers) < 2:
        return ""
    links = []
    for number, layer in enumerate(report.layers):
        told = [line.verdict for line in lines if line.layer == layer]
        bad, asked = told.count("leaks"), told.count("leaks") + told.count("not found")
        links.append(
            f'<li><a href="#{anchor(number)}"{" class=bad" if bad else ""}>{_say(layer)}:'
            f" {bad} of {asked} assets leak</a></li>"
        )
    return f'<ul class="chips">{"".join(links)}</ul>'


def _who(line: Line) -> str:
    """The worst adversary, and who else sees as much: the first two others by name."""
    if len(line.adversaries) < 2:
        return line.who
    first, *others = line.adversaries
    more = f" and {len(others) - 2} more" * (len(others) > 2)
    return f"{first}, and as much by {', '.join(others[:2])}{more}"


def layer_card(report: AuditReport, number: int, layer: str, lines: Sequence[Line]) -> str:
    """A layer's card: what it is, and its lines."""
    facts = report.layers[layer]
    claims = "; ".join(str(claim) for claim in facts.get("claims", ())) or "no claim"
    of = " of next tokens" if "labels" in report.absent else ""
    about = (
        (f"{facts['config']}; " if facts.get("config") else "")
        + f"test accuracy{of} {100 * facts['accuracy']:.1f} %; {claims}; the server reads"
        f" {facts['the server reads']}; fidelity {facts['fidelity']}"
        + (f"; {facts['data seats']}" if "data seats" in facts else "")
    )
    head = "".join(f"<div>{name}</div>" for name in _HEADS)
    rows = "".join(_line(report, line) for line in lines if line.layer == layer)
    rows += _liars(report, layer)
    rows += models_line([one for one in report.models if one.layer == layer])
    return (
        f'<h2 id="{anchor(number)}">{_say(layer)} <span class="soft">{_say(about)}</span></h2>'
        f'<section class="card"><div class="line head">{head}</div>{rows}</section>'
    )


def _line(report: AuditReport, line: Line) -> str:
    kind = "line leaks" if line.verdict == "leaks" else "line"
    badge = "badge leaks" if line.verdict == "leaks" else "badge"
    start = (
        f'<div class="{kind}" data-asset="{line.asset}" data-verdict="{line.verdict}">'
        f'<div class="asset">{line.asset}</div><div><span class="{badge}">'
        f"{line.verdict}</span>{_tried(report, line)}</div>"
    )
    doubts = f" Not brought to an end: {_say('; '.join(line.doubts))}" if line.doubts else ""
    if not line.figures:
        said = line.proof or "no attack of this audit asks for it."
        return f'{start}<div class="spans">{_say(said)}{doubts}</div></div>'
    threat = f"<br>{_say(str(line.threat))}" if line.threat else ""
    cells = (
        ("worst adversary", f"{_say(line.who)}{threat}"),
        ("gets", f"{_say(line.evidence)}<br>{_say(line.attack)}, {_say(line.counted)}"),
        ("claim", _say(line.claimed)),
        ("change", _say(line.change) + _elsewhere(line) + doubts),
    )
    return start + "".join(f'<div data-h="{name}">{text}</div>' for name, text in cells) + "</div>"


def _liars(report: AuditReport, layer: str) -> str:
    """What lying parties read, or that no lie was told."""
    told = [one for one in report.lies if one.layer == layer]
    if not told:
        ideal = report.layers[layer]["fidelity"] == "ideal"
        why = "an ideal run has no parties that could lie" if ideal else "none in this audit"
        return (
            '<div class="line"><div class="asset">liars</div><div><span class="badge">not asked'
            f'</span></div><div class="spans">No lie was told: {why}.</div></div>'
        )
    read = [one for one in told if one.read]
    said = "; ".join(f"{one.liars}: {one.does}" for one in read[:2])
    words = (
        f"{len(read)} of {len(told)} lies read a client's update ({LIARS}): {said}."
        if read
        else f"{len(told)} lies were told ({LIARS}), and none read a client's update."
    )
    kind, verdict = ("leaks", "leaks") if read else ("", "not found")
    return (
        f'<div class="line {kind}"><div class="asset">liars</div><div><span class="badge {kind}">'
        f'{verdict}</span></div><div class="spans">{_say(words)}</div></div>'
    )


def _tried(report: AuditReport, line: Line) -> str:
    """With how much effort nothing was found."""
    if line.verdict != "not found":
        return ""
    return f'<br><span class="soft">with this effort ({_say(report.effort)})</span>'


def _elsewhere(line: Line) -> str:
    return f" ({_say(line.elsewhere)})" if line.elsewhere else ""


def _say(text: str) -> str:
    return html.escape(text)
