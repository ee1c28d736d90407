"""What a report says of CRFL's certificate."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from privfl.report.tables import table

_ABOUT = (
    "A radius is the L2 length of what a backdoor adds to a poisoned sample and its label. Within"
    " it, attackers of the strength below do not change what most noisy copies of the last model"
    " answer (Xie et al. 2021, theorem 1); each sample's bound on votes fails once in 1,000."
    " Poisoned samples are taken to be no longer than the longest one of the data."
)


def certified(certificate: Mapping[str, Any]) -> list[str]:
    """The sentence, the attackers' strength, and how many samples have which radius; nothing where
    the run has no such defence.

    >>> certified({})
    []
    """
    if not certificate:
        return []
    parts = [
        "<h2>What CRFL certifies</h2>",
        f"<p>{html.escape(certificate['says'])}</p>",
        f'<p class="soft">{html.escape(_ABOUT)}</p>',
    ]
    rows = [(name, _shown(value)) for name, value in certificate.get("facts", {}).items()]
    radii = sorted(certificate.get("radius", ()))
    for share in (0.1, 0.5, 0.9) if radii else ():
        quantile = radii[min(int(share * len(radii)), len(radii) - 1)]
        rows.append((f"radius that {100 * (1 - share):.0f} % of samples have", f"{quantile:.3g}"))
    lines = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return [*parts, table(lines)] if rows else parts


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
