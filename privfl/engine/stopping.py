"""When a run ends before its last round, and figures of its models that somebody else defined."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from privfl.core import ConfigError, Dataset, PrivflError

Metric = Callable[[nn.Module, Dataset], float]
"""A figure of a model on the data that rounds are measured on; the module is in evaluation mode."""


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Ends a run once ``patience`` measurements in a row did not raise the best accuracy on
    ``data.validation`` by more than ``least`` (a fraction of 1).

    When a run ends is chosen on these samples, so a run that claims privacy is refused: no epsilon
    would count the choice. The test set chooses nothing.

    Raises:
        ConfigError: no patience, or a gain that is negative or no number.

    >>> EarlyStopping(patience=2).ends([0.5, 0.6, 0.6, 0.59])
    True
    >>> EarlyStopping(patience=2).ends([0.5, 0.6, 0.6, 0.61])
    False
    """

    patience: int
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(
                f"early_stopping.patience is {self.patience}, and a run waits for one measurement"
                " at least."
            )
        if not (math.isfinite(self.least) and self.least >= 0):
            raise ConfigError(
                f"early_stopping.least is {self.least:g}: it is the gain in accuracy that counts, a"
                " number from 0 on."
            )

    def ends(self, accuracies: Sequence[float | None]) -> bool:
        """Whether a run ends after rounds of these accuracies (None: not measured)."""
        best, waited = -math.inf, 0
        for accuracy in accuracies:
            if accuracy is None:
                continue
            if accuracy > best + self.least:
                best, waited = accuracy, 0
            else:
                waited += 1
            if waited >= self.patience:
                return True
        return False


def refuse_early_stopping(*, validated: bool, private: bool) -> None:
    """Refuse to choose a run's end on data that are not there for it.

    Raises:
        ConfigError: there are no validation samples, or the run claims privacy.
    """
    if private:
        raise ConfigError(
            "early_stopping chooses the last round on samples of the data that the run claims"
            " privacy for, and no epsilon counts that: leave it out and set rounds."
        )
    if not validated:
        raise ConfigError(
            "early_stopping needs samples to choose on that are not the test set: set"
            " data.validation, as in data.validation=0.1."
        )


_OWN_FIGURES = frozenset(
    {
        "accuracy",
        "bytes_sent",
        "cohort",
        "epsilon",
        "loss",
        "round",
        "seconds",
        "survivors",
        "time",
        "train_loss",
        "validation accuracy",
    }
)
"""What a round's own figures are called in its record, its pictures and its trackers."""


def refuse_metrics(names: Iterable[str]) -> None:
    """Refuse metrics that would stand beside a round's own figures under the same name.

    Raises:
        ConfigError: one would, or has no name.
    """
    for name in names:
        if not name.strip():
            raise ConfigError("metrics: a metric has no name: call it something.")
        if name.strip() in _OWN_FIGURES:
            raise ConfigError(
                f"metrics: '{name}' is what a round's own figure is called: call yours something"
                " else."
            )


def measured_by(
    metrics: Mapping[str, Metric], module: nn.Module, dataset: Dataset
) -> dict[str, float]:
    """Every metric's figure, by name.

    Raises:
        ConfigError: a metric that raises, or gives no number.
    """
    training = module.training
    module.eval()
    try:
        return {name: _measured(name, metric, module, dataset) for name, metric in metrics.items()}
    finally:
        module.train(training)


def _measured(name: str, metric: Metric, module: nn.Module, dataset: Dataset) -> float:
    try:
        value: object = metric(module, dataset)
    except PrivflError:
        raise
    except Exception as error:
        raise ConfigError(
            f"metric '{name}' failed with {type(error).__name__}: {error}. It is called as"
            " metric(module, dataset), and returns one number."
        ) from error
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(
            f"metric '{name}' gave a {type(value).__name__}, and a metric is one number: return a"
            " float."
        ) from None
