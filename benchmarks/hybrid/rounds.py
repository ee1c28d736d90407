"""Updates within a bound, and rounds that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from privfl.core import Bounded, Channel, RoundPlan
from privfl.engine import Session


def bounded(n: int, d: int, l2: float = 1.0, seed: int = 0) -> dict[int, Bounded]:
    """Random updates within the bound."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    rows *= 0.9 * l2 / rows.norm(dim=1, keepdim=True)
    return {client: Bounded(client, row, l2) for client, row in enumerate(rows)}


@dataclass
class Rounds:
    """One round after another over a channel."""

    channel: Channel[Any]
    sent: Mapping[int, Bounded]
    number: int = 0

    def __post_init__(self) -> None:
        self.session = Session(self.channel)
        self.session.enrol(self.sent)

    def __call__(self) -> None:
        """The next round, all parties on one thread."""
        first = next(iter(self.sent.values()))
        plan = RoundPlan(
            self.number, tuple(self.sent), len(first.delta), first.l2, session=b"benchmark"
        )
        self.number += 1
        outcome = self.session.play(plan, self.sent)
        if outcome.opened is None or len(outcome.opened.survivors) != len(self.sent):
            raise RuntimeError(f"the round failed: {dict(outcome.aborts)}")
        self.sent_bytes = outcome.bytes_sent()
