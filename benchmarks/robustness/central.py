"""Where attacks near convergence start: a model that one trainer made of all data."""

from __future__ import annotations

from torch import nn

from privfl import Federation
from privfl.config import AuditConfig
from privfl.data import Split
from privfl.training import LocalSGD


def train_centrally(model: nn.Module, split: Split, training: LocalSGD, seed: int) -> None:
    """Train the model in place, as a federation of one client and one round."""
    Federation(
        model,
        [split.train],
        split.test,
        rounds=1,
        training=training,
        seed=seed,
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=100),
    ).run()
