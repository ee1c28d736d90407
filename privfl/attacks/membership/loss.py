"""The oldest membership test: members have a smaller loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

import torch

from privfl.attacks.inference import Family, Inference, candidates, recipe
from privfl.attacks.inversion.simulate import Simulator, standing
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.membership.gradients import losses
from privfl.attacks.result import Scores
from privfl.core import View

Signal: TypeAlias = Literal["loss", "entropy"]


@dataclass(frozen=True, slots=True)
class LossThreshold(Inference):
    """A small loss at the released model says member (Yeom, Giacomelli, Fredrikson, Jha 2018,
    section 3).

    ``signal="entropy"`` is the modified prediction entropy of Song, Mittal (2021), which a
    confident mistake raises. Needs nothing but the model, which every adversary on the broadcast
    has: the baseline that any other attack must beat.

    >>> LossThreshold().signal
    'loss'
    """

    family: ClassVar[Family] = "membership"
    signal: Signal = "loss"

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """Minus the signal at the last view's released model.

        Raises:
            Lacking: there are no candidates, or the architecture is not known.
        """
        view = views[-1]
        pool = candidates(knowledge, type(self).__name__)
        forward, later = recipe(view, knowledge), replace(view, extra=view.extra_after)
        simulator = Simulator(
            forward,
            view.after,
            round=view.plan.number,
            statistics=standing(later, forward, view.after, pool.x),
        )
        if self.signal == "loss":
            return Scores(type(self).__name__, view.adversary, -losses(simulator, pool))
        with torch.no_grad():
            p = torch.softmax(simulator.module(pool.x), dim=-1).clamp(1e-12, 1 - 1e-7)
        own = p.gather(1, pool.y[:, None]).squeeze(1)
        entropy = -(1 - own) * own.log() - (p * (1 - p).log()).sum(dim=1) + own * (1 - own).log()
        return Scores(type(self).__name__, view.adversary, -entropy)
