"""How much a run tells: every attack of a host on labels, each beside what needs no run at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from privfl.core import ConfigError, Seeds, require
from privfl.vertical.label_inference import (
    by_columns,
    by_completion,
    by_cosine,
    by_likeness,
    by_norm,
    by_spectrum,
    signed,
    together,
)
from privfl.vertical.scores import BatchAUC, auc, told_by_batch
from privfl.vertical.view import HostView

ATTEMPTS = 3
"""Draws of what completion knows; its figure is their mean."""


@dataclass(frozen=True, slots=True)
class Leak:
    """How well one attack tells the positives, as AUC, and how well who saw no run does with the
    same knowledge (``blind``: the better of two learners on the host's columns and the same labels;
    beside the cosine, the likeness of columns to those of the same known sample).

    ``auc``: of one score a sample, from all epochs. ``by_batch`` and ``better_sign``: means of
    single batches (`BatchAUC`); None for attacks on the whole run.
    """

    attack: str
    auc: float
    blind: float
    by_batch: float | None = None
    better_sign: float | None = None


def label_leaks(
    view: HostView, labels: Int[Tensor, " n"], *, known: int = 40, tries: int = 20, seed: int = 0
) -> tuple[Leak, ...]:
    """Play every attack of a host and score it by the true labels [n] of the rows.

    Attacks see the view, and of the labels: the cosine one positive (the mean over ``tries`` of
    them), completion ``known`` of each class, the norm and the spectrum as many for their sign.
    What they were told does not count. Scored by labels that were shuffled before, each has .5.

    Raises:
        ConfigError: labels that are not of the rows, more classes than two, too few of one to know
            ``known``, or no tries.

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
    if not torch.equal(torch.unique(view.rows), torch.arange(len(labels))):
        raise ConfigError(f"{len(labels)} labels are not those of the samples that were trained.")
    require.positive(known=known, tries=tries)
    if min(int((labels == side).sum()) for side in (0, 1)) <= known:
        raise ConfigError(f"known: each class has to have more than {known} samples.")
    seeds = Seeds(seed)
    rows = _drawn(labels, known, seeds.generator("known signs"))
    places = torch.nonzero(torch.isin(view.rows, rows))[:, 0]
    norms = signed(by_norm(view), places, labels[view.rows[places]])
    spectrum = by_spectrum(view, rows, labels[rows])
    completed, blind = _completion(view, labels, known, seeds)
    return (
        _leak("norm", [_told(view, labels, norms, rows)], blind),
        _cosines(view, labels, tries, seeds),
        _leak("spectral", [_told(view, labels, spectrum, rows)], blind),
        Leak(f"completion, {known} labels a class", completed, blind),
    )


def _told(
    view: HostView, labels: Int[Tensor, " n"], scores: Float[Tensor, " m"], known: Int[Tensor, " k"]
) -> tuple[float, BatchAUC]:
    """From all epochs together, and by batch; what was known does not count."""
    rows, sums = together(view, scores)
    without = torch.nonzero(torch.isin(view.rows, known))[:, 0]
    batch = told_by_batch(scores, labels[view.rows] == 1, view.batches, without=without)
    return _among(sums, labels[rows], ~torch.isin(rows, known)), batch


def _among(
    scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], here: Bool[Tensor, " n"]
) -> float:
    return auc(scores[here], labels[here] == 1)


def _leak(attack: str, told: Sequence[tuple[float, BatchAUC]], blind: float) -> Leak:
    return Leak(
        attack,
        fmean(whole for whole, _ in told),
        blind,
        fmean(batch.auc for _, batch in told),
        fmean(batch.better_sign for _, batch in told),
    )


def _cosines(view: HostView, labels: Int[Tensor, " n"], tries: int, seeds: Seeds) -> Leak:
    positives = torch.nonzero(labels == 1)[:, 0]
    order = torch.randperm(len(positives), generator=seeds.generator("known positive"))[:tries]
    found, blind = [], []
    for one in positives[order]:
        found.append(_told(view, labels, by_cosine(view, int(one)), one[None]))
        alike = by_likeness(view, int(one))[: len(labels)]
        blind.append(_among(alike, labels, torch.arange(len(labels)) != one))
    return _leak("cosine to one known", found, fmean(blind))


def _drawn(labels: Int[Tensor, " n"], known: int, coins: torch.Generator) -> Int[Tensor, " k"]:
    """Some rows of each class."""
    order = torch.randperm(len(labels), generator=coins)
    return torch.cat([order[labels[order] == side][:known] for side in (0, 1)])


def _completion(
    view: HostView, labels: Int[Tensor, " n"], known: int, seeds: Seeds
) -> tuple[float, float]:
    """Completion, and the better of the two learners that know as much and saw no run."""
    found: list[tuple[float, float, float]] = []
    for attempt in range(ATTEMPTS):
        rows = _drawn(labels, known, seeds.generator("known", attempt))
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[rows] = False
        trained, fresh = (
            by_completion(view, rows, labels[rows], trained=trained, seed=attempt)
            for trained in (True, False)
        )
        ridge = by_columns(view, rows, labels[rows])
        told = (_among(made[: len(labels)], labels, rest) for made in (trained, fresh, ridge))
        found.append((next(told), next(told), next(told)))
    whole, network, linear = (fmean(each) for each in zip(*found, strict=True))
    return whole, max(network, linear)
