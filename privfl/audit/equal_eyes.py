"""Adversaries with the same eyes are told the same: their findings share a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from privfl.audit.findings import Finding


@dataclass(frozen=True, slots=True)
class EqualEyes:
    """One finding, and all adversaries who have it."""

    finding: Finding
    adversaries: tuple[str, ...]


def merged(findings: Sequence[Finding]) -> tuple[EqualEyes, ...]:
    """Findings of one layer and attack that say the same of several adversaries, once, in the order
    of their first.

    >>> one = Finding("none", "server", "membership", "LossThreshold", "AUC", reason="server: no.")
    >>> two = Finding("none", "dealer", "membership", "LossThreshold", "AUC", reason="dealer: no.")
    >>> [shared.adversaries for shared in merged([one, two])]
    [('server', 'dealer')]
    """
    rows: dict[str, list[Finding]] = {}
    for finding in findings:
        rows.setdefault(_says(finding), []).append(finding)
    return tuple(
        EqualEyes(alike[0], tuple(dict.fromkeys(one.adversary for one in alike)))
        for alike in rows.values()
    )


def _says(finding: Finding) -> str:
    """All that a finding says but for who it is about."""
    nobody = re.escape(finding.adversary)
    reason, theorem = (
        re.sub(rf"'?{nobody}'?", "it", text) for text in (finding.reason, finding.theorem)
    )
    told = (
        finding.layer,
        finding.family,
        finding.attack,
        finding.metric,
        str(finding.value),
        str(finding.control),
        str(finding.baseline),
        finding.more,
        reason,
        finding.verdict,
        theorem,
        finding.undone,
        finding.active,
    )
    return repr(told)
