"""The noise that some epsilon asks of a run, for its own rounds, sampler and relation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from privfl.core import Charge, Ledger, RoundPlan, require
from privfl.dp import least_noise, of_anybody
from privfl.engine.client import BITS
from privfl.engine.scenario import Scenario


def noise_for(epsilon: int | float, delta: float, scenario: Callable[[float], Scenario]) -> float:
    """The least noise multiplier with which a whole run claims at most ``epsilon`` at ``delta`` of
    the privacy of its clients (`dp.least_noise`). ``scenario`` makes the run of a noise multiplier.

    What is priced are the run's own charges: all its rounds and parts, the sampler (with secret
    coins), the relation, a schedule, and those who collude; and what the model that it starts from
    has spent of its clients before.

    Raises:
        ConfigError: a number out of range; charges that support no claim; an epsilon that no noise
            up to 1e6 reaches.
    """
    require.positive(**{"mechanism.epsilon": epsilon})
    return least_noise(epsilon, delta, lambda z: _charged(scenario(z), delta))


def _charged(scenario: Scenario, delta: float) -> Ledger:
    """What was spent before, and what all rounds would cost, each with everybody who is drawn on
    average.
    """
    number = max(2, round(scenario.expected_cohort))
    cohort = tuple(list(scenario.clients)[:number])
    start = scenario.start if isinstance(scenario.start, Ledger) else Ledger()
    before = of_anybody(start, tuple(scenario.clients), delta).charges
    unit = scenario.pipeline().neighbours.unit
    charges: list[Charge] = [charge for charge in before if charge.unit == unit]
    for round_number in range(scenario.rounds):
        plans = _plans(scenario, round_number, cohort)
        charges += scenario.pipeline(round_number).charges(plans)
    return Ledger(tuple(charges))


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
