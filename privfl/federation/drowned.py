"""Whether a run's noise is longer than all that its clients can move."""

from __future__ import annotations

import math

from privfl.core import Charge, Ledger, Unit

MOVES: dict[Unit, str] = {"client": "client", "sample": "sample", "user": "contribution"}


def drowned(ledger: Ledger, d: int) -> tuple[str, ...]:
    """A sentence for each unit whose noise is longer than what all clients together can move, over
    the run's own releases, or nothing. From the charges alone: noise multipliers z, expected
    cohorts or batches n and releases T, with the ``d`` parameters of the model.

    In units of what one of them may move, independent noise is z sqrt(d T) long in expectation, and
    T sums of n are n T long at most. Lengths, and no forecast: a model can learn in a few
    directions what noise hides in all of them, and fail below the bound. Correlated noise, which
    cancels over rounds, and noise that states no multiplier are left out. The sentences stay out of
    ``public/``: how often samples were charged hangs on who was drawn.

    >>> from privfl.core import DpEvent, Sampling
    >>> noise = DpEvent("gaussian", {"noise_multiplier": 1.0})
    >>> charge = Charge(0, noise, Sampling("all", 1.0, 20), "client", "zero_out", count=4)
    >>> drowned(Ledger((charge,)), d=1_000)
    ()
    >>> drowned(Ledger((charge,)), d=1_000_000)[0][:60]
    'The noise is longer than all that clients can move: over the'
    """
    found = []
    for unit in sorted({charge.unit for charge in ledger.charges}):
        squared = reach = 0.0
        for charge in ledger.charges:
            z = _multiplier(charge) if charge.unit == unit and charge.round >= 0 else None
            if z is not None:
                squared += z * z * charge.count
                drawn = charge.sampling
                reach += charge.count * drawn.rate * drawn.population / drawn.group
        length = math.sqrt(squared * d)
        if length > reach > 0:
            found.append(
                "The noise is longer than all that clients can move: over the run it is about"
                f" {length:,.3g} long in {d:,} parameters, in units of what one {MOVES[unit]} may"
                f" move in a step, and all together move at most {reach:,.3g}. That is a bound on"
                " lengths and no forecast; more contributions a step, more rounds, fewer"
                " parameters or less noise change it."
            )
    return tuple(found)


def _multiplier(charge: Charge) -> float | None:
    """The noise's deviation over one contribution's bound, or None."""
    if charge.last is not None:  # one event for all rounds, whose noise cancels between them
        return None
    stated = charge.event.parameters
    z = stated.get("noise_multiplier")
    if z is None and stated.get("variance") and stated.get("l2"):
        z = math.sqrt(stated["variance"]) / stated["l2"]
    if z is None:
        return None
    return 2.0 * z if charge.relation == "replace_one" else float(z)
