"""How far gradient ascent pushes: tried on the adversary's own samples before anything is sent."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.membership.gradients import losses
from privfl.attacks.membership.white_box import GradientAscent
from privfl.core import Dataset, Vector

GAMMAS = (0.2, 0.5, 1.0, 2.0)
"""Lengths of the push that are tried."""
VICTIMS = 4
"""Shadow clients on whom each is tried."""


def rehearsed_gamma(start: Vector, knowledge: Knowledge, size: int) -> float:
    """The length of the push that tells best which of a shadow client's samples it trained on, on
    average over shadow clients of ``size`` samples from ``start``; 1 where the adversary cannot
    train shadows or has fewer than 16 samples of its own.
    """
    held, forward, trainer = knowledge.auxiliary, knowledge.forward, knowledge.trainer
    if held is None or forward is None or trainer is None or held.n < 16:
        return 1.0
    each = max(2, min(size, held.n // (2 * VICTIMS)))
    order = torch.randperm(held.n, generator=knowledge.generator(31))
    inside = torch.arange(2 * each) < each
    area = dict.fromkeys(GAMMAS, 0.0)
    for victim in range(VICTIMS):
        asked = held.take(order[2 * each * victim : 2 * each * (victim + 1)])
        own = Dataset(asked.x, asked.y, asked.classes)
        attack = GradientAscent(own, forward, groups=1)
        for gamma in GAMMAS:
            sent = start + replace(attack, gamma=gamma).push(start, 0)
            delta = trainer(sent, own, [inside.nonzero().squeeze(1)], seed=knowledge.seed)[0]
            delta = delta * min(1.0, forward.l2 / max(float(delta.norm()), 1e-30))
            left = losses(Simulator(forward, sent + delta), own)
            area[gamma] += _area(-left, inside)
    return max(GAMMAS, key=area.__getitem__)


def _area(scores: Tensor, inside: Tensor) -> float:
    above = scores[inside][:, None] - scores[~inside][None]
    return float((above > 0).double().mean() + (above == 0).double().mean() / 2)
