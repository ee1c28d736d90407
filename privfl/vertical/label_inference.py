"""What a host learns of labels: from the gradients that it is sent (Li et al. 2022), and from its
own trained bottom with a few labels (Fu et al. 2022, model completion).
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import ConfigError
from privfl.vertical.scores import auc, grouped
from privfl.vertical.view import HostView, by_sample

ENOUGH = 32
"""Rows of a batch from which its own mean and singular vector say something."""


def by_norm(view: HostView) -> Float[Tensor, " m"]:
    """The length of each row: a sample of the rarer class is mistaken more, and its gradient is
    longer (Li et al. 2022, norm attack). Where neither is rare, labels that are known say which.
    """
    norms: Tensor = view.gradients.norm(dim=1)
    return norms


def by_cosine(view: HostView, known: int) -> Float[Tensor, " m"]:
    """The cosine to the row, in the same epoch, of ONE sample whose class is known (Li et al. 2022,
    direction attack; ``known`` is the sample).

    Raises:
        ConfigError: no such sample.
    """
    places = torch.nonzero(view.rows == known)[:, 0]
    if not len(places):
        raise ConfigError(f"known is a sample that was trained with, and is {known}.")
    scores = torch.zeros(len(view.rows))
    for place in places:
        here = view.epochs == view.epochs[place]
        one = view.gradients[place][None]
        scores[here] = nn.functional.cosine_similarity(view.gradients[here], one, dim=1)
    return scores


def by_spectrum(
    view: HostView, known: Int[Tensor, " k"], labels: Int[Tensor, " k"]
) -> Float[Tensor, " m"]:
    """The share of each row in the first singular vector of its batch, centred (Sun et al. 2022,
    spectral attack).

    A singular vector has no sign. That of a batch is the one nearer to the first singular vector of
    the whole epoch, and that of the epoch comes from a few samples whose labels the host knows, so
    that positives lie on the positive side. A batch of fewer than 32 rows, or of two for each
    coordinate, says little of its own: there the epoch's mean and vector are taken.
    """
    scores = torch.zeros(len(view.rows))
    label = dict(zip(known.tolist(), labels.tolist(), strict=True))
    for epoch in torch.unique(view.epochs):
        now = torch.nonzero(view.epochs == epoch)[:, 0]
        whole, middle = _first(view.gradients[now]), view.gradients[now].mean(dim=0)
        for places in grouped(view.batches[now]):
            here = now[places]
            rows, direction, centre = view.gradients[here], whole, middle
            if len(here) >= max(ENOUGH, 2 * rows.shape[1]):
                direction, centre = _first(rows), rows.mean(dim=0)
            side = 1.0 if float(direction @ whole) >= 0 else -1.0
            scores[here] = side * ((rows - centre) @ direction)
        told = now[torch.isin(view.rows[now], known)]
        truth = torch.tensor([label[row] for row in view.rows[told].tolist()])
        scores[now] = signed(scores[now], torch.searchsorted(now, told), truth)
    return scores


def together(
    view: HostView, scores: Float[Tensor, " m"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Each sample of the view, and one score for it: the sum of its scores in all epochs, those of
    each epoch over their deviation. Noise that is fresh in every epoch averages away in it.
    """
    rows, seen = by_sample(scores[:, None], view.rows, view.epochs)
    each = seen[:, :, 0]
    deviations = each.std(dim=0, unbiased=False).clamp(min=1e-30)
    return rows, (each / deviations).sum(dim=1)


def signed(
    scores: Float[Tensor, " m"], known: Int[Tensor, " k"], labels: Int[Tensor, " k"]
) -> Float[Tensor, " m"]:
    """Scores with the sign by which known rows tell their labels better.

    >>> signed(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    tensor([-3., -1., -2.])
    """
    return scores if auc(scores[known], labels == 1) >= 0.5 else -scores


def _first(rows: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
    """The first right singular vector of centred rows."""
    centred = rows - rows.mean(dim=0)
    vector: Tensor = torch.linalg.eigh(centred.T @ centred)[1][:, -1]
    return vector


def by_completion(
    view: HostView,
    known: Int[Tensor, " k"],
    labels: Int[Tensor, " k"],
    *,
    steps: int = 200,
    trained: bool = True,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """The host's bottom with a head of its own, trained on a few labelled rows of its holding; a
    score for each of its rows [n] (after Fu et al. 2022, passive model completion; the head alone
    is trained, without their semi-supervised step).

    ``trained=False`` is the blind baseline: the same labels, columns and kind of network, from
    fresh weights, so that what is above it came from the split training.

    Raises:
        ConfigError: labels that are not of both classes.
    """
    if set(labels.tolist()) != {0, 1}:
        raise ConfigError("completion needs labelled rows of both classes, 0 and 1.")
    bottom = view.bottom if trained else _fresh(view.bottom, seed)
    with torch.no_grad():
        width = bottom(view.holding.x[:1]).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(width, 1)
    learnt = [*head.parameters(), *([] if trained else bottom.parameters())]
    optimiser = torch.optim.Adam(learnt, lr=0.01, weight_decay=1e-3)
    x, y = view.holding.x[known], labels.float()
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.set_grad_enabled(not trained):
            features = bottom(x)
        logits = head(features)[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
        torch.autograd.backward([loss])
        optimiser.step()
    with torch.no_grad():
        scores: Tensor = head(bottom(view.holding.x))[:, 0]
    return scores


def by_columns(
    view: HostView, known: Int[Tensor, " k"], labels: Int[Tensor, " k"], *, ridge: float = 10.0
) -> Float[Tensor, " n"]:
    """A score for each row of the host's holding from its columns and a few labels alone, by ridge
    regression: a blind baseline, which reads nothing of the run.
    """
    x = view.holding.x - view.holding.x[known].mean(dim=0)
    rows, y = x[known], labels.float() - labels.float().mean()
    weights = torch.linalg.solve(rows.T @ rows + ridge * torch.eye(rows.shape[1]), rows.T @ y)
    scores: Tensor = x @ weights
    return scores


def by_likeness(view: HostView, known: int) -> Float[Tensor, " n"]:
    """A score for each row of the host's holding: the cosine of its centred columns to those of ONE
    sample whose class is known; what `by_cosine` knows, without the run.
    """
    x = view.holding.x - view.holding.x.mean(dim=0)
    return nn.functional.cosine_similarity(x, x[known : known + 1], dim=1)


def _fresh(bottom: nn.Module, seed: int) -> nn.Module:
    """The same network with other weights."""
    made = copy.deepcopy(bottom)
    coins = torch.Generator().manual_seed(seed)
    for layer in made.modules():
        if isinstance(layer, nn.Linear):
            reach = layer.in_features**-0.5
            for values in layer.parameters():
                with torch.no_grad():
                    values.uniform_(-reach, reach, generator=coins)
    return made
