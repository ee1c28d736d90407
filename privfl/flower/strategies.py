"""Which of Flower's strategies a private round may stand in for, and what it tells them."""

from __future__ import annotations

from typing import Any

from privfl.core import ConfigError, Outcome, RoundPlan, Rows

STRATEGIES = ("FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi")
"""Of flwr.serverapp.strategy, those whose result depends on the replies' weighted mean alone."""


def refuse_strategy(strategy: Any) -> None:
    """Refuse a strategy that does more with replies than take their weighted mean.

    Raises:
        ConfigError: it is not one of `STRATEGIES`, but perhaps made from one; or it aggregates
            metrics of its own.
    """
    from flwr.serverapp import strategy as flowers
    from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

    allowed = [vars(flowers)[name] for name in STRATEGIES]
    if type(strategy) not in allowed:
        raise ConfigError(
            f"{type(strategy).__name__} may read more of clients' replies than their mean, which is"
            f" all that a private round opens: use {', '.join(STRATEGIES)}. A robust rule is the"
            " channel's (TwoServer, EncryptedCosine), and noise the layer's."
        )
    if strategy.train_metrics_aggr_fn is not aggregate_metricrecords:
        raise ConfigError(
            "train_metrics_aggr_fn reads each client's metrics, and none leave a private round:"
            " leave it out."
        )


def weight_of(outcome: Outcome[Any], plan: RoundPlan, *, noised: bool) -> float:
    """What all who came weigh; of a noised round how many were asked."""
    opened = outcome.opened
    if noised or opened is None:
        return float(plan.n)
    what = opened.what
    weight = float(what.weights.sum()) if isinstance(what, Rows) else float(what.weight)
    return weight if weight > 0 else float(len(opened.survivors))
