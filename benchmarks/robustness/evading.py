"""Evading defences with several attackers in one round (Bagdasaryan et al. 2020, figures 9 to 12):
bounds on norms, audits of accuracy, the cosine to the broadcast model, Krum among 1,000 clients,
and clipping with noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from benchmarks.harness import Row, gain
from benchmarks.robustness.central import glance, train_centrally
from benchmarks.robustness.figures import draw_evading
from benchmarks.robustness.single_shot import seven_tail
from benchmarks.robustness.workers import Experiment, Played, between, loaded, one_each
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Seeds
from privfl.data import IID, Split
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD, evaluate

MANY, FEW, EACH = 1000, 100, 50
HONEST = LocalSGD(lr=0.15, plan=LocalPlan(10, epochs=2), weighting="uniform")
"""So noisy that next to none of a thousand updates is shorter than a constrained attacker's."""
TRAINING = attacks.AttackTraining(lr=0.02, epochs=20, poisoned=10)
BOUNDS, NOISY = (1.0, 2.0, 4.0, 8.0), 4.0
"""S, as multiples of the honest updates' median norm; that with which noise is added."""
TEAMS = (1, 5)
"""Attackers of 100."""
GAMMAS, ALPHAS = (2.0, 5.0, 10.0), (0.4, 0.05)
LIARS = (1, 5, 20, 100)
"""Attackers of 1,000 in front of Krum."""
SHARES, NOISES = (10, 50), (0.01, 0.1)
"""Attackers of 1,000 that are clipped; standard deviations of the noise on the mean."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Room:
    """What a seed's rounds share: a trained model, clients of 50 images, the tail."""

    split: Split
    clients: Sequence[Dataset]
    own: Sequence[Dataset]
    model: Any
    tail: Any
    seed: int

    @classmethod
    def of(cls, seed: int) -> Room:
        """An MLP of 25k weights after a central epoch on the honest clients' 50,000 images."""
        split, seeds = loaded("mnist"), Seeds(seed)
        order = torch.randperm(split.train.n, generator=seeds.generator("order"))
        train = split.train.take(order[: MANY * EACH])
        clients = [train.take(part) for part in IID()(train, MANY, seeds.generator("partition"))]
        left = split.train.take(order[MANY * EACH :])
        own = [left.take(range(i * FEW, (i + 1) * FEW)) for i in range(max(LIARS))]
        model = initialised(mlp, split.shape, split.classes, seed=seed, hidden=(32,))
        few = replace(split, train=train, test=split.test.take(range(0, split.test.n, 5)))
        train_centrally(model, few, LocalSGD(lr=0.1, plan=LocalPlan(64, epochs=1)), seed)
        return cls(few, clients, own, model, seven_tail(split), seed)

    def round(
        self,
        n: int,
        liars: int,
        attack: Any,
        rows: bool = False,
        rounds: int = 1,
        **parts: Any,
    ) -> Figures:
        """Backdoor and main task after rounds of n clients whose first ones attack; with ``rows``
        also what their rows in the first look like beside the others'. The model is put back.
        """
        kept = torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()
        run = Federation(
            self.model,
            [*self.own[:liars], *self.clients[: n - liars]],
            glance(self.split).test,
            rounds=rounds,
            training=HONEST,
            attackers=[Attacker("a", attack, frozenset(range(liars)))] if liars else [],
            seed=self.seed,
            executor="stacked",
            audit=AuditConfig(keep=[0] if rows else [], evaluate_every=rounds),
            **parts,
        ).run()
        measured = self.tail.measure(self.model, self.split.test)
        found = {"backdoor": measured["backdoor"], "main": measured["main"]}
        if rows:
            found |= self._seen(run.view("server", 0).rows.values, kept, liars)
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(kept, self.model.parameters())
        return found

    def clipped(self, liars: int, bound: float, sigma: float) -> Figures:
        """A round of 1,000 clipped to a bound, which liars scale to, with noise on its mean."""
        attack = attacks.TrainAndScale(self.tail, TRAINING, bound=bound, split="same")
        seat = aggregators.NormClipping(bound=bound, sigma=sigma)
        return self.round(MANY, liars, attack, defences=[seat])

    def _seen(self, sent: torch.Tensor, broadcast: torch.Tensor, liars: int) -> Figures:
        """The median honest norm, the first liar's norm, the share of honest ones that are longer;
        cosines of the submitted models to the broadcast; the first submitted model's main task.
        """
        norms, models = sent.norm(dim=1), sent + broadcast
        cosines = torch.nn.functional.cosine_similarity(models, broadcast[None])
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(models[0].to(broadcast), self.model.parameters())
        return {
            "honest norm": float(norms[liars:].median()),
            "norm": float(norms[0]),
            "longer": float((norms[liars:] > norms[0]).double().mean()),
            "honest cosine": float(cosines[liars:].median()),
            "cosine": float(cosines[0]),
            "audited": evaluate(self.model, self.split.test).accuracy,
        }


def rounds(seed: int) -> dict[str, Figures]:
    """Everything that is measured of one model, by name."""
    room = Room.of(seed)
    tail = room.tail
    found = {
        "nobody attacks, 100": room.round(FEW, 0, tail, rows=True),
        "nobody attacks, 1,000": room.round(MANY, 0, tail),
    }
    unit = found["nobody attacks, 100"]["honest norm"]
    for z in TEAMS:
        for times in BOUNDS:
            attack = attacks.TrainAndScale(tail, TRAINING, bound=times * unit, split="same")
            found[f"9: {z} of 100, S {times:g}"] = room.round(FEW, z, attack, rows=True)
    for gamma in GAMMAS:
        whole = attacks.ModelReplacement(tail, TRAINING, gamma=gamma)
        found[f"10: train-and-scale, gamma {gamma:g}"] = room.round(10, 1, whole, rows=True)
        for alpha in ALPHAS:
            hidden = attacks.ConstrainAndScale(
                tail, TRAINING, gamma=gamma, alpha=alpha, anomaly="cosine"
            )
            name = f"10: constrain-and-scale, alpha {alpha:g}, gamma {gamma:g}"
            found[name] = room.round(10, 1, hidden, rows=True)
    near = attacks.ConstrainAndScale(tail, TRAINING, gamma=1.0, split="same", alpha=0.4)
    for liars in LIARS:
        krum = aggregators.Krum(f=liars)
        found[f"11: Krum, {liars} of 1,000"] = room.round(MANY, liars, near, aggregator=krum)
    for liars in SHARES:
        for times in BOUNDS:
            found[f"12: {liars} of 1,000, S {times:g}"] = room.clipped(liars, times * unit, 0.0)
        for sigma in NOISES:
            name = f"12: {liars} of 1,000, S {NOISY:g}, noise {sigma:g}"
            found[name] = room.clipped(liars, NOISY * unit, sigma)
    return found


def evading(played: Played) -> Iterable[Row]:
    """What the paper's attackers do about each defence, and what it costs them."""
    each: Sequence[dict[str, Figures]] = played.each

    def told(name: str, figure: str) -> list[float]:
        return [found[name][figure] for found in each]

    mean = statistics.mean
    for name, figures in each[0].items():
        quiet = "nobody attacks, 100" if "audited" in figures else "nobody attacks, 1,000"
        for figure in figures:
            if figure in each[0][quiet]:
                now, peer = mean(told(name, figure)), mean(told(quiet, figure))
                yield gain("evading", quiet, f"{figure}, {name}", now, peer or 1e-3)
        yield between("evading", f"backdoor, {name}", told(name, "backdoor"))
    for z in TEAMS:
        rising = [mean(told(f"9: {z} of 100, S {times:g}", "backdoor")) for times in BOUNDS]
        steps = float(sum(a <= b for a, b in pairwise(rising)))
        what = f"figure 9: steps of S that do not lower the backdoor, {z} of 100"
        yield gain("evading", "goal", what, steps, len(BOUNDS) - 1, target=1.0)
    alone, five = (f"9: {z} of 100, S {BOUNDS[-1]:g}" for z in TEAMS)
    what = f"figure 9: backdoor of five at S {BOUNDS[-1]:g}"
    yield gain("evading", "one", what, mean(told(five, "backdoor")), mean(told(alone, "backdoor")))
    few = 100 * mean(told(f"11: Krum, {LIARS[1]} of 1,000", "backdoor"))
    what = f"figure 11: backdoor % by Krum, {LIARS[1]} of 1,000"
    yield gain("evading", "goal", what, few, 50.0, target=1.0)
    draw_evading(each)


EVADING = Experiment(rounds, one_each, evading)
