"""How much a run tells: every attack of a host on labels, each beside what needs no run at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import ConfigError, Seeds
from privfl.vertical.label_inference import by_completion, by_cosine, by_norm, by_spectrum, signed
from privfl.vertical.scores import BatchAUC, auc, told_by_batch
from privfl.vertical.view import HostView

ATTEMPTS = 3
"""Draws of what completion knows; its figure is their mean."""


@dataclass(frozen=True, slots=True)
class Leak:
    """How well one attack tells the positives, as AUC, and how well who saw no run does with the
    same knowledge (``blind``). ``better_sign`` as in `BatchAUC`; None for attacks on the whole run.
    """

    attack: str
    auc: float
    blind: float
    better_sign: float | None = None


def label_leaks(
    view: HostView, labels: Int[Tensor, " n"], *, known: int = 40, tries: int = 20, seed: int = 0
) -> tuple[Leak, ...]:
    """Play every attack of a host and score it by the true labels [n] of the rows.

    Attacks see the view, and of the labels: the cosine one positive (the mean over ``tries`` of
    them), completion ``known`` of each class, the norm and the spectrum as many for their sign.
    What they were told does not count. Scored by labels that were shuffled before, each has .5.

    Raises:
        ConfigError: more classes than two, or too few of one to know ``known``.

    >>> from privfl.vertical import VerticalLinear, VerticalTraining, train_vertically
    >>> from privfl.data import Holding
    >>> x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    >>> held = {"host/0": Holding(torch.arange(60), x, ("a", "b")),
    ...         "guest": Holding(torch.arange(60), x[:, :1], ("c",))}
    >>> y = (x.sum(dim=1) > 0).long()
    >>> run = train_vertically(held, y, 2, VerticalLinear(), VerticalTraining(epochs=1))
    >>> leaks = label_leaks(run.host_view("host/0"), y, known=5)
    >>> next(leak.auc for leak in leaks if "cosine" in leak.attack)
    1.0
    """
    if view.classes != 2:
        raise ConfigError("label inference is scored for two classes, and this run has more.")
    if min(int((labels == side).sum()) for side in (0, 1)) <= known:
        raise ConfigError(f"known: each class has to have more than {known} samples.")
    seeds = Seeds(seed)
    rows = _drawn(labels, known, seeds.generator("known signs"))
    places = torch.nonzero(torch.isin(view.rows, rows))[:, 0]
    told = labels[view.rows[places]]
    norms, spectrum = signed(by_norm(view), places, told), by_spectrum(view, places, told)
    return (
        _leak("norm", [_told(view, labels, norms, places)]),
        _leak("cosine to one known", _cosines(view, labels, tries, seeds)),
        _leak("spectral", [_told(view, labels, spectrum, places)]),
        _completion(view, labels, known, seeds),
    )


def _told(
    view: HostView,
    labels: Int[Tensor, " n"],
    scores: Float[Tensor, " m"],
    without: Int[Tensor, " k"] | None = None,
) -> BatchAUC:
    return told_by_batch(scores, labels[view.rows] == 1, view.batches, without=without)


def _leak(attack: str, told: Sequence[BatchAUC]) -> Leak:
    mean = sum(one.auc for one in told) / len(told)
    return Leak(attack, mean, 0.5, sum(one.better_sign for one in told) / len(told))


def _cosines(
    view: HostView, labels: Int[Tensor, " n"], tries: int, seeds: Seeds
) -> Sequence[BatchAUC]:
    places = torch.nonzero(labels[view.rows] == 1)[:, 0]
    order = torch.randperm(len(places), generator=seeds.generator("known positive"))[:tries]
    return [_told(view, labels, by_cosine(view, int(one)), one[None]) for one in places[order]]


def _drawn(labels: Int[Tensor, " n"], known: int, coins: torch.Generator) -> Int[Tensor, " k"]:
    """Some rows of each class."""
    order = torch.randperm(len(labels), generator=coins)
    return torch.cat([order[labels[order] == side][:known] for side in (0, 1)])


def _completion(view: HostView, labels: Int[Tensor, " n"], known: int, seeds: Seeds) -> Leak:
    sides = []
    for trained in (True, False):
        found = []
        for attempt in range(ATTEMPTS):
            rows = _drawn(labels, known, seeds.generator("known", attempt))
            scores = by_completion(view, rows, labels[rows], trained=trained, seed=attempt)
            rest = torch.ones(len(labels), dtype=torch.bool)
            rest[rows] = False
            found.append(auc(scores[: len(labels)][rest], labels[rest] == 1))
        sides.append(sum(found) / ATTEMPTS)
    return Leak(f"completion, {known} labels a class", *sides)
