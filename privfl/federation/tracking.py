"""What a run tells whoever watches it: all its figures, or the public side of it alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, Protocol, TypeAlias

from privfl.config import AuditConfig, Config
from privfl.core import CannotWrite, PrivflError
from privfl.engine import RoundRecord, RunState, Scenario
from privfl.federation.public import claims_privacy, public_recipe, statement_in_public

Progress = Callable[[RoundRecord, int], None]
"""Called after every round with its record and the number of rounds."""
Fact: TypeAlias = str | int | float | bool
Ending: TypeAlias = Literal["finished", "failed"]


class Tracker(Protocol):
    """Somewhere that people look at runs, as `privfl.trackers` has some.

    ``private``: it is as well kept as the run folder is, and gets everything. One that is not gets,
    of a run that claims privacy, what ``public/`` holds and once the run has ended: the recipe
    without its seeds, and the statement's figures. When that was is seen by whoever looks on, and
    no epsilon counts it.
    """

    @property
    def private(self) -> bool:
        """Whether it may hold what no statement covers."""
        ...

    def begin(self, facts: Mapping[str, Fact], first: int) -> None:
        """A run begins with these settings, at round ``first`` (not 0 where it is resumed)."""
        ...

    def round(self, number: int, figures: Mapping[str, float]) -> None:
        """A round has ended."""
        ...

    def end(self, figures: Mapping[str, float], how: Ending) -> None:
        """The run has ended, whole or by an error."""
        ...


@dataclass
class Watch:
    """All who watch a run, and what each may be told."""

    scenario: Scenario
    audit: AuditConfig
    config: Config | None
    progress: Progress | None = None
    trackers: Sequence[Tracker] = ()
    _begun: list[Tracker] = field(default_factory=list, init=False)

    def begin(self, first: int) -> None:
        """The run begins, at this round."""
        whole = None if self.config is None else self.config.model_dump()
        settings = flat(whole or public_recipe(self.scenario, None))
        for tracker in self._seeing():
            with _named(type(tracker).__name__):
                tracker.begin(settings, first)
            self._begun.append(tracker)

    def round(self, record: RoundRecord) -> None:
        """A round has ended."""
        if self.progress is not None:
            self.progress(record, self.scenario.rounds)
        for tracker in self._seeing():
            with _named(type(tracker).__name__):
                tracker.round(record.round, figures_of(record))

    def end(self, state: RunState, summary: Mapping[str, Any]) -> None:
        """The run has ended, with this ledger and summary."""
        for tracker in self._seeing():
            with _named(type(tracker).__name__):
                tracker.end({**_numbers(summary), **_claimed(summary["privacy"])}, "finished")
        for tracker in self._shut_out():
            said = statement_in_public(self.scenario, self.audit, state.ledger, summary)
            with _named(type(tracker).__name__):
                tracker.begin(flat(public_recipe(self.scenario, self.config)), 0)
                tracker.end(_claimed(said["privacy"]), "finished")

    def fail(self) -> None:
        """The run ended by an error, which those who watch do not get in the way of."""
        for tracker in self._begun:
            with suppress(Exception):
                tracker.end({}, "failed")

    def _seeing(self) -> list[Tracker]:
        shut_out = self._shut_out()
        return [tracker for tracker in self.trackers if tracker not in shut_out]

    def _shut_out(self) -> list[Tracker]:
        if not claims_privacy(self.scenario):
            return []
        return [tracker for tracker in self.trackers if not tracker.private]


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which tracker failed."""
    try:
        yield
    except PrivflError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise CannotWrite(
            f"the tracker {name} failed with {type(error).__name__}: {first}."
            " What was played is in the run's folder, if it has one: resume it once the tracker"
            " works, or without it."
        ) from error


def figures_of(record: RoundRecord) -> dict[str, float]:
    """The figures of a round, by a name with slashes.

    >>> figures_of(RoundRecord(0, 5, 4, 0.5, None, (0.25, 0.75), None, {"train": 1.0}))
    {'accuracy': 0.5, 'train_loss': 0.5, 'cohort': 5.0, 'survivors': 4.0, 'seconds/train': 1.0}
    """
    told = {
        "accuracy": record.accuracy,
        "loss": record.loss,
        "train_loss": fmean(record.train_losses) if record.train_losses else None,
        "cohort": record.cohort,
        "survivors": record.survivors,
        "bytes_sent": record.bytes_sent,
    }
    groups = {"epsilon": record.epsilon, "seconds": record.seconds, "measures": record.measures}
    below = {f"{group}/{key}": v for group, of in groups.items() for key, v in of.items()}
    return {name: float(value) for name, value in (told | below).items() if value is not None}


def flat(settings: Mapping[Any, Any], above: str = "") -> dict[str, Fact]:
    """Nested settings as dotted keys; lists stand as JSON.

    >>> flat({"bound": {"name": "clip", "l2": 1.0}, "attacks": [], "users": None})
    {'bound.name': 'clip', 'bound.l2': 1.0, 'attacks': '[]', 'users': 'none'}
    """
    found: dict[str, Fact] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{above}{key}.")
        elif isinstance(value, Fact):
            found[f"{above}{key}"] = value
        else:
            found[f"{above}{key}"] = "none" if value is None else json.dumps(value, default=str)
    return found


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    names = ("accuracy", "loss", "rounds", "bytes_sent", "seconds")
    return {name: float(summary[name]) for name in names if summary[name] is not None}


def _claimed(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Every claim's epsilon and delta, by whose it is; where a seed drew the samples, which makes
    the first one that of secret coins, the epsilon of who knows it as well.
    """
    return {
        f"{name}/{line['unit']}": float(line[key])
        for line in lines
        for key, name in _CLAIMED.items()
        if isinstance(line.get(key), int | float)
    }


_CLAIMED = {"epsilon": "epsilon", "delta": "delta", "as_drawn": "epsilon_seed_known"}
