"""The report card: for each asset the worst adversary, what it gets, what somebody gets who saw
nothing, what is claimed, and what to change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from privfl.audit.assets import ASSETS, CHANCE, Asset, asset_of, blind, clears, figures, unseen
from privfl.audit.claimed import Claimed
from privfl.audit.equal_eyes import EqualEyes, merged
from privfl.audit.findings import AuditReport, Finding
from privfl.audit.remedies import remedy
from privfl.audit.score import Figure
from privfl.audit.threats import ThreatModel
from privfl.core import OUTSIDER, Adversary

Verdict: TypeAlias = Literal["leaks", "not found", "not applicable", "not asked"]
WORDS: Mapping[Verdict, str] = {
    "leaks": "leaks",
    "not found": "not found, with this effort",
    "not applicable": "not applicable",
    "not asked": "not asked",
}
"""How verdicts are said. Nothing is ever said to be safe."""


@dataclass(frozen=True, slots=True)
class Line:
    """One asset under one layer: the worst finding of all adversaries.

    ``adversaries`` are those who got exactly this, the fewest parties first; ``threat`` is the
    first one's. ``figures`` and ``blind`` are by the names of `assets.METRICS`, and ``caps`` the
    most that the claim against this adversary allows of them; ``unseen`` are those for which there
    were too few samples. Figures are of so many ``units``, of the kind that ``unit`` names.
    ``luck`` is how likely figures so high are where nothing leaks, and is said where it decides.
    ``looks`` is of how many different findings it is the worst: the verdict is corrected for so
    many. ``proof`` is the sentence of what is not applicable; ``doubts`` say which attacks did
    not come to an end. ``change`` is what to change, and ``elsewhere`` what the audit measured of
    the same asset under its other layers.
    """

    layer: str
    asset: Asset
    verdict: Verdict
    adversaries: tuple[str, ...] = ()
    threat: ThreatModel | None = None
    attack: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    blind: Mapping[str, float | None] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    claim: str = ""
    units: int = 0
    looks: int = 0
    proof: str = ""
    doubts: tuple[str, ...] = ()
    change: str = ""
    elsewhere: str = ""
    unseen: tuple[str, ...] = ()
    unit: str = "samples"
    luck: float = 1.0

    def row(self) -> dict[str, Any]:
        """One row of a table on a terminal."""
        return {
            "asset": self.asset,
            "verdict": WORDS[self.verdict],
            "worst adversary": self.who,
            "attack": self.attack,
            "gets": self.evidence or self.proof,
            "claim": self.claimed,
            "change": self.change,
        }

    @property
    def brief(self) -> str:
        """Verdict, who, and the first figure that is above what is blind (else the first)."""
        if not self.figures:
            return WORDS[self.verdict]
        name = next(filter(self._above, self.figures), next(iter(self.figures)))
        figure = self.figures[name]
        return f"{WORDS[self.verdict]}: {self.adversaries[0]}, {SAID[name]} {shown(name, figure)}"

    def _above(self, name: str) -> bool:
        beside = self.blind.get(name)
        return beside is not None and self.figures[name].low > beside

    @property
    def who(self) -> str:
        """The worst adversary, and how many others get the same."""
        if not self.adversaries:
            return ""
        others = len(self.adversaries) - 1
        return f"{self.adversaries[0]}{f' and {others} with equal eyes' if others else ''}"

    @property
    def evidence(self) -> str:
        """The figures in words, each beside what somebody has who saw nothing."""
        told = [
            f"{SAID[name]} {shown(name, figure)}{_beside_blind(name, self.blind.get(name))}"
            for name, figure in self.figures.items()
        ]
        told += [f"{SAID[name]}: too few samples" for name in self.unseen]
        if self.verdict == "leaks" and not any(map(self._above, self.figures)) and self.luck < 1:
            told.append(f"as much by luck: 1 in {1 / max(self.luck, 1e-12):,.0f}")
        return "; ".join(told)

    @property
    def counted(self) -> str:
        """Of how many things its figures are, and of what kind."""
        return f"{self.units:,} {self.unit.removesuffix('s') if self.units == 1 else self.unit}"

    @property
    def claimed(self) -> str:
        """The claim, and what it allows."""
        caps = ", ".join(f"{SAID[name]} at most {cap:.3f}" for name, cap in self.caps.items())
        return f"{self.claim}: {caps}" if caps else self.claim


SAID: Mapping[str, str] = {
    "recognised": "recognised",
    "fields": "fields right",
    "psnr": "PSNR",
    "tpr_at_.01": "TPR at 1 % FPR",
    "tpr_at_.001": "TPR at .1 % FPR",
    "auc": "AUC",
    "right": "right",
    "whole": "sequences whole",
}
"""The figures as people read them."""


def shown(name: str, figure: Figure) -> str:
    """A figure as short as it can be read.

    >>> shown("psnr", Figure(22.61, 20.0, 25.04)), shown("auc", Figure(0.5))
    ('22.6 dB [20.0, 25.0]', '.50')
    """
    ends = [_short(name, end) for end in (figure.low, figure.high)]
    interval = f" [{', '.join(ends)}]" if math.isfinite(figure.low) else ""
    return f"{_short(name, figure.value)}{' dB' * (name == 'psnr')}{interval}"


def _short(name: str, value: float) -> str:
    if name == "psnr":
        return f"{value:.1f}"
    digits = 3 if 0 < value < 0.1 else 2
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if value < 1 else text


def _beside_blind(name: str, value: float | None) -> str:
    return "" if value is None else f" (blind {shown(name, Figure(value))})"


def card(report: AuditReport) -> tuple[Line, ...]:
    """The lines of every layer, in the order of the layers and of `assets.ASSETS`."""
    lines = [_line(report, layer, asset) for layer in report.layers for asset in ASSETS]
    return tuple(_beside(line, lines) for line in lines)


def worst(lines: Sequence[Line]) -> Line | None:
    """The line to read first: what leaks, the clients' data themselves (samples and text) before
    all that is told of them, then in the order of `assets.ASSETS`, most clearly above what somebody
    has who saw nothing; None where nothing was found to leak.
    """
    leaks = [line for line in lines if line.verdict == "leaks"]
    return min(leaks, key=_gravity, default=None)


def _gravity(line: Line) -> tuple[bool, int, float]:
    told_of = line.asset not in ("samples", "text")
    return told_of, ASSETS.index(line.asset), -_excess(line)


def _excess(line: Line) -> float:
    name, figure = next(iter(line.figures.items()))
    return figure.low - (line.blind.get(name) or 0.0)


def _line(report: AuditReport, layer: str, asset: Asset) -> Line:
    asked = [one for one in report.findings if one.layer == layer and asset_of(one) == asset]
    if not asked:
        return _unasked(report, layer, asset)
    doubts = tuple(dict.fromkeys(f"{one.attack}: {one.undone}" for one in asked if one.undone))
    rows = merged(asked)
    measured = [row for row in rows if figures(row.finding)]
    if not measured:
        absent = all((layer, who) not in report.threats for row in rows for who in row.adversaries)
        return _unmeasured(layer, asset, rows, doubts, absent)
    found = [row for row in measured if clears(row.finding, len(measured))]
    top = max(found or measured, key=lambda row: _strength(row.finding))
    finding = top.finding
    adversaries = tuple(sorted(top.adversaries, key=_size))
    threat = report.threat_of(finding, adversaries[0])
    claim = _claim(report, layer, threat)
    told = figures(finding)
    capped = claim is not None and asset == "membership"
    verdict: Verdict = "leaks" if found else "not found"
    return Line(
        layer,
        asset,
        verdict,
        adversaries,
        threat,
        finding.attack,
        told,
        {name: blind(finding, name) for name in told},
        {name: claim.cap(CHANCE[name]) for name in told if name in CHANCE}
        if capped and claim is not None
        else {},
        _said(report, layer, claim),
        finding.units,
        len(measured),
        doubts=doubts,
        change=remedy(asset, adversaries[0], threat, claim is not None, over=finding.over)
        if found
        else "",
        unseen=unseen(finding),
        unit=finding.unit,
        luck=finding.luck,
    )


def _unasked(report: AuditReport, layer: str, asset: Asset) -> Line:
    why = report.absent.get(asset)
    if why:
        return Line(layer, asset, "not applicable", proof=why)
    return Line(layer, asset, "not asked")


def _unmeasured(
    layer: str, asset: Asset, rows: Sequence[EqualEyes], doubts: tuple[str, ...], absent: bool
) -> Line:
    """The line of an asset of which no attack has a figure. That one kind of attack is proved to
    get nothing proves nothing of the asset, unless nobody is there to look.
    """
    proved = absent and all(row.finding.verdict == "not applicable" for row in rows)
    sentences = tuple(dict.fromkeys(row.finding.theorem or row.finding.reason for row in rows))
    return Line(
        layer,
        asset,
        "not applicable" if proved else "not found",
        looks=0,
        proof=" ".join(sentences if proved else sentences[:1]),
        doubts=doubts,
    )


def _strength(finding: Finding) -> tuple[float, ...]:
    """Rates at few false positives and recognised samples first, then the area or the mean."""
    told = figures(finding)
    return tuple(
        told[name].low if name in told else -1.0
        for name in ("recognised", "tpr_at_.01", "auc", "right", "fields", "psnr")
    )


def _size(adversary: str) -> tuple[int, bool, str]:
    """The fewest parties first, and of one party alone a tap on the wires before all others."""
    parties = Adversary.parse(adversary).parties
    return len(parties), OUTSIDER not in parties, adversary


def _claim(report: AuditReport, layer: str, threat: ThreatModel | None) -> Claimed | None:
    """The claim that allows this adversary least, if one holds against it."""
    claims: Sequence[Claimed] = report.layers[layer].get("claims", ())
    held = [one for one in claims if threat is not None and one.holds_against(threat)]
    return min(held, key=lambda one: one.cap(0.01), default=None)


def _said(report: AuditReport, layer: str, claim: Claimed | None) -> str:
    if claim is not None:
        return str(claim)
    others: Sequence[Claimed] = report.layers[layer].get("claims", ())
    if others:
        return f"none against it ({others[0]} is not against whoever sees this)"
    return "no claim"


def _beside(line: Line, lines: Sequence[Line]) -> Line:
    """The line with what the same asset came to under the other layers of the audit."""
    if line.verdict != "leaks":
        return line
    others = [one for one in lines if one.asset == line.asset and one.layer != line.layer]
    better = [other.layer for other in others if other.verdict == "not found"]
    worse = [other.layer for other in others if other.verdict == "leaks"]
    if better:
        said = f"in this audit: not found under {', '.join(better)}"
    else:
        said = f"in this audit: leaks under {', '.join(worse)} too" if worse else "not tried"
    return replace(line, elsewhere=said)
