"""What would change an epsilon: more noise, fewer rounds, another adversary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from privfl.core import Charge, ConfigError, Ledger
from privfl.dp.accounting.ledger import Spent, spend
from privfl.dp.joint import farther


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a run, and the epsilon that it would have then, by RDP."""

    what: str
    epsilon: float


def changes(charges: Sequence[Charge], delta: float) -> tuple[Change, ...]:
    """What some changes of a run would make of its RDP epsilon; those that cannot be priced, or
    change nothing, are left out.

    >>> from privfl.core import DpEvent, Sampling
    >>> charge = Charge(
    ...     0,
    ...     DpEvent("gaussian", {"noise_multiplier": 1.0}),
    ...     Sampling("all", 1.0, 1000),
    ...     "client",
    ...     "zero_out",
    ... )
    >>> [(one.what, round(one.epsilon, 2)) for one in changes([charge], 1e-5)]
    [('as it is', 4.73), ('twice the noise', 2.17)]
    """
    found = []
    for what, changed in _worlds(charges):
        try:
            spent = spend(Ledger(tuple(changed)), delta, pld=False)
        except ConfigError:  # an event that cannot be scaled
            continue
        if spent and all(one.rdp is not None for one in spent):
            found.append(Change(what, max(map(Spent.claim, spent))))
    return tuple(found)


def _worlds(charges: Sequence[Charge]) -> Iterator[tuple[str, Sequence[Charge]]]:
    yield "as it is", charges
    with suppress(ConfigError):  # noise whose event states no length
        yield "twice the noise", [replace(c, event=farther(c.event, 0.5)) for c in charges]
    rounds = sorted({charge.round for charge in charges})
    if len(rounds) > 1:
        kept = set(rounds[: math.ceil(len(rounds) / 2)])
        yield "half the rounds", [c for c in charges if c.round in kept]
    drawn = [c for c in charges if c.sampling.rate < 1]
    if any(c.cohort_hidden for c in drawn):
        seen = [replace(c, cohort_hidden=False) for c in charges]
        yield "an adversary that sees who is drawn", seen
    if any(not c.cohort_hidden for c in drawn) and charges[0].against == "model_recipients":
        hidden = [replace(c, cohort_hidden=True, coins="secret", cohort=None) for c in charges]
        yield "an adversary that does not see who is drawn", hidden
