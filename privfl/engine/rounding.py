"""How finely a channel that computes on integers rounds the update of a run's lightest client."""

from __future__ import annotations

from privfl.core import ConfigError, RoundPlan
from privfl.engine.compatibility import name_of
from privfl.engine.scenario import Scenario


def rounding_error(scenario: Scenario) -> tuple[float, float, float] | None:
    """Of the lightest client: its weight, the largest weight, and how far one value of its update
    can be rounded off, as a fraction of the bound. None where weights are all one, or nothing is
    rounded.
    """
    rounds = scenario.channel.able.rounds_off
    uniform = scenario.workload.method.weighting == "uniform"
    if rounds is None or uniform or scenario.elsewhere:
        return None
    sizes = [len(index) for index in scenario.clients.values()]
    light, heavy = float(min(sizes)), float(max(sizes))
    plan = RoundPlan(0, tuple(scenario.clients), scenario.workload.model.d, 1.0, heavy)
    return light, heavy, rounds(plan, light)


def check_rounding(scenario: Scenario) -> None:
    """Refuse a run in which nothing of the lightest client's updates is left.

    Raises:
        ConfigError: every value of it may be rounded to nothing.
    """
    found = rounding_error(scenario)
    if found is not None and found[2] >= 1:
        light, heavy, error = found
        raise ConfigError(
            f"{name_of(scenario.channel)} rounds all updates as finely as the heaviest client's: of"
            f" a client with {light:g} samples, where another has {heavy:g}, each value can be off"
            f" by {error:.2g} times the bound, so nothing of its update is left. Use"
            " more bits in the channel, a weighting of uniform, or a min_size of the partition."
        )


def rounding_said(scenario: Scenario) -> dict[str, str]:
    """A fact of the report: the bound on the rounding of the lightest client's update."""
    found = rounding_error(scenario)
    if found is None:
        return {}
    light, heavy, error = found
    return {
        "rounding": (
            f"each value of the update of a client with {light:g} samples (the most: {heavy:g}) is"
            f" off by {error:.2g} times the bound at most"
        )
    }
