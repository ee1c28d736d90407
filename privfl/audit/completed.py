"""Findings whose game gave a value only: the rates of its curve or pictures, and the verdict."""

from __future__ import annotations

from dataclasses import replace

from privfl.audit.findings import Finding
from privfl.audit.games import AuditNotes


def completed(finding: Finding, notes: AuditNotes) -> Finding:
    """The finding with further figures and a verdict, where it has none of its own."""
    key = finding.layer, finding.adversary, finding.attack
    if finding.value is None:
        return replace(finding, verdict=finding.verdict or "not found")
    rates = dict(finding.rates)
    if key in notes.curves and not rates:
        told = notes.curves[key]
        rates = {"tpr_at_.01": told.at_hundredth, "tpr_at_.001": told.at_thousandth}
    if key in notes.galleries and not rates:
        rates = {"recognised": notes.galleries[key].over_20}
    blind = 0.0 if finding.baseline is None else finding.baseline.value
    surely = finding.value.low > blind
    if "recognised" in rates:
        surely = finding.value.value > blind and rates["recognised"].low > 0
    verdict = finding.verdict or ("leaks" if surely else "not found")
    return replace(finding, rates=rates, verdict=verdict)
