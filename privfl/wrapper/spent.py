"""What a layer says of all that it has spent."""

from __future__ import annotations

from privfl.core import Ledger
from privfl.dp import sentence, spend, spent_epsilon

UNSEEN = (
    "what the loop around this layer does with clients' data, its start and its choices included"
)


def spent_of(ledger: Ledger, delta: float, *, tight: bool) -> tuple[float | None, str]:
    """The epsilon of whoever pays most, by RDP or (``tight``) by the smaller of RDP and PLD, with
    what a reader must know.

    >>> spent_of(Ledger(), 1e-5, tight=False)
    (None, 'no noise was added')
    """
    if not ledger.charges:
        return None, "no noise was added"
    return spent_epsilon(ledger, delta, pld=tight)


def statement_of(ledger: Ledger, delta: float, *, tight: bool) -> str:
    """The claim of whoever pays most in words."""
    spent = spend(ledger, delta, pld=tight)
    if not spent:
        return "No noise was added, so nothing is claimed."
    dearest = max(spent, key=lambda one: (one.refused is not None, one.rdp or 0.0))
    charges = [charge for charge in ledger.charges if charge.subject == dearest.subject]
    return sentence(dearest, charges, (UNSEEN,))
