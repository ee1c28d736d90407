"""Deep Leakage from Gradients: samples and labels together, by L-BFGS on the L2 distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from privfl.attacks.inference import Family, Lacking, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inversion.batch_size import tried
from privfl.attacks.inversion.matching import Problem, drawn, first_guess, problem
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View


@dataclass(frozen=True, slots=True)
class DLG(Targeted):
    """Deep Leakage from Gradients (Zhu, Liu, Han 2019): L-BFGS on the L2 distance of gradients,
    over samples and soft labels together.

    Works on smooth nets with few samples; fails on ReLU nets and large batches, where
    `GradientInversion` goes on. It takes an update for one plain gradient; ``adaptive`` undoes the
    learning rate and applies the clip to its guess.

    >>> DLG().iterations
    400
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 20, "restarts": 2}}
    iterations: int = 400
    restarts: int = 3
    target: Target = "client"
    client: ClientId | None = None
    adaptive: bool = True
    knows_labels: ClassVar[bool] = False

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view; see `GradientInversion.infer` for what it raises."""
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        if self.restarts < 1:
            raise Lacking("DLG needs restarts of at least 1.")
        return tried(
            observed, forward, knowledge, lambda sized: self._solve(sized, forward, knowledge)
        )

    def _solve(self, observed: Observed, forward: Forward, knowledge: Knowledge) -> Reconstruction:
        posed = problem(observed, forward, knowledge, adaptive=self.adaptive, scale_free=False)
        rng = knowledge.generator(2)
        best = self._descend(posed, first_guess(posed, rng), forward.classes, rng)
        for _ in range(self.restarts - 1):
            if best[2] < 1e-9:
                break
            found = self._descend(posed, first_guess(posed, rng), forward.classes, rng)
            best = min(best, found, key=lambda told: told[2])
        return Reconstruction(type(self).__name__, observed.view.adversary, *best)

    def _descend(
        self, posed: Problem, start: Tensor, classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, float]:
        x = start.clone().requires_grad_()
        soft = drawn((len(x), classes), rng, x.detach()).requires_grad_()
        joint = posed.as_gradient and not self.knows_labels
        free = [x, soft] if joint else [x]
        descent = torch.optim.LBFGS(
            free, lr=1.0, max_iter=20, history_size=50, line_search_fn="strong_wolfe"
        )
        last = [float("inf")]

        def loss() -> Tensor:
            descent.zero_grad()
            value = self._soft_mismatch(posed, x, soft) if joint else posed.mismatch(x, "l2")
            value.backward(inputs=free)  # type: ignore[no-untyped-call]
            last[0] = float(value.detach())
            return value

        before = float("inf")
        for _ in range(max(1, self.iterations // 20)):
            descent.step(loss)  # type: ignore[no-untyped-call]
            if not last[0] < before * 0.999 or last[0] < 1e-13:
                break
            before = last[0]
        y = soft.detach().argmax(dim=1) if joint else posed.labels
        mismatch = last[0] if last[0] == last[0] else float("inf")
        return x.detach().nan_to_num(0.0), y, mismatch

    def _soft_mismatch(self, posed: Problem, x: Tensor, soft: Tensor) -> Tensor:
        logits = posed.simulator.module(x)
        loss = (
            -(functional.softmax(soft, dim=-1) * functional.log_softmax(logits, dim=-1))
            .sum(dim=-1)
            .mean()
        )
        grads = torch.autograd.grad(loss, posed.simulator.leaves, create_graph=True)
        guess = torch.cat([g.reshape(-1) for g in grads])
        guess = guess if posed.mask is None else guess[posed.mask]
        return (guess - posed.goal).square().sum() / posed.goal.square().sum()


@dataclass(frozen=True, slots=True)
class IDLG(DLG):
    """Improved Deep Leakage from Gradients (Zhao, Mopuri, Bilen 2020): the label is read first,
    from the sign of the last gradient.

    >>> IDLG().knows_labels
    True
    """

    knows_labels: ClassVar[bool] = True
