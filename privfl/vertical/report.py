"""What a vertical run says of itself: accuracy beside who would train alone, cost, what its parties
read of each other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from privfl.core import ConfigError
from privfl.vertical.config import VerticalConfig, VerticalTask
from privfl.vertical.leakage import Leak, label_leaks
from privfl.vertical.parties import GUEST
from privfl.vertical.sample_inference import Inversion, sample_leaks
from privfl.vertical.training import VerticalRun, train_vertically


@dataclass(frozen=True, slots=True)
class VerticalReport:
    """Figures of one run: accuracy on test rows of the split network, of the guest alone, and of
    the commonest class; bytes of all training; CPU seconds of it; how many columns each party has;
    leaks by host: of labels to it, of its columns to the guest (who knows five times ``known`` of
    its rows).
    """

    accuracy: float
    guest_alone: float
    commonest: float
    samples: int
    columns: Mapping[str, int]
    bytes_sent: int
    seconds: float
    promise: str
    labels: Mapping[str, tuple[Leak, ...]]
    columns_read: Mapping[str, tuple[Inversion, ...]]

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return asdict(self)


def report_of(config: VerticalConfig, task: VerticalTask) -> tuple[VerticalRun, VerticalReport]:
    """Train as a config says, and attack.

    Raises:
        ConfigError: parts that do not fit the data.
        RoundFailed: a party gave up.
    """
    y, test = task.y[: task.trained], task.test
    _known_fits(config.known, y, task.classes)
    began = time.process_time()
    run = train_vertically(
        task.holdings,
        y,
        task.classes,
        config.model,
        config.training,
        defence=config.defence,
        seed=config.seed,
    )
    seconds = time.process_time() - began
    alone = train_vertically(
        {GUEST: task.holdings[GUEST]},
        y,
        task.classes,
        config.model,
        config.training,
        seed=config.seed,
    )
    leaks = {}
    if task.classes == 2:
        leaks = {
            host: label_leaks(run.host_view(host), y, known=config.known, seed=config.seed)
            for host in run.hosts
        }
    commonest = torch.bincount(y, minlength=task.classes).argmax()
    return run, VerticalReport(
        accuracy=run.accuracy(test, task.y[test]),
        guest_alone=alone.accuracy(test, task.y[test]),
        commonest=float((task.y[test] == commonest).double().mean()),
        samples=task.trained,
        columns={party: len(held.names) for party, held in task.holdings.items()},
        bytes_sent=run.bytes_sent,
        seconds=seconds,
        promise=config.defence.describe(),
        labels=leaks,
        columns_read={
            host: sample_leaks(
                run.guest_view(host), member.holding, known=5 * config.known, seed=config.seed
            )
            for host, member in run.hosts.items()
        },
    )


def _known_fits(known: int, y: Int[Tensor, " n"], classes: int) -> None:
    """Before anybody trains: attacks that know ``known`` labels of each class, and five times as
    many rows, need others to be scored by.
    """
    fewest = int(torch.bincount(y, minlength=classes).min()) if classes == 2 else len(y)
    if 5 * known >= len(y) or known >= fewest:
        raise ConfigError(
            f"known is {known}: an attacker knows so many labels of each class, and five times as"
            f" many rows, and of {len(y)} training rows ({fewest} of the rarer class) none would be"
            " left to score. Lower known, or raise data.samples."
        )
