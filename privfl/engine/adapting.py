"""Where an adaptive bound goes from a round's bits, charged together with the update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from privfl.core import Opened, Rows
from privfl.engine.aggregation import Aggregate
from privfl.engine.client import BITS
from privfl.engine.notes import Notes
from privfl.engine.order import Order


def adapted(
    order: Order, opened: Opened[Any] | None, l2: float | None, done: Aggregate, notes: Notes
) -> float | None:
    """The next round's L2 bound, from the bound ``l2`` of this one (None where it is fixed) and the
    bits that were opened. The count of the bits is charged together with the update that the same
    cohort made: ``done.charges`` change.
    """
    adaptive, scenario = order.side.adaptive, order.scenario
    if adaptive is None or l2 is None or (opened is None and order.plan.cohort):
        return l2
    noise = None if scenario.mechanism is None else scenario.noise
    row = scenario.channel.row_bound(order.plans[BITS].l2, 1)
    sensitivity = row.step if scenario.relation() == "replace_one" else row.l2
    moved, event = adaptive.step(l2, _sum(opened), noise, sensitivity)
    if event is not None:
        done.charges = [
            replace(charge, event=adaptive.together(charge.event, event)) for charge in done.charges
        ]
    notes.fired[type(adaptive).__name__] = (
        f"the bound of the next round is {moved:.4g} (it was {l2:.4g})"
    )
    return moved


def _sum(opened: Opened[Any] | None) -> float:
    """The sum of the bits that got through; of none where nobody was drawn."""
    if opened is None:
        return 0.0
    what = opened.what
    return float(what.weights @ what.values[:, 0] if isinstance(what, Rows) else what.value[0])
