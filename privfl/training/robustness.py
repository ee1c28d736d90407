"""How accurate a model is on samples that are moved against it: in the open (PGD with restarts),
and by attackers that see less, whom it must withstand at least as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from privfl.core import Dataset, cross_entropy, require
from privfl.training.adversarial import Ball, ascent


@dataclass(frozen=True, slots=True)
class Climb:
    """A ``ball`` around each sample, and how often and how far an attacker climbs in it."""

    ball: Ball
    steps: int = 20
    restarts: int = 1

    @property
    def alpha(self) -> float:
        """A step."""
        return 2.5 * self.ball.eps / self.steps


def robust_accuracy(
    module: nn.Module,
    data: Dataset,
    measured: Climb,
    rng: torch.Generator,
    *,
    source: nn.Module | None = None,
) -> float:
    """The share of samples that stay right under every restart of PGD (L-infinity, 20 steps unless
    said), each on the cross-entropy and on the margin of the right class (Carlini, Wagner 2017),
    whose slope does not vanish where a model is sure of itself. An upper bound on what stays right
    under all attacks, and no certificate.

    ``source`` climbs on another model (a transfer attack), which sees less of this one: where it
    does better than the model's own gradient, that gradient is masked, and the other figure is
    worth nothing (Athalye, Carlini, Wagner 2018).

    >>> model = nn.Linear(2, 2)
    >>> data = Dataset(torch.rand(8, 2), torch.arange(8) % 2, classes=2)
    >>> rng = torch.Generator().manual_seed(0)
    >>> robust_accuracy(model, data, Climb(Ball(9.0), restarts=2), rng)
    0.0
    """
    require.at_least(1, steps=measured.steps, restarts=measured.restarts)
    right = _right(module, data.x, data.y)
    climbed = module if source is None else source
    ball, steps, alpha = measured.ball, measured.steps, measured.alpha
    for _ in range(measured.restarts):
        for loss in (cross_entropy, _lag):
            moved = ascent(climbed, loss, data.x, data.y, ball, steps, alpha, rng)
            right &= _right(module, moved, data.y)
    return float(right.double().mean())


def searched_accuracy(
    module: nn.Module, data: Dataset, ball: Ball, queries: int, rng: torch.Generator
) -> float:
    """The share of samples that stay right under a random search that sees the answers alone: of
    each sample a random set of entries, fewer with time, goes to a corner of the ball, and stays
    there where the margin falls (in the manner of the Square attack, Andriushchenko, Croce,
    Flammarion, Hein 2020, without its squares).

    >>> model = nn.Linear(2, 2)
    >>> data = Dataset(torch.rand(8, 2), torch.arange(8) % 2, classes=2)
    >>> searched_accuracy(model, data, Ball(9.0), 50, torch.Generator().manual_seed(0))
    0.0
    """
    x, y = data.x, data.y

    def below(share: float) -> Tensor:
        """Each entry with a probability; the coins are of the CPU's generator."""
        return (torch.rand(x.shape, generator=rng) < share).to(x.device)

    corner = torch.where(below(0.5), -1.0, 1.0)
    best = ball.around(x, x + ball.eps * corner)
    margin = _margin(module, best, y)
    right = _right(module, x, y) & (margin > 0)
    for query in range(queries):
        share = max(0.3 * (1 - query / queries), 1.5 / math.prod(x.shape[1:]))
        chosen = below(share)
        signs = torch.where(below(0.5), -1.0, 1.0)
        tried = torch.where(chosen, ball.around(x, x + ball.eps * signs), best)
        now = _margin(module, tried, y)
        better = now < margin
        best[better], margin = tried[better], torch.minimum(now, margin)
        right &= margin > 0
    return float(right.double().mean())


def at_radius(measured: Climb, eps: float) -> Climb:
    """The same attacker in a ball of another radius.

    >>> at_radius(Climb(Ball(0.1)), 0.2).alpha
    0.025
    """
    return replace(measured, ball=replace(measured.ball, eps=eps))


def _margin(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """By how much the right class leads [n]."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return _lead(module(x), y)
    finally:
        module.train(training)


def _lag(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """By how much the right class lags on average, a scalar with a graph."""
    return -_lead(module(x), y).mean()


def _lead(logits: Tensor, y: Tensor) -> Tensor:
    own = functional.one_hot(y, logits.shape[1]).bool()
    lead: Tensor = logits[own] - logits.masked_fill(own, -math.inf).amax(dim=1)
    return lead


def _right(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return _margin(module, x, y) > 0
