"""Lying where clients vote about a model (the adversary that BaFFLe is made to stand)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import AnswerPoison, ConfigError, Knows


@dataclass(frozen=True, slots=True)
class LyingVote(AnswerPoison):
    """Report error rates that make this client's vote what the attacker wants (Andreina, Marson,
    Moellering, Karame 2021: BaFFLe, section V-C, malicious validating clients).

    ``accept`` reports that no model's errors ever changed, so that the new change is as ordinary as
    the others; ``refuse`` reports the same of the accepted models, and all errors turned over for
    the new one. There the clients send a bit, which a liar sets; here they send their rates and the
    defence judges them, so a liar makes up the rates. It sends honest updates, and is no liar where
    detections are scored by rows: put it beside an attack on the updates.

    Seat: answers. Knows nothing but how the vote is counted.

    Raises:
        ConfigError: votes is neither.

    >>> LyingVote().poison_errors(torch.tensor([[0.1], [0.2], [0.9]])).flatten()
    tensor([0.1000, 0.1000, 0.1000])
    """

    votes: Literal["accept", "refuse"] = "accept"

    def __post_init__(self) -> None:
        if self.votes not in ("accept", "refuse"):
            raise ConfigError(f"lying_vote: votes is accept or refuse, and is {self.votes!r}.")

    @property
    def knows(self) -> Knows:
        """Nothing but the defence's public rule."""
        return "nothing"

    def poison_errors(
        self, honest: Float[Tensor, "models classes"]
    ) -> Float[Tensor, "models classes"]:
        """Rates of one model for all, or of another one for the last."""
        rates = honest[:1].expand(honest.shape).clone()
        if self.votes == "refuse":
            rates[-1] = torch.where(rates[-1] < 0.5, 1.0, 0.0)
        return rates
