"""What of a config says how rounds are measured, and when a run has seen enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privfl import catalog
from privfl.config import Config
from privfl.core import ConfigError
from privfl.engine import EarlyStopping, Metric

_METRICS: catalog.PluggedTable[Any] = catalog.PluggedTable({}, "privfl.metrics")


def early_stopping(config: Config) -> EarlyStopping | None:
    """When the run ends before its last round, where the config says so."""
    told = config.early_stopping
    return None if told is None else EarlyStopping(**told.model_dump())


def metrics(config: Config) -> Mapping[str, Metric]:
    """The functions of a config's metrics, by name.

    Raises:
        ConfigError: one is no ``module:function`` that can be imported and called.
    """
    return {name: _metric(name, where) for name, where in config.metrics.items()}


def _metric(name: str, where: str) -> Metric:
    if where not in _METRICS:
        raise ConfigError(
            f"config key 'metrics.{name}' is '{where}', and a metric is a function"
            " module:function of a torch module and a data set."
        )
    metric: Metric = _METRICS[where]
    return metric
