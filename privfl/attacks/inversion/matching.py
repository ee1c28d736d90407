"""Gradient matching: samples whose update looks like the observed one (Inverting Gradients)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.inference import (
    Family,
    Lacking,
    Observed,
    Target,
    Targeted,
    auxiliary,
    observe,
    recipe,
)
from privfl.attacks.inversion.batch_size import sizes, tried
from privfl.attacks.inversion.labels import labels
from privfl.attacks.inversion.natural import OWN, OwnPrior
from privfl.attacks.inversion.rehearsal import apart, best, fitting, victims
from privfl.attacks.inversion.repeated import Repeated
from privfl.attacks.inversion.simulate import Simulator, frozen
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View

Objective: TypeAlias = Literal["cosine", "l2"]
TVS = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0)
"""Weights of the total variation that a rehearsal tries."""
RATES = (1.0, 0.3, 3.0)
"""Multiples of the step that it tries then."""
VICTIMS = 4
"""Shadow victims in a rehearsal."""
REHEARSED = 200
"""Iterations of one start in a rehearsal at most: which prior is best shows early."""
_SPARSE = 0.5
"""An update with more zeros than this was pruned: only what is left is matched."""
_SPARSE_LAYER = 0.3
"""So is one parameter with more zeros than this, as practical defences of single layers leave it
(dead features do as well).
"""


def total_variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of images [n, channels, height, width]; zero
    for anything else.

    >>> total_variation(torch.zeros(2, 1, 4, 4))
    tensor(0.)
    """
    if x.ndim != 4:
        return x.new_zeros(())
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (
        x[..., :, 1:] - x[..., :, :-1]
    ).abs().mean()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is matched: the simulator, the observed vector [d] (as a gradient where that is enough),
    labels, and the box of features.
    """

    simulator: Simulator
    goal: Float[Tensor, " d"]
    labels: Int[Tensor, " n"]
    low: Tensor
    high: Tensor
    as_gradient: bool
    mask: Tensor | None
    noise: float

    def predicted(self, x: Tensor) -> Float[Tensor, " d"]:
        """What the guess would have caused, with a graph."""
        flat = (
            self.simulator.gradient(x, self.labels)
            if self.as_gradient
            else self.simulator.update(x, self.labels)
        )
        return flat if self.mask is None else flat[self.mask]

    def mismatch(self, x: Tensor, objective: Objective) -> Tensor:
        """How far the guess is from what was observed: 1 - cosine, or squared L2 distance over the
        observed square.
        """
        guess = self.predicted(x)
        if objective == "l2":
            distance: Tensor = (guess - self.goal).square().sum() / self.goal.square().sum()
            return distance
        return _apart(guess, self.goal)


class _Apart(torch.autograd.Function):
    """1 - the cosine of a guess [d] and the goal [d], which is a constant."""

    @staticmethod
    def forward(ctx: Any, guess: Tensor, goal: Tensor) -> Tensor:
        own, other = guess.norm(), goal.norm()
        ctx.save_for_backward(guess, goal)
        cosine: Tensor = torch.dot(guess, goal) / (own * other + 1e-30)
        return 1 - cosine

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        guess, goal = ctx.saved_tensors
        own = guess.norm()
        product = own * goal.norm() + 1e-30
        # no square of the product, which is 0 where gradients are short
        along = torch.dot(guess, goal) / product / own.clamp(min=1e-30) * (goal.norm() / product)
        return torch.addcmul(guess * (slope * along), goal, slope / product, value=-1), None


_apart: Callable[..., Tensor] = _Apart.apply


def problem(
    observed: Observed,
    forward: Forward,
    knowledge: Knowledge,
    *,
    adaptive: bool,
    scale_free: bool,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """The problem that a view poses. ``adaptive`` False takes the update for one plain gradient, as
    DLG does.

    ``scale_free``: the objective does not look at lengths, so that a clip needs no thought.

    Raises:
        Lacking: labels or their number cannot be known; samples are tokens.
    """
    if observed.base.dtype != torch.float32:
        raise Lacking("gradients are inverted in float32 models.")
    if forward.tokens:
        raise Lacking("no gradient leads to tokens: EmbeddingLeakage reads them off an embedding.")
    y = labels(observed, forward, knowledge)
    simulator = Simulator(
        forward,
        observed.base.to(dtype),
        round=observed.view.plan.number,
        clients=observed.clients if adaptive else 1,
        dtype=dtype,
        statistics=frozen(observed.view, forward),
    )
    clipped = forward.l2 < float("inf") and not (scale_free and observed.clients == 1)
    apart = clipped or (bool(simulator.norms) and observed.clients > 1)
    as_gradient = not adaptive or (simulator.single_step(len(y)) and not apart)
    goal = observed.delta.to(dtype)
    if as_gradient:
        goal = -goal / simulator.lr
    mask = None
    if adaptive:
        mask = _not_pruned(goal, simulator)
        goal = goal if mask is None else goal[mask]
    if not bool(goal.square().sum() > 0):
        raise Lacking("the update is zero, so there is nothing to match.")
    low, high = forward.span(goal)
    noise = (
        observed.noise * observed.delta.numel() ** 0.5 / max(float(observed.delta.norm()), 1e-30)
    )
    return Problem(simulator, goal, y, low, high, as_gradient, mask, noise)


def _not_pruned(goal: Float[Tensor, " d"], simulator: Simulator) -> Tensor | None:
    """Positions of what was sent, or None where that is everything."""
    there = goal != 0
    if float(there.float().mean()) >= 1 - _SPARSE:
        for part in torch.split(there, [leaf.numel() for leaf in simulator.leaves]):
            if float(part.float().mean()) > 1 - _SPARSE_LAYER:
                part.fill_(True)
    return None if bool(there.all()) else there.nonzero().squeeze(1)


@dataclass(frozen=True, slots=True)
class GradientInversion(Targeted):
    """Inverting Gradients (Geiping, Bauermeister, Dröge, Moeller 2020): cosine distance plus total
    variation, by Adam on signs.

    Labels are recovered first, from the last layer. Adaptive: several local steps are simulated, a
    clip does not matter to a cosine, what was pruned is not matched, and noise raises the weight of
    the prior. ``adaptive=False`` matches the update in L2 as if it were one plain gradient at the
    published rate. ``target="sum"`` works on what secure aggregation shows.

    Args:
        iterations: of each start; ``restarts`` starts race over the first tenth of them, and the
            best goes on.
        lr: in units of the features' range; divided by 10 after 3/8, 5/8 and 7/8 of the iterations.
        tv: weight of the total variation.
        own: above 0, likeness to the adversary's own samples with this weight in its place, in the
            coordinates of `OwnPrior` and by Adam without signs.
        tune: choose ``tv`` of `TVS` or ``own`` of `OWN`, and then ``lr``, before the target is
            looked at, by how well each rebuilds auxiliary samples from updates that the adversary
            makes of them as the deployment would, in `REHEARSED` iterations from one start at most
            (without auxiliary samples the given ones are kept).

    >>> GradientInversion(iterations=100).adaptive
    True
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 30}}
    iterations: int = 1000
    lr: float = 0.03
    tv: float = 1e-2
    own: float = 0.0
    restarts: int = 1
    target: Target = "client"
    client: ClientId | None = None
    adaptive: bool = True
    tune: bool = False

    def prepared(self, views: tuple[View, ...], knowledge: Knowledge) -> GradientInversion:
        """The attack with its prior tuned for the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: the recipe or the labels are not known.
        """
        if not self.tune or not self.adaptive:
            return self
        forward = recipe(views[0], knowledge)
        knowledge = fitting(knowledge, forward)
        observed = observe(views[0], knowledge, self.target, self.client)
        size = sizes(observed, forward)[0]
        low, high = forward.span(observed.delta)
        practice = victims(observed, forward, knowledge, size, VICTIMS)
        known = apart(knowledge, practice)
        span = (high - low).clamp(min=1e-9)

        def solve(attack: GradientInversion, seen: Observed) -> Reconstruction:
            return attack.solved(seen, forward, known)

        brief = replace(self, tune=False, restarts=1, iterations=min(self.iterations, REHEARSED))
        priors = [replace(brief, tv=tv, own=0.0) for tv in dict.fromkeys((self.tv, *TVS))]
        if known.auxiliary is not None:
            weights = dict.fromkeys((self.own, *OWN))
            priors += [replace(brief, own=weight) for weight in weights if weight]
        chosen = best(priors, practice, solve, span)
        rates = [replace(chosen, lr=rate * self.lr) for rate in RATES]
        chosen = best(rates, practice[:2], solve, span)
        return replace(self, tune=False, tv=chosen.tv, own=chosen.own, lr=chosen.lr)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: the recipe or the labels are not known.
        """
        forward = recipe(views[0], knowledge)
        knowledge = fitting(knowledge, forward)
        observed = observe(views[0], knowledge, self.target, self.client)
        return tried(
            observed, forward, knowledge, lambda sized: self.solved(sized, forward, knowledge)
        )

    def solved(self, observed: Observed, forward: Forward, knowledge: Knowledge) -> Reconstruction:
        """Samples from one contribution of known size.

        Raises:
            Lacking: the labels are not known.
        """
        posed = problem(
            observed, forward, knowledge, adaptive=self.adaptive, scale_free=self.adaptive
        )
        natural = None
        if self.own > 0:
            natural = OwnPrior.of(auxiliary(knowledge, type(self).__name__, 2).x)
        x, mismatch = self.descend(posed, knowledge.generator(1), natural)
        notes = {"tv": self.tv, "own samples' weight": self.own}
        return Reconstruction(
            type(self).__name__, observed.view.adversary, x, posed.labels, mismatch, notes=notes
        )

    def descend(
        self, posed: Problem, rng: torch.Generator, natural: OwnPrior | None = None
    ) -> tuple[Tensor, float]:
        """Samples that solve a posed problem, and the objective there; in the coordinates of own
        samples where these are given.
        """
        short = max(1, self.iterations // 10)
        starts = [
            first_guess(posed, rng)
            if natural is None
            else drawn((len(posed.labels), *posed.low.shape), rng, posed.low.float())
            for _ in range(self.restarts)
        ]
        if self.restarts > 1:
            tried = [self._descend(posed, z, natural, short, decay=False) for z in starts]
            starts = [min(tried, key=lambda pair: pair[1])[0]]
        z, least = self._descend(posed, starts[0], natural, self.iterations, decay=True)
        x = natural.samples(z) if natural else z
        return x.clamp(posed.low, posed.high), least

    def _descend(
        self,
        posed: Problem,
        start: Tensor,
        natural: OwnPrior | None,
        iterations: int,
        *,
        decay: bool,
    ) -> tuple[Tensor, float]:
        z = start.clone()
        reach = float((posed.high - posed.low).mean())
        rate = self.lr * reach / (natural.reach if natural else 1.0)
        adam = torch.optim.Adam([z], lr=rate, fused=True)
        more = 0.05 * min(posed.noise, 4.0) if self.adaptive else 0.0
        best, least = z.clone(), float("inf")
        step = Repeated(partial(self._step, posed, natural, reach, more), iterations)
        for i in range(iterations):
            if decay and i in (3 * iterations // 8, 5 * iterations // 8, 7 * iterations // 8):
                adam.param_groups[0]["lr"] /= 10
            objective, z.grad = step(z.detach())
            value = objective.item()
            if value < least:
                best, least = z.clone(), value
            adam.step()
            if natural is None:
                z.clamp_(posed.low, posed.high)
        return best, least

    def _step(
        self, posed: Problem, natural: OwnPrior | None, reach: float, more: float, z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The objective at coordinates z, which without a prior are samples, and its slope in them
        (of samples the sign alone); ``more`` is what noise adds to the prior's weight.
        """
        x = (natural.samples(z) if natural else z).detach().requires_grad_()
        loss = posed.mismatch(x, "cosine" if self.adaptive else "l2")
        if natural is None and self.tv + more:
            loss = loss + (self.tv + more) / reach * total_variation(x)
        (slope,) = torch.autograd.grad(loss, x)
        if natural is None:
            return loss.detach(), slope.sign_()
        box, weight = (posed.low, posed.high), self.own + more
        prior, slope = natural.weighed(z, x.detach(), slope, weight, box)
        return loss.detach() + prior, slope


def drawn(shape: Sequence[int], rng: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of an attack's own generator, which is the CPU's, of the type of
    ``like`` [...] and on its device.
    """
    return torch.randn(tuple(shape), generator=rng, dtype=like.dtype).to(like.device)


def first_guess(posed: Problem, rng: torch.Generator) -> Tensor:
    """Where a descent begins [n, *shape]: half of the samples' reach around its middle, at random
    from the adversary's own generator.
    """
    x = drawn((len(posed.labels), *posed.low.shape), rng, posed.goal)
    middle, reach = (posed.low + posed.high) / 2, (posed.high - posed.low) / 2
    return (middle + 0.5 * reach * x).clamp(posed.low, posed.high)
