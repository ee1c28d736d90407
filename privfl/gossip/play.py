"""A whole gossip run: its rounds, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from privfl.core import Ledger
from privfl.gossip.gossip import NOBODY, Gossip
from privfl.gossip.scenario import GossipScenario
from privfl.gossip.state import GossipState, spread
from privfl.training import evaluate


@dataclass(frozen=True, slots=True)
class GossipRecord:
    """One round in numbers. ``accuracy``, ``worst``, ``loss`` and ``spread`` are of the honest
    nodes' models, on the test set: the mean over nodes, the least, the mean, and their mean
    distance from their mean over its norm. ``bytes_sent`` is None where no protocol ran.
    """

    round: int
    accuracy: float
    worst: float
    loss: float
    spread: float
    bytes_sent: int | None
    seconds: float
    cut: int = 0
    incidents: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a line of a log."""
        return asdict(self)


@dataclass(frozen=True)
class GossipRun:
    """A run that has ended: its last state, its rounds, and what nodes' noise has spent."""

    state: GossipState = field(repr=False)
    records: tuple[GossipRecord, ...]
    ledger: Ledger
    executed_by: str

    @property
    def last(self) -> GossipRecord:
        """The last round."""
        return self.records[-1]


def play_gossip(
    scenario: GossipScenario,
    *,
    executor: str = "sequential",
    ledger_file: Path | None = None,
    silent: Mapping[int, Mapping[int, int]] | None = None,
    told: Callable[[GossipRecord], None] | None = None,
) -> GossipRun:
    """Play all rounds, and measure the honest nodes' models after each.

    Args:
        scenario: the run's parts.
        executor: as in `training.executors`.
        ledger_file: where charges go before each round's first message.
        silent: by round, as in `Gossip.play`.
        told: is handed each record.
    """
    gossip = Gossip(scenario, executor=executor, ledger_file=ledger_file)
    real = scenario.channel.guarantee.measured
    state, records = gossip.begin(), list[GossipRecord]()
    try:
        for number in range(scenario.rounds):
            began = time.perf_counter()
            state, done = gossip.play(state, (silent or {}).get(number, NOBODY))
            taken = time.perf_counter() - began
            accuracy, worst, loss, apart = measured(scenario, state)
            records.append(
                GossipRecord(
                    number,
                    accuracy,
                    worst,
                    loss,
                    apart,
                    done.bytes_sent if real else None,
                    taken,
                    len(done.cut),
                    done.incidents,
                )
            )
            if told is not None:
                told(records[-1])
    finally:
        gossip.close()
        scenario.workload.model.write(gossip.start)
    return GossipRun(state, tuple(records), gossip.ledger, gossip.executed_by)


def measured(scenario: GossipScenario, state: GossipState) -> tuple[float, float, float, float]:
    """The honest nodes' mean and least accuracy, their mean loss, and their spread."""
    honest = [i for i in range(scenario.graph.n) if i not in scenario.liars]
    model = scenario.workload.model
    found = []
    for i in honest:
        model.write(state.models[i].float())
        found.append(evaluate(model.module, scenario.test))
    accuracies = [one.accuracy for one in found]
    losses = torch.tensor([one.loss for one in found])
    return (
        sum(accuracies) / len(honest),
        min(accuracies),
        float(losses.mean()),
        spread(state.models[honest]),
    )
