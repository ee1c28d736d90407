"""A run of MLflow's tracking server or store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from privfl.core import ConfigError

_LONGEST = 500
"""What every version of MLflow takes as the value of a parameter, in characters."""


@dataclass(eq=False)
class MLflow:
    """Makes a run of MLflow: settings as parameters, every round's figures as metrics at the step
    of its number, the run's own figures under ``end/``.

    Args:
        uri: of the tracking server or store, as in ``http://localhost:5000`` or
            ``sqlite:///runs.db`` (which the client alone cannot write: ``pip install mlflow``);
            None: MLflow's own setting.
        experiment: its name there.
        name: of the run.
        run: an id of a run that goes on, as where privfl resumes.
        private: whether the store is as well kept as the run folder. If not, it gets of a run that
            claims privacy the recipe and the statement's figures, once it has ended.

    Attributes:
        run: the id of the run, once it has begun.

    Raises:
        ConfigError: MLflow is not installed.
    """

    uri: str | None = None
    experiment: str = "privfl"
    name: str | None = None
    run: str | None = None
    private: bool = False
    _client: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if find_spec("mlflow") is None:
            raise ConfigError(
                "MLflow is not installed: pip install 'privfl[trackers]', or pip install mlflow."
            )

    def begin(self, facts: Mapping[str, str | int | float | bool], first: int) -> None:
        """A run begins; parameters of one that goes on stay as they are."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self.uri)
        if self.run is None:
            found = self._client.get_experiment_by_name(self.experiment)
            at = found.experiment_id if found else self._client.create_experiment(self.experiment)
            self.run = str(self._client.create_run(at, run_name=self.name).info.run_id)
            for key, value in facts.items():
                self._client.log_param(self.run, _spelt(key), str(value)[:_LONGEST])

    def round(self, number: int, figures: Mapping[str, float]) -> None:
        """A round's figures."""
        for name, value in figures.items():
            self._client.log_metric(self.run, _spelt(name), value, step=number)

    def end(self, figures: Mapping[str, float], how: Literal["finished", "failed"]) -> None:
        """The run's figures, and how it ended."""
        for name, value in figures.items():
            self._client.log_metric(self.run, f"end/{_spelt(name)}", value)
        self._client.set_terminated(self.run, how.upper())


def _spelt(name: str) -> str:
    """A name in the letters that MLflow takes.

    >>> _spelt("measures/sign flip: hits (%)")
    'measures/sign flip: hits ___'
    """
    return "".join(letter if letter.isalnum() or letter in "_-./: " else "_" for letter in name)
