"""Where an adaptive bound goes from a round's bits, as they were released."""

from __future__ import annotations

from privfl.engine.aggregation import Aggregate
from privfl.engine.client import BITS
from privfl.engine.notes import Notes
from privfl.engine.order import Order


def adapted(order: Order, l2: float | None, done: Aggregate, notes: Notes) -> float | None:
    """The next round's L2 bound, from the bound ``l2`` of this one (None where it is fixed) and the
    sum of the bits as it was released. Where nobody was drawn that is noise alone.
    """
    adaptive = order.side.adaptive
    if adaptive is None or l2 is None or (BITS not in done.opened and order.plan.cohort):
        return l2
    moved = adaptive.step(l2, float(done.released[BITS].vector[0]))
    notes.fired[type(adaptive).__name__] = (
        f"the bound of the next round is {moved:.4g} (it was {l2:.4g})"
    )
    return moved
