"""What a run refuses of its settings beside those of its scenario."""

from __future__ import annotations

from privfl.core import ConfigError
from privfl.dp import delta_protects_nobody
from privfl.engine import Budget, Scenario
from privfl.federation.public import claims_privacy


def refuse_delta(scenario: Scenario, delta: float) -> None:
    """Refuse a delta that protects nobody whose privacy the run claims.

    Raises:
        ConfigError: it does not.
    """
    groups = [scenario.people or len(scenario.clients)] if scenario.pipeline().private else []
    if scenario.workload.method.gradient.private and not scenario.elsewhere:
        groups.append(max(len(index) for index in scenario.clients.values()))
    for population in groups:
        refused = delta_protects_nobody(delta, population)
        if refused is not None:
            raise ConfigError(f"audit.{refused}")


def refuse_budget(scenario: Scenario, budget: Budget | None) -> None:
    """Refuse a budget of a run that spends nothing.

    Raises:
        ConfigError: it adds no noise.
    """
    if budget is not None and not claims_privacy(scenario):
        raise ConfigError(
            "there is a budget, and this run adds no noise: it would spend without end. Set a"
            " mechanism, or leave budget out."
        )
