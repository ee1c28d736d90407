"""Gradient matching to machine precision: Gauss-Newton with conjugate gradients, in float64."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.attacks.inference import Family, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inversion.batch_size import tried
from privfl.attacks.inversion.matching import Problem, first_guess, problem
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View


@dataclass(frozen=True, slots=True)
class GaussNewton(Targeted):
    """Levenberg's damped Gauss-Newton on the L2 distance of updates (the second-order relative of
    Zhu, Liu, Han 2019).

    Matching gradients is a least-squares problem, whose curvature L-BFGS has to guess; products
    with the Jacobian and its transpose cost two passes each. Smooth nets are inverted to float32's
    last digit. Labels are recovered first. Adaptive as `GradientInversion` is, with the clip in its
    guess.

    Args:
        iterations: outer steps; ``inner`` conjugate-gradient steps in each; ``seconds`` to spend at
            most.
        restarts: fresh starts where a start got stuck.

    >>> GaussNewton().inner
    60
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 10, "inner": 20, "restarts": 2}}
    iterations: int = 60
    inner: int = 60
    restarts: int = 4
    seconds: float = 30.0
    target: Target = "client"
    client: ClientId | None = None
    adaptive: bool = True

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view; see `GradientInversion.infer` for what it raises."""
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        return tried(
            observed, forward, knowledge, lambda sized: self._solve(sized, forward, knowledge)
        )

    def _solve(self, observed: Observed, forward: Forward, knowledge: Knowledge) -> Reconstruction:
        posed = problem(
            observed,
            forward,
            knowledge,
            adaptive=self.adaptive,
            scale_free=False,
            dtype=torch.float64,
        )
        rng = knowledge.generator(3)
        until = time.monotonic() + self.seconds
        best, least = first_guess(posed, rng), float("inf")
        for attempt in range(self.restarts):
            x, mismatch = self._descend(
                posed, best if attempt == 0 else first_guess(posed, rng), until
            )
            if mismatch < least:
                best, least = x, mismatch
            if least < 1e-9 or time.monotonic() > until:
                break
        return Reconstruction(
            type(self).__name__, observed.view.adversary, best.float(), posed.labels, least
        )

    def _descend(self, posed: Problem, x: Tensor, until: float) -> tuple[Tensor, float]:
        scale = float(posed.goal.norm())
        damping, value = 1e-3, float("inf")
        for _ in range(self.iterations):
            x = x.detach().requires_grad_()
            residual = (posed.predicted(x) - posed.goal) / scale
            value = float(residual.detach().square().sum())
            if value < 1e-13 or time.monotonic() > until:
                break
            product = _Products(residual, x)
            step = torch.zeros_like(x)
            slope = product.transposed(residual.detach())
            size = float(slope.norm())
            if not 0 < size < float("inf"):
                break
            curvature = float(product.forward(slope / size).square().sum())
            for _ in range(8):
                step = _solve(product, slope, damping * curvature, self.inner, min(0.1, value**0.5))
                tried = (x - step).detach()
                after = float(
                    ((posed.predicted(tried.requires_grad_()) - posed.goal) / scale)
                    .detach()
                    .square()
                    .sum()
                )
                if after < value:
                    damping = max(damping / 5, 1e-12)
                    break
                damping *= 8
            else:
                break
            gained, value = value - after, after
            x = tried
            if gained < 1e-5 * after:
                break
        return x.detach(), value


class _Products:
    """J v and J' u of the residual [d] at x, from one graph that is used again and again."""

    def __init__(self, residual: Tensor, x: Tensor) -> None:
        self.residual, self.x = residual, x
        self.dummy = torch.zeros_like(residual, requires_grad=True)
        (self.linear,) = torch.autograd.grad(residual, x, self.dummy, create_graph=True)

    def transposed(self, u: Tensor) -> Tensor:
        return torch.autograd.grad(self.residual, self.x, u, retain_graph=True)[0]

    def forward(self, v: Tensor) -> Tensor:
        return torch.autograd.grad(self.linear, self.dummy, v, retain_graph=True)[0]


def _solve(product: _Products, slope: Tensor, damping: float, steps: int, until: float) -> Tensor:
    """Conjugate gradients on (J'J + damping) s = slope, until the residual is ``until`` times the
    slope: far from the end, roughly.
    """
    s = torch.zeros_like(slope)
    r, p = slope.clone(), slope.clone()
    rr = float(r.square().sum())
    first = rr
    for _ in range(steps):
        Jp = product.forward(p)
        Ap = product.transposed(Jp) + damping * p
        alpha = rr / max(float((p * Ap).sum()), 1e-300)
        s += alpha * p
        r -= alpha * Ap
        now = float(r.square().sum())
        if now < until**2 * first:
            break
        p = r + (now / rr) * p
        rr = now
    return s
