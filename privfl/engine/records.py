"""One line of a run's log: what a round did, in numbers that a person would plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from privfl.core import ClientId, Judgement

ATTACK = "attack "
"""Before an attack's name in what fired."""
ACTED = "acted through "
"""How the word on an attack begins that did not stand idle."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round. ``accuracy`` and ``loss`` are the new model's on the test set (None in rounds
    without evaluation).

    ``train_losses`` are the clients' mean training losses (their spread is the report's band),
    ``seconds`` wall time by stage, ``epsilon`` what has been spent so far by subject, ``fired``
    what defences did and ``incidents`` what went wrong, in words, ``judgements`` what defences made
    of every client. ``liars`` are the clients through which an attacker acted, which no defence is
    told. ``staleness`` is how many steps old the models were that the cohort began with (empty in
    synchronous rounds), ``time`` the simulated time when the round was full (None: none was
    simulated). Where the channel ran as an ideal functionality, ``bytes_sent`` is None and
    ``seconds`` have no stage of the channel: they would say nothing about the protocol.
    """

    round: int
    cohort: int
    survivors: int
    accuracy: float | None
    loss: float | None
    train_losses: tuple[float, ...]
    bytes_sent: int | None
    seconds: Mapping[str, float]
    epsilon: Mapping[str, float] = field(default_factory=dict)
    fired: Mapping[str, str] = field(default_factory=dict)
    incidents: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    judgements: tuple[Judgement, ...] = ()
    liars: tuple[ClientId, ...] = ()
    staleness: tuple[int, ...] = ()
    time: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in ``rounds.jsonl``."""
        plain = asdict(replace(self, judgements=()))
        return {**plain, "judgements": [one.to_json() for one in self.judgements]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RoundRecord:
        """From what `to_json` made."""
        return cls(
            **{
                **data,
                "train_losses": tuple(data["train_losses"]),
                "incidents": tuple(data["incidents"]),
                "judgements": tuple(map(Judgement.from_json, data.get("judgements", ()))),
                "liars": tuple(data.get("liars", ())),
                "staleness": tuple(data.get("staleness", ())),
            }
        )
