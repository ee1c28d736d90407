"""What a host learns of labels: from the gradients that it is sent (Li et al. 2022), and from its
own trained bottom with a few labels (Fu et al. 2022, model completion).
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import ConfigError
from privfl.vertical.scores import auc
from privfl.vertical.view import HostView


def by_norm(view: HostView) -> Float[Tensor, " m"]:
    """The length of each row: a sample of the rarer class is mistaken more, and its gradient is
    longer (Li et al. 2022, norm attack). Where neither is rare, labels that are known say which.
    """
    norms: Tensor = view.gradients.norm(dim=1)
    return norms


def by_cosine(view: HostView, known: int) -> Float[Tensor, " m"]:
    """The cosine to the row of ONE sample whose class is known (Li et al. 2022, direction attack;
    ``known`` is its position in the view).

    Raises:
        ConfigError: no such position.
    """
    if not 0 <= known < len(view.rows):
        raise ConfigError(f"known is a position among {len(view.rows)} rows, and is {known}.")
    one = view.gradients[known : known + 1]
    return nn.functional.cosine_similarity(view.gradients, one, dim=1)


def by_spectrum(
    view: HostView, known: Int[Tensor, " k"], labels: Int[Tensor, " k"]
) -> Float[Tensor, " m"]:
    """The share of each row in the first singular vector of its batch, centred (Sun et al. 2022,
    spectral attack).

    A singular vector has no sign. That of a batch is the one nearer to the first singular vector of
    the whole epoch, and that of the epoch comes from a few rows whose labels the host knows
    (positions in the view), so that positives lie on the positive side.
    """
    whole = _first(view.gradients)
    scores = torch.zeros(len(view.rows))
    for number in sorted(set(view.batches.tolist())):
        here = view.batches == number
        rows = view.gradients[here]
        direction = _first(rows)
        side = 1.0 if float(direction @ whole) >= 0 else -1.0
        scores[here] = side * ((rows - rows.mean(dim=0)) @ direction)
    return signed(scores, known, labels)


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
