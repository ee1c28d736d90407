"""The plain channel's server where nothing but the sum of the rows is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from privfl.core import Buffer, ClientId, Mail, Opened, PartyId, RoundPlan, Total, client_of
from privfl.core.streaming import add_row
from privfl.crypto.plain_letters import NotUsable, checked


@dataclass
class SummingServer:
    """The server where nothing but the rows' sum is wanted: it adds each up when it comes."""

    plan: RoundPlan
    weighted: bool
    total: torch.Tensor | None = None
    weights: list[float] = field(default_factory=list)
    expected: set[ClientId] = field(default_factory=set)
    taken: dict[ClientId, None] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.expected = set(self.plan.cohort)

    def fold(self, sender: PartyId, body: Buffer) -> Buffer | None:
        """Add a row up, unless it cannot be used: why not is said when it arrives."""
        try:
            self._add(sender, body)
        except NotUsable:
            return None
        return b""

    def step(self, mail: Mail) -> Mail:
        """Add up what came and was not folded."""
        for who, body in mail.items():
            if not body and client_of(who) in self.taken:  # what was added up when it was written
                continue
            try:
                self._add(who, body)
            except NotUsable as refused:
                self.excluded.setdefault(who, str(refused))
        return {}

    def _add(self, who: PartyId, body: Buffer) -> None:
        client, row, weight = checked(self.plan, self.expected, self.taken, who, body)
        if self.total is None:
            self.total = torch.zeros(self.plan.d)
        weight = float(np.float32(weight)) if self.weighted else 1.0  # as rows carry weights
        add_row(self.total, row, weight)
        self.taken[client] = None
        self.weights.append(weight)

    @property
    def result(self) -> Opened[Total] | None:
        """The sum of all that came, by now."""
        if self.total is None:
            return None
        total = Total(self.total, float(torch.tensor(self.weights).sum()), len(self.weights))
        return Opened(total, tuple(self.taken), excluded=dict(self.excluded))
