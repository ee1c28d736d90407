"""The noise that some epsilon asks of a run, for its own rounds, sampler and relation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from privfl.core import Charge, ConfigError, Ledger, RoundPlan, require
from privfl.dp import spend
from privfl.engine.client import BITS
from privfl.engine.scenario import Scenario

_MOST = 1e6


def noise_for(epsilon: int | float, delta: float, scenario: Callable[[float], Scenario]) -> float:
    """The least noise multiplier (within 1e-4 of itself, never too small) with which a whole run
    spends at most ``epsilon`` at ``delta``, by RDP, of the privacy of its clients. ``scenario``
    makes the run of a noise multiplier.

    What is priced are the run's own charges: all its rounds and parts, the sampler (with secret
    coins), the relation, a schedule, and those who collude.

    Raises:
        ConfigError: a number out of range; charges that support no claim; an epsilon that no noise
            up to 1e6 reaches.
    """
    require.positive(**{"mechanism.epsilon": epsilon})
    low, high = 1e-2, 1.0
    while _spent(scenario(high), delta) > epsilon:
        low, high = high, 2 * high
        if high > _MOST:
            raise ConfigError(
                f"mechanism.epsilon {epsilon} at delta {delta:g} is out of reach in this run: no"
                f" noise up to {_MOST:g} gives it. Take fewer rounds, or raise it."
            )
    while high > low * (1 + 1e-4):
        middle = math.sqrt(low * high)
        if _spent(scenario(middle), delta) > epsilon:
            low = middle
        else:
            high = middle
    return high


def _spent(scenario: Scenario, delta: float) -> float:
    """What all rounds would cost, each with everybody who is drawn on average."""
    number = max(2, round(scenario.expected_cohort))
    cohort = tuple(list(scenario.clients)[:number])
    charges: list[Charge] = []
    for round_number in range(scenario.rounds):
        plans = _plans(scenario, round_number, cohort)
        charges += scenario.pipeline(round_number).charges(plans)
    spent = spend(Ledger(tuple(charges)), delta, pld=False)
    return max((one.claim() for one in spent), default=math.inf)


def _plans(scenario: Scenario, number: int, cohort: tuple[int, ...]) -> Mapping[str, RoundPlan]:
    """The plans of all parts of a round, as far as noise hangs on them."""
    d = scenario.workload.model.d
    l2 = scenario.in_round(number, None).sent_l2
    plans = {"delta": RoundPlan(number, cohort, d, l2)}
    for part, length in scenario.workload.method.parts(d).items():
        plans[part] = RoundPlan(number, cohort, length, scenario.part_bound(part).l2, part=part)
    if scenario.adaptive is not None:
        plans[BITS] = RoundPlan(number, cohort, 1, 0.5, part=BITS)
    return plans
