"""What an audit found: rows for a table, pictures and curves for a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from privfl.audit.lying import LieFinding
from privfl.audit.own_models import OwnModels
from privfl.audit.score import Figure, Membership, Pictures
from privfl.audit.threats import ThreatModel

LUCK = 0.005
"""Under so small a chance of being luck a figure leaks whatever its interval, which is wide where
there are few clients, and of the area alone.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One attack through one adversary's view under one privacy layer.

    ``value`` is in ``metric``; ``control`` the same scorer on random truth (membership),
    ``baseline`` what somebody scores who saw no view at all. ``reason`` says why the attack does
    not apply: then there is no value, which is not a value of zero.

    ``verdict`` is "leaks" where the interval lies above the baseline, "not found" where it does not
    or where the attack had no answer, "not applicable" where ``theorem`` proves from the view that
    it can have none. ``baselines`` are blind scores by name, the strongest of them in ``baseline``;
    ``rates`` are further figures by name (``tpr_at_.01``, ``tpr_at_.001``, ``recognised``). Figures
    are of so many ``units``, things of the kind that ``unit`` names (samples, tokens, labels,
    clients, runs, scores of clients), in ``clusters`` clients (or rows, or runs), over which
    intervals are. ``effort`` says what was tried. ``undone`` says why the attack did not come
    to an end (its budget, an error): it says nothing about the layer, and no gate is green over it.
    ``luck`` is how likely figures so high are where nothing leaks, by a test beside the interval.
    ``active``: the adversary deviated from the protocol for it. ``over``: sums of many rounds were
    solved for it (`privfl.attacks.Targeted`).
    """

    layer: str
    adversary: str
    family: str
    attack: str
    metric: str
    value: Figure | None = None
    control: Figure | None = None
    baseline: Figure | None = None
    more: str = ""
    reason: str = ""
    knows: str = ""
    seconds: float = 0.0
    verdict: str = ""
    theorem: str = ""
    baselines: Mapping[str, Figure] = field(default_factory=dict)
    rates: Mapping[str, Figure] = field(default_factory=dict)
    units: int = 0
    clusters: int = 0
    effort: str = ""
    undone: str = ""
    luck: float = 1.0
    active: bool = False
    unit: str = "samples"
    over: bool = False

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        return {
            "layer": self.layer,
            "adversary": self.adversary,
            "family": self.family,
            "attack": self.attack,
            "metric": self.metric,
            "value": None if self.value is None else self.value.value,
            "low": None if self.value is None else _number(self.value.low),
            "high": None if self.value is None else _number(self.value.high),
            "control": None if self.control is None else self.control.value,
            "baseline": None if self.baseline is None else self.baseline.value,
            "more": self.more,
            "not applicable": self.reason,
            "knows": self.knows,
            "seconds": self.seconds,
            "verdict": self.verdict,
            "theorem": self.theorem,
            "baselines": {name: figure.value for name, figure in self.baselines.items()},
            "rates": {name: _number(figure.value) for name, figure in self.rates.items()},
            "units": self.units,
            "unit": self.unit,
            "clusters": self.clusters,
            "effort": self.effort,
            "undone": self.undone,
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True, repr=False)
class AuditReport:
    """All findings of an audit. Where `audit` made it, ``print(report)`` shows its card; `card`,
    ``rows``, `record` and `write_page` have the rest.
    ``layers`` has each layer's utility and what it claims;
    ``galleries`` and ``curves`` are by finding; ``lies`` are what came of each lie that was told;
    ``threats`` are the adversaries' threat models, by layer and adversary; ``effort`` is how hard
    was tried; ``absent`` says of an asset why there is none in these data. ``models`` is what came
    of servers that send models of their own. ``shown`` is how it is printed.
    """

    findings: tuple[Finding, ...]
    layers: Mapping[str, Mapping[str, Any]]
    galleries: Mapping[tuple[str, str, str], Pictures] = field(default_factory=dict, repr=False)
    curves: Mapping[tuple[str, str, str], Membership] = field(default_factory=dict, repr=False)
    about: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    lies: tuple[LieFinding, ...] = ()
    threats: Mapping[tuple[str, str], ThreatModel] = field(default_factory=dict)
    effort: str = "default"
    absent: Mapping[str, str] = field(default_factory=dict)
    models: tuple[OwnModels, ...] = ()
    shown: Callable[[AuditReport], str] = field(default=repr, repr=False, compare=False)

    def threat_of(self, finding: Finding, adversary: str | None = None) -> ThreatModel | None:
        """The threat model of a finding's adversary (or of another one who has the same), active
        where it deviated for this finding; None where nobody of that name takes part.
        """
        who = self.threats.get((finding.layer, adversary or finding.adversary))
        return who.acting if who is not None and finding.active else who

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One plain row for each finding."""
        return [finding.row() for finding in self.findings]

    def __str__(self) -> str:
        return self.shown(self)

    def __repr__(self) -> str:
        sizes = f"{len(self.findings)} findings, {len(self.layers)} layers"
        return f"<AuditReport: {sizes}; print it for its card>"
