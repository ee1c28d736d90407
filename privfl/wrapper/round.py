"""What a round makes of clients' rows before the protocol, and of what it opened after it."""

from __future__ import annotations

from typing import Any

import torch

from privfl.core import (
    Bounded,
    ClientId,
    Outcome,
    PrivflError,
    RoundFailed,
    RoundPlan,
    Rows,
    Rule,
)
from privfl.dp.made import Made
from privfl.dp.pipeline import Pipeline
from privfl.wrapper.given import Given
from privfl.wrapper.names import Names
from privfl.wrapper.parts import Parts
from privfl.wrapper.spending import EnteredRound
from privfl.wrapper.updates import finite
from privfl.wrapper.weights import RoundWeights


def bounded(
    given: Given[Any],
    weighed: RoundWeights | None,
    plan: RoundPlan,
    pipeline: Pipeline,
    parts: Parts,
    names: Names,
) -> dict[ClientId, Bounded]:
    """What each client hands its party: its row within the bound, with its own noise.

    Raises:
        BadUpdate: a row is not finite, and no noise hides whose.
        ConfigError: the channel would round away what clients of little weight send.
    """
    if weighed is not None:
        weighed.refuse_coarse(parts.channel, plan, names)
    bound, mechanism = parts.bound, parts.mechanism
    sent: dict[ClientId, Bounded] = {}
    for client, row in given.rows.items():
        delta = finite(names.name(client), bound(row), pipeline.private)
        delta = delta if weighed is None else weighed.row(client, delta)
        if mechanism is not None and mechanism.local:
            Bounded(client, delta, bound.l2)
            far = pipeline.norms("delta", plan.d)
            delta, _ = mechanism.share(delta, far, plan.n, parts.noise)
        weight = 1.0 if weighed is None else weighed.beside(client)
        sent[client] = Bounded(client, delta, plan.l2, weight)
    return sent


def ruled(
    plan: RoundPlan,
    pipeline: Pipeline,
    rule: Rule[Any],
    outcome: Outcome[Any] | None,
    entered: EnteredRound,
    names: Names,
) -> Made:
    """What the rule makes of what was opened; zero where noise hides that nobody came.

    Raises:
        RoundFailed: nothing was opened.
    """
    opened = None if outcome is None else outcome.opened
    if opened is None and pipeline.noise_alone(plan.n):
        return Made(torch.zeros(plan.d), rows=0, survivors=0)
    if opened is None:
        aborts = {} if outcome is None else outcome.aborts
        why = "; ".join(
            f"{names.party(who)}: {names.said(str(abort))}" for who, abort in aborts.items()
        )
        raise RoundFailed(
            f"round {plan.number} opened nothing: {why or 'too few clients answered'}."
        )
    rows = opened.what.n if isinstance(opened.what, Rows) else len(opened.survivors)
    try:
        return Made(rule(opened.what), rows, len(opened.survivors))
    except PrivflError:
        entered.fail(pipeline.charges({"delta": plan}, released=False))
        raise
