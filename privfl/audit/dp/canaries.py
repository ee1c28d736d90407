"""Canaries: orthogonal contributions that a private release must hide, and the scores that tell
whether it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from privfl.audit.dp.bounds import Scores
from privfl.core import BatchGradient, FlatModel, Vector, require

Release = Callable[[Sequence[Vector]], Vector]
"""The updates [d] of the clients that exist (any number, none too) -> what one round publishes [d]:
sampled, clipped, summed, noised.
"""


def client_scores(
    release: Release, *, l2: float, canaries: int, seed: int, rounds: int = 1, boost: float = 10.0
) -> tuple[Scores, Scores]:
    """Scores of canary clients that exist, and of those that do not, summed over ``rounds`` of one
    run.

    Canary i is the update ``boost`` times ``l2`` along axis i of d = ``canaries``, so a release
    that forgets to clip gives itself away. A fair coin decides whether it exists for the whole run;
    its score is what is published along its axis.
    """
    require.at_least(8, canaries=canaries)
    coins = np.random.default_rng(seed).random(canaries) < 0.5
    rows = torch.eye(canaries)[torch.from_numpy(coins)] * (boost * l2)
    published = torch.zeros(canaries, dtype=torch.float64)
    for _ in range(rounds):
        published += release(list(rows)).double()
    scores = published.numpy()
    return scores[coins], scores[~coins]


def gradient_scores(
    gradient: BatchGradient,
    *,
    l2: float,
    canaries: int,
    seed: int,
    steps: int = 1,
    boost: float = 10.0,
) -> tuple[Scores, Scores]:
    """Scores of canary samples in a step's gradient: the sample-level audit of the gradient seat of
    local training.

    The model is one linear unit whose loss on sample i has the gradient ``boost`` times ``l2``
    along axis i.
    """
    require.at_least(8, canaries=canaries)
    coins = np.random.default_rng(seed).random(canaries) < 0.5
    x = torch.eye(canaries)[torch.from_numpy(coins)] * (boost * l2)
    model = FlatModel(nn.Linear(canaries, 1, bias=False))
    published = torch.zeros(canaries, dtype=torch.float64)
    for _ in range(steps):
        gradient(model, mean_output, x, torch.zeros(len(x)))
        published += model.grad.double()
    scores = published.numpy()
    return scores[coins], scores[~coins]


def mean_output(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean of a linear unit on samples [n, d]: the gradient of a loss is the sample."""
    mean: Tensor = module(x).mean()
    return mean
