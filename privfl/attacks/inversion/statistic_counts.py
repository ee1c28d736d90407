"""Label counts from the running statistics that clients send: what BatchNorm gives away where no
gradient is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from privfl.attacks.inference import (
    Family,
    Lacking,
    Observed,
    Target,
    Targeted,
    auxiliary,
    observe,
    recipe,
)
from privfl.attacks.inversion.batch_size import sizes
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.statistics import listening
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Counts
from privfl.core import BUFFERS, ClientId, Dataset, NotVisible, View

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths of the ridge, times the mean square of a feature, that shadows choose from."""
_LARGEST = 512
"""So many samples of a shadow are looked at, where a client has more."""


@dataclass(frozen=True, slots=True)
class StatisticCounts(Targeted):
    """How many samples of each class a batch held, from the change of running statistics alone (a
    linear property inference: Melis, Song, De Cristofaro, Shmatikov 2019, section 4.5, on another
    observation).

    The means and variances of a batch at every layer are means over its samples, so they move with
    how many of each class it holds. The adversary makes ``shadows`` batches of its auxiliary
    samples, of label shares drawn from Dirichlet distributions, leads them through the broadcast
    model as the recipe says, and regresses shares on the changes (ridge, chosen on a quarter of
    the shadows that was left out). Works on sums.

    >>> StatisticCounts(target="sum").target
    'sum'
    """

    family: ClassVar[Family] = "inversion"
    shadows: int = 400
    target: Target = "client"
    client: ClientId | None = None

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Counts:
        """Counts from the first view.

        Raises:
            NotVisible: the view shows no change of statistics of these clients.
            Lacking: the network has no statistics that clients send, samples have more than one
                label, or there are too few auxiliary ones.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        if forward.buffers != "averaged":
            raise Lacking("clients send no running statistics.")
        observed = observe(view, knowledge, self.target, self.client)
        if observed.buffers is None or BUFFERS not in view.extra:
            raise NotVisible(
                f"{view.adversary} reads no change of running statistics of round"
                f" {view.plan.number}."
            )
        held = auxiliary(knowledge, type(self).__name__, 40)
        if held.y.ndim > 1 or self.shadows < 8:
            raise Lacking("label counts are of one label a sample, from 8 shadows at least.")
        n = sizes(observed, forward)[0]
        X, Y = self._practice(observed, forward, held, n, knowledge.generator(51))
        shares = _regressed(X, Y, observed.buffers.to(X))
        return Counts(type(self).__name__, view.adversary, _rounded(shares, n))

    def _practice(
        self, observed: Observed, forward: Forward, held: Dataset, n: int, rng: torch.Generator
    ) -> tuple[Float[Tensor, "k s"], Float[Tensor, "k C"]]:
        """Changes that shadow batches make, and the label shares of each."""
        view, classes = observed.view, forward.classes
        simulator = Simulator(forward, view.before, round=view.plan.number)
        start, size = view.extra[BUFFERS], max(1, n // observed.clients)
        by_class = [(held.y == c).nonzero().squeeze(1) for c in range(classes)]
        there = torch.tensor([float(len(index) > 0) for index in by_class])
        rows, shares = [], []
        for at in range(self.shadows):
            picks = []
            for _ in range(observed.clients):
                spiky = (0.1, 0.5, 1.0, 10.0)[at % 4]
                weight = torch._standard_gamma(torch.full((classes,), spiky), generator=rng)
                weight = weight * there + 1e-9 * there
                drawn = torch.multinomial(weight, min(size, _LARGEST), True, generator=rng)
                picks.append(_samples(by_class, drawn, rng))
            with torch.no_grad(), listening(simulator.norms) as heard:
                for pick in picks:
                    for batch in _batches(forward, pick, size):
                        simulator.module(held.x[batch])
            rows.append(heard.change(start, observed.clients, forward.buffers_l2))
            counted = torch.bincount(held.y[torch.cat(picks)], minlength=classes).float()
            shares.append(counted / counted.sum())
        return torch.stack(rows).double(), torch.stack(shares).double()


def _samples(by_class: list[Tensor], drawn: Tensor, rng: torch.Generator) -> Tensor:
    """Positions of random samples of these classes."""
    at = [by_class[c][torch.randint(len(by_class[c]), (1,), generator=rng)] for c in drawn.tolist()]
    return torch.cat(at)


def _batches(forward: Forward, pick: Tensor, size: int) -> list[Tensor]:
    """The batches of a client's steps, as many as the recipe says, over and over its samples."""
    parts = torch.split(pick, max(1, min(forward.batch_size, len(pick))))
    return [parts[step % len(parts)] for step in range(forward.steps_on(size))]


def _regressed(
    X: Float[Tensor, "k s"], Y: Float[Tensor, "k C"], row: Float[Tensor, " s"]
) -> Float[Tensor, " C"]:
    """Label shares of a row by ridge regression on shadows, of the ridge that errs least on a
    quarter of them.
    """
    centre, spread = X.mean(dim=0), X.std(dim=0).clamp(min=1e-12)
    Z, z, offset = (X - centre) / spread, (row - centre) / spread, Y.mean(dim=0)
    K, own, k = Z @ Z.T, Z @ z.clamp(-8, 8), 3 * len(Z) // 4
    scale = K.diagonal().mean()

    def errs(ridge: float) -> float:
        A = K[:k, :k] + ridge * scale * torch.eye(k, dtype=K.dtype)
        guess = K[k:, :k] @ torch.linalg.solve(A, Y[:k] - offset) + offset
        return float((guess - Y[k:]).square().mean())

    ridge = min(RIDGES, key=errs)
    A = K + ridge * scale * torch.eye(len(K), dtype=K.dtype)
    shares: Tensor = own @ torch.linalg.solve(A, Y - offset) + offset
    return shares.clamp(min=0)


def _rounded(shares: Float[Tensor, " C"], n: int) -> Int[Tensor, " C"]:
    """Whole numbers that sum to n, nearest to the shares (largest remainders)."""
    whole = functional.normalize(shares, p=1, dim=0) * n
    counts = whole.floor()
    rest = n - int(counts.sum())
    counts[(whole - counts).argsort(descending=True)[:rest]] += 1
    return counts.long()
