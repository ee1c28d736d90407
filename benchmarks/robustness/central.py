"""Where attacks near convergence start: a model that one trainer made of all data; and the small
convolutional net with images laid out as convolutions are fast on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from privfl import Federation, models
from privfl.config import AuditConfig
from privfl.data import Split
from privfl.federation import Run
from privfl.training import LocalSGD


def train_centrally(model: nn.Module, split: Split, training: LocalSGD, seed: int) -> None:
    """Train the model in place, as a federation of one client and one round."""
    Federation(
        model,
        [split.train],
        glance(split).test,
        rounds=1,
        training=training,
        seed=seed,
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=100),
    ).run()


def pull(run: Run) -> tuple[float, float]:
    """The norm of the mean of the rows of a run's first round, and the mean of their norms: how far
    a round of equal weights moves the model at server rate 1, and how far it would if they did not
    cancel.
    """
    rows = run.view("server", 0).rows.values
    return float(rows.mean(dim=0).norm()), float(rows.norm(dim=1).mean())


def glance(split: Split) -> Split:
    """The same with the first 64 test samples alone, for runs whose own figures nobody reads: what
    is shown is measured on the whole test set, once.
    """
    return replace(split, test=split.test.take(range(64)))


class ChannelsLast(nn.Module):
    """Images [n, c, h, w] with the same values, whose channels lie together in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """The images."""
        n, c, h, w = x.shape
        return x.permute(0, 2, 3, 1).reshape(-1).view(n, h, w, c).permute(0, 3, 1, 2)


def cnn(shape: Sequence[int], classes: int) -> nn.Sequential:
    """`privfl.models.cnn`, which trains 1.5 times as fast so and answers 2.5 times as fast: its
    convolutions and maxima then have their channels last as well.
    """
    return nn.Sequential(ChannelsLast(), *models.cnn(shape, classes))
