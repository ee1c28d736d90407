"""What is known of a run's rounds before they begin: enough for a dealer to deal ahead."""

from __future__ import annotations

from privfl.core import ConfigError, RoundPlan, Seeds
from privfl.engine.compatibility import name_of
from privfl.engine.order import Planner
from privfl.engine.scenario import Scenario
from privfl.training import plain


def round_ahead(scenario: Scenario) -> RoundPlan:
    """A round of this run as far as it is known ahead: how many clients, how long vectors are,
    their bound and their weights. Its session, cohort and models are not.

    Raises:
        ConfigError: rounds differ in these, or send several vectors.
    """
    planner, clients = Planner(scenario), tuple(scenario.clients)
    if scenario.sampling.scheme == "poisson":
        raise ConfigError(
            "poisson sampling asks another number of clients in every round, and a dealing is for"
            " a certain one: sample a fixed number."
        )
    if planner.extra or scenario.adaptive is not None:
        raise ConfigError(
            f"{name_of(plain(scenario.workload.method))} or its network sends several vectors a"
            " round, or the bound adapts, and a dealing is for one vector of a known bound: use"
            " what sends one update, and a fixed clip; or leave the dealer online."
        )
    bounds = {scenario.in_round(number, None).sent_l2 for number in range(scenario.rounds)}
    if len(bounds) > 1:
        raise ConfigError(
            "the bound changes from round to round, and a dealing is for one: set a fixed clip, or"
            " leave the dealer online."
        )
    sampler = scenario.in_round(0, None).sampler
    cohort = sampler.draw(clients, Seeds(scenario.seed).generator("a cohort's size", 0))
    cohort = cohort if scenario.pace.synchronous else clients[: scenario.pace.k]
    return RoundPlan(0, cohort, scenario.workload.model.d, bounds.pop(), scenario.weighs_at_most)
