"""GradInversion: gradient matching with the statistics of the batch that BatchNorm gives away, by
several seeds that agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

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
from privfl.attacks.inversion.matching import (
    RATES,
    TVS,
    Problem,
    drawn,
    first_guess,
    problem,
    total_variation,
)
from privfl.attacks.inversion.natural import OWN, OwnPrior
from privfl.attacks.inversion.rehearsal import apart, best, fitting, victims
from privfl.attacks.inversion.repeated import Repeated
from privfl.attacks.inversion.statistics import (
    Heard,
    Norm,
    distance,
    listening,
    unmixed,
    weight,
)
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import BUFFERS, ClientId, Examples, View

STATISTICS = (0.0, 1e-2, 0.1, 1.0, 10.0)
"""Weights of the distance of statistics that a rehearsal tries. Of a deep network they tell more
than the gradient does, in shorter steps: so the last is tried with each prior as well, beside the
given one, and the step then is `SHORTER` times the given.
"""
SHORTER = 0.2
NEAR = (0.3, 1.0, 10.0, 100.0)
"""Weights of own samples that it tries from their mean: where a network gives little away, staying
there is the best guess.
"""
VICTIMS = 4
"""Shadow victims in it: photographs differ more than priors do."""


@dataclass(frozen=True, slots=True)
class GradInversion(Targeted):
    """See through gradients (Yin, Mallya, Vahdat, Alvarez, Kautz, Molchanov 2021).

    Gradient matching (by cosine, which stands scales) plus total variation, L2 and, where the
    network has running statistics, the distance of the guesses' to those of the batch (equation
    11); ``seeds`` descents share a group penalty towards their mean (equation 12, with the
    pixelwise mean in place of registered images). Labels by the most negative column of the last
    layer's gradient (equation 8), each class once, where they are not known; `LabelCounts` counts
    repeated classes better.

    The paper takes the batch's statistics for known, or has the running ones stand in for them.
    Where clients send the change of theirs and the adversary reads it, it has the batch's: after
    one step they are (new - (1 - q) old) / q at a layer whose running ones move by q
    (`batch_statistics`); after several, or under a clip, the guess is led through the same steps
    and clip and the changes are compared. Where it does not read that part, the statistics that are
    broadcast stand in, as in the paper.

    Args:
        statistics: weight of that distance.
        start: "noise", as in the paper, or "own": the mean of the adversary's own samples of each
            label, with a tenth of that noise.
        own: above 0, descents run in coordinates in which the adversary's own samples are white
            (`OwnPrior`; Adam without signs), and this weighs the coordinates' mean square:
            the guess then is what a Gaussian with the own samples' mean and spectrum makes likely.
            The total variation is left out.
        tune: choose ``own`` of `OWN`, or of `NEAR` from the own samples' mean (where there are own
            samples), ``statistics`` of `STATISTICS`, ``lr``, then ``tv`` where it counts, before
            the target is looked at, on updates that the adversary makes of its auxiliary samples
            (by one seed). As given where the attack needs own samples and a rehearsal leaves none.

    >>> GradInversion(seeds=2).group
    0.01
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 30}}
    iterations: int = 1000
    lr: float = 0.03
    tv: float = 1e-3
    l2: float = 1e-6
    statistics: float = 0.1
    group: float = 0.01
    seeds: int = 3
    start: Literal["noise", "own"] = "noise"
    own: float = 0.0
    target: Target = "client"
    client: ClientId | None = None
    tune: bool = False

    def prepared(self, views: tuple[View, ...], knowledge: Knowledge) -> GradInversion:
        """The attack with its priors tuned for the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: the recipe or the labels are not known.
        """
        if not self.tune:
            return self
        forward = recipe(views[0], knowledge)
        knowledge = fitting(knowledge, forward)
        observed = observe(views[0], knowledge, self.target, self.client)
        practice = victims(observed, forward, knowledge, sizes(observed, forward)[0], VICTIMS)
        low, high = forward.span(observed.delta)
        known, span = apart(knowledge, practice), (high - low).clamp(min=1e-9)

        if known.auxiliary is None and (self.own > 0 or self.start == "own"):
            return replace(self, tune=False)  # nothing is left of which to make such a prior

        def solve(attack: GradInversion, seen: Observed) -> Reconstruction:
            return attack._solve(seen, forward, known)

        given = replace(self, tune=False, seeds=1)
        told = forward.buffers in ("averaged", "local")
        trusting = replace(given, statistics=STATISTICS[-1], lr=SHORTER * self.lr)
        settings = []
        for one in (given, trusting) if told else (given,):
            settings.append(one)
            if known.auxiliary is not None:
                settings += [replace(one, own=own) for own in OWN]
                settings += [replace(one, own=own, start="own") for own in NEAR]
        chosen = best(list(dict.fromkeys(settings)), practice, solve, span)
        if told:
            weights = dict.fromkeys((chosen.statistics, *STATISTICS))
            tried = [replace(chosen, statistics=weight) for weight in weights]
            chosen = best(tried, practice, solve, span)
        rates = [replace(chosen, lr=rate * chosen.lr) for rate in RATES]
        chosen = best(rates, practice, solve, span)
        if not chosen.own:
            tvs = dict.fromkeys((chosen.tv, *TVS))
            chosen = best([replace(chosen, tv=tv) for tv in tvs], practice, solve, span)
        return replace(chosen, seeds=self.seeds)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view; see `GradientInversion.infer` for what it raises."""
        view = views[0]
        forward = recipe(view, knowledge)
        knowledge = fitting(knowledge, forward)
        observed = observe(view, knowledge, self.target, self.client)
        if self.seeds < 1:
            raise Lacking("GradInversion needs seeds of at least 1.")
        return tried(
            observed, forward, knowledge, lambda sized: self._solve(sized, forward, knowledge)
        )

    def _solve(self, observed: Observed, forward: Forward, knowledge: Knowledge) -> Reconstruction:
        y = (
            knowledge.labels
            if knowledge.labels is not None
            else _labels(observed, forward, knowledge)
        )
        posed = problem(
            observed, forward, replace(knowledge, labels=y), adaptive=True, scale_free=True
        )
        given = _Given.of(observed, forward, posed)
        rng = knowledge.generator(6)
        first = self._first(posed, knowledge)
        natural = self._natural(knowledge)
        reach = float((posed.high - posed.low).mean())
        if natural is None:
            zs = [_near(first, first_guess(posed, rng)) for _ in range(self.seeds)]
        else:
            size = (len(posed.labels), *posed.low.shape)
            zs = [drawn(size, rng, posed.low.float()) for _ in range(self.seeds)]
            zs = [z if first is None else 0.1 * z for z in zs]
        rate = self.lr * reach / (natural.reach if natural else 1.0)
        adam = torch.optim.Adam(zs, lr=rate, fused=True)
        step = Repeated(
            partial(self._step, posed, natural, reach, given), self.iterations * self.seeds
        )
        found, least = zs[0].detach().clone(), float("inf")
        for i in range(self.iterations):
            if i in (3 * self.iterations // 8, 5 * self.iterations // 8, 7 * self.iterations // 8):
                adam.param_groups[0]["lr"] /= 10
            middle: tuple[Tensor, ...] = ()
            if len(zs) > 1:
                middle = (torch.stack([_samples(z, natural) for z in zs]).mean(dim=0),)
            for z in zs:
                value, z.grad, x = step(z.detach(), *middle)
                now = value.item()
                if now < least:
                    found, least = x.clone(), now
            adam.step()
            if natural is None:
                for z in zs:
                    z.clamp_(posed.low, posed.high)
        found = found.clamp(posed.low, posed.high)
        notes: dict[str, float | int | str] = {
            "seeds": self.seeds,
            "layers with statistics": len(posed.simulator.norms),
            "statistics": given.how,
            "statistics' weight": self.statistics,
            "tv": self.tv,
            "own samples' weight": self.own,
        }
        who = observed.view.adversary
        return Reconstruction(type(self).__name__, who, found, posed.labels, least, notes=notes)

    def _first(self, posed: Problem, knowledge: Knowledge) -> Tensor | None:
        """The mean of own samples of each label (of all, where there are none of it) [n, ...]; None
        where descents begin at noise.

        Raises:
            Lacking: there are no own samples.
        """
        if self.start == "noise":
            return None
        held = auxiliary(knowledge, type(self).__name__, 1)
        means = [held.x[held.y == label] for label in posed.labels.tolist()]
        return torch.stack([(x if len(x) else held.x).mean(dim=0) for x in means])

    def _natural(self, knowledge: Knowledge) -> OwnPrior | None:
        """Coordinates of own samples; None where descents run in features.

        Raises:
            Lacking: there are no own samples.
        """
        if not self.own > 0:
            return None
        return OwnPrior.of(auxiliary(knowledge, type(self).__name__, 2).x)

    def _step(
        self,
        posed: Problem,
        natural: OwnPrior | None,
        reach: float,
        given: _Given,
        z: Tensor,
        *middle: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The objective at coordinates z, its slope in them (of features the sign alone), and the
        samples that they stand for.
        """
        x = _samples(z, natural)
        free = x.detach().requires_grad_()
        value = self._objective(posed, free, reach, given, *middle)
        (slope,) = torch.autograd.grad(value, free)
        if natural is None:
            return value.detach(), slope.sign_(), x
        prior, slope = natural.weighed(z, x, slope, self.own, (posed.low, posed.high))
        return value.detach() + prior, slope, x

    def _objective(
        self, posed: Problem, x: Tensor, reach: float, given: _Given, middle: Tensor | None = None
    ) -> Tensor:
        compared = given.how != "none" and self.statistics > 0
        with listening(posed.simulator.norms if compared else []) as heard:
            value = posed.mismatch(x, "cosine")
        if not self.own > 0:
            value = value + self.tv / reach * total_variation(x) + self.l2 * x.square().mean()
        if compared:
            value = value + self.statistics * given.distance(heard)
        if middle is not None:
            value = value + self.group * (x - middle).square().mean() / reach**2
        return value


def _samples(z: Tensor, natural: OwnPrior | None) -> Tensor:
    """The samples at coordinates z, which without a prior are the samples."""
    return natural.samples(z) if natural else z


def _near(first: Tensor | None, noise: Tensor) -> Tensor:
    """Where a descent begins."""
    return noise if first is None else first + 0.1 * (noise - noise.mean())


@dataclass(frozen=True, slots=True)
class _Given:
    """What is known of the batch's statistics: the ``change`` [s] of running ones from ``start``,
    of so many clients under a clip, and the batch's that it would be of if it were of one
    (``known``); or ``start`` alone, which stands in for the batch's.
    """

    norms: list[Norm]
    start: Tensor | None
    change: Tensor | None
    clients: int
    l2: float
    known: Tensor | None

    @classmethod
    def of(cls, observed: Observed, forward: Forward, posed: Problem) -> _Given:
        """From a contribution that is attacked."""
        norms = posed.simulator.norms
        start = observed.view.extra.get(BUFFERS) if norms else None
        change = observed.buffers if start is not None else None
        known = None
        if start is not None and change is not None:
            share = weight(norms, [1] * len(norms))
            known = start + change / share.to(change) if bool((share > 0).all()) else None
        return cls(norms, start, change, observed.clients, forward.buffers_l2, known)

    @property
    def how(self) -> str:
        """Where they are from."""
        if self.change is not None:
            return "of the batch"
        return "none" if self.start is None else "as broadcast"

    def distance(self, heard: Heard) -> Tensor:
        """How far what a guess caused is from it, in units of a batch's statistics."""
        if self.start is None:
            return torch.zeros(())
        if self.change is None:
            return distance(self.norms, heard.mean(self.start), self.start)
        once = all(len(told) == 1 for told in heard.by_layer)
        if self.known is not None and once and not self.l2 < float("inf"):
            return distance(self.norms, heard.mean(self.start), self.known)
        share = heard.weight(self.clients)
        guess = heard.change(self.start, self.clients, self.l2)
        return distance(self.norms, unmixed(guess, share), unmixed(self.change, share))


def batch_statistics(
    observed: Observed, forward: Forward, norms: list[Norm]
) -> Float[Tensor, " s"] | None:
    """The statistics [s] of the one batch that an update was made of, exactly: (new - (1 - q) old)
    / q. After several steps they are a mean of all batches' in which later ones weigh more. Those
    of layers whose running ones do not run (a momentum of 0) are the broadcast ones. None where the
    adversary does not read the change of statistics.
    """
    start = observed.view.extra.get(BUFFERS)
    if start is None or observed.buffers is None:
        return None
    steps = forward.steps_on(max(1, (observed.samples or 1) // observed.clients))
    return start + unmixed(observed.buffers, weight(norms, [steps] * len(norms)))


def _labels(observed: Observed, forward: Forward, knowledge: Knowledge) -> Int[Tensor, " n"]:
    """Yin et al.'s rule where no class repeats; counts where there are more samples than
    classes.
    """
    trained = [p for p in forward.module.parameters() if p.requires_grad]
    weights = [at for at, p in enumerate(trained) if p.ndim == 2]
    if (
        observed.samples is None
        or observed.samples > forward.classes
        or not weights
        or len(trained[weights[-1]]) != forward.classes
    ):
        return labels(observed, forward, knowledge)
    parts = torch.split(observed.delta, [p.numel() for p in trained])
    gradient = -parts[weights[-1]].view(forward.classes, -1)
    return gradient.amin(dim=1).argsort()[: observed.samples].sort().values
