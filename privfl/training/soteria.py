"""Soteria: the features that tell most about a client's samples keep their gradient to
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from privfl.core import FlatModel, LocalPlan, Loss, NoisySteps, UnsupportedModel, require
from privfl.training.gradient import PlainGradient


@dataclass(frozen=True, slots=True)
class Soteria:
    """Prune the last linear layer's gradient at the features r with the largest |r| / |dr/dx| (Sun,
    Li, Wang, Yang, Li, Chen 2021, eq. 9).

    A practical defence without a guarantee: it stops gradient matching that does not know of it,
    and an attacker who leaves the pruned columns out of the comparison gets most of it back
    (Balunovic, Dimitrov, Staab, Vechev 2022). No privacy is accounted.

    Args:
        share: of the features, pruned in every step.

    >>> Soteria(share=0.8).share
    0.8
    """

    private: ClassVar[bool] = False

    share: float = 0.5

    def __post_init__(self) -> None:
        require.within(0, 1, share=self.share)

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        """Those of plain SGD."""
        return PlainGradient().batches(n, plan, rng)

    def __call__(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float | Tensor:
        """Write the pruned gradient into ``model.grad``; the batch's mean loss.

        Raises:
            UnsupportedModel: the model has no linear layer.
        """
        value = PlainGradient()(model, loss, x, y)
        linear = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise UnsupportedModel(
                "Soteria prunes the features under the last linear layer, and this model has none."
            )
        state, counts = model.state.clone(), model.counts.clone()
        kept = self._kept(model.module, linear[-1], x)
        model.state.copy_(state)  # running statistics saw the batch once already
        model.counts.copy_(counts)
        gradient = linear[-1].weight.grad
        if gradient is not None:
            gradient.mul_(kept)
        return value

    def _kept(self, module: nn.Module, last: nn.Linear, x: Tensor) -> Tensor:
        """1 for features that keep their gradient [features], 0 for the others; samples of a batch
        decide together.
        """
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            inner = x.detach().clone().requires_grad_()
            module(inner)
        finally:
            hook.remove()
        r = seen[0].flatten(0, -2)
        features = torch.eye(r.shape[1], device=r.device)
        slopes = [
            torch.autograd.grad(
                r.sum(dim=0), inner, part, retain_graph=True, is_grads_batched=True
            )[0]
            .flatten(2)
            .norm(dim=2)
            for part in torch.split(features, 64)
        ]
        told = (r.detach().abs().T / torch.cat(slopes).clamp(min=1e-12)).mean(dim=1)
        kept = torch.ones(len(told), device=r.device)
        kept[told.topk(round(self.share * len(told))).indices] = 0.0
        return kept

    def noisy(self, n: int, plan: LocalPlan, steps: int) -> tuple[NoisySteps, ...]:
        """None: there is no guarantee."""
        return ()
