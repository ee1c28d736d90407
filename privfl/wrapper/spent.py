"""What a layer says of all that it has spent."""

from __future__ import annotations

from privfl.core import Ledger
from privfl.dp import Stated, claims

UNSEEN = (
    "what the loop around this layer does with clients' data, its start and its choices included"
)


def spent_of(ledger: Ledger, delta: float) -> tuple[float | None, str, str]:
    """The epsilon of whoever pays most, as a run's statement has it (the smaller of RDP and PLD,
    where PLD does not take long), what a reader must know, and the claim in words.

    >>> spent_of(Ledger(), 1e-5)[:2]
    (None, 'no noise was added')
    """
    told = claims(ledger, delta, (UNSEEN,))
    if not told:
        return None, "no noise was added", "No noise was added, so nothing is claimed."
    dearest = max(told, key=_dearest)
    if dearest.epsilon is None:
        return None, dearest.refused or "nothing accounts for it", dearest.claim
    by = "RDP" if dearest.pld is None or dearest.epsilon < dearest.pld else "PLD"
    said = f"{by} at delta {delta:g}, {dearest.unit} level, {dearest.relation}"
    return dearest.epsilon, "; ".join((said, *dearest.notes)), dearest.claim


def _dearest(told: Stated) -> tuple[bool, float]:
    """What is refused is dearer than anything that is claimed."""
    return told.epsilon is None, told.epsilon or 0.0
