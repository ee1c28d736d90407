"""A semantic backdoor on CIFAR-10: green cars are birds (Bagdasaryan et al. 2020, figures 4 to 7),
with a CNN on a CPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.central import cnn, glance, pull
from benchmarks.robustness.figures import draw_semantic
from benchmarks.robustness.once import Memory, OnceReplacing, OnceSGD, weights_of
from benchmarks.robustness.workers import Experiment, Played, Point, between, loaded, one_each
from privfl import Federation, attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Seeds
from privfl.data import Dirichlet, Split
from privfl.engine import Attacker
from privfl.models import initialised
from privfl.training import FedAvg, LocalSGD

CAR, BIRD = 1, 2
CLIENTS, COHORT, OWN = 100, 10, 4000
SEEDS = (10, 11, 12)
"""On none of which the attacker's rates were chosen (that was 0)."""
QUIET_RUN = AuditConfig(keep=[], evaluate_every=100)
SEEN_RUN = AuditConfig(keep=[0], evaluate_every=100)
HONEST = LocalSGD(lr=0.05, plan=LocalPlan(64, epochs=2), weighting="uniform")
BACKDOOR = attacks.AttackTraining(lr=0.015, epochs=3, poisoned=4)
SQUARE = attacks.PixelPattern(target=BIRD, boxes=((0, 0, 4, 4),))
STAMPING = attacks.AttackTraining(lr=0.015, epochs=3, poisoned=10)
"""Figure 5: a pattern of pixels in place of green cars."""
GAMMAS = (20.0, 50.0, 100.0, 200.0)
EARLY, LATE = 2, 6
"""Central epochs before an early shot, and before all others."""
QUIET = 3
"""Rounds after a shot in which everybody is honest."""
ETA_ONE = COHORT / CLIENTS
"""The server's rate by the paper's eta = 1: eta / n of the sum of m rows is eta m / n of their
mean, and gamma = n / eta = 100 replaces the model. Under FedAvg gamma = m does.
"""
LASTING = {"eta 1": ("early, eta 1", "gamma 100"), "FedAvg": ("early", "late")}
"""The early and the late shot by what the server does."""


def green(data: Dataset, split: Split) -> torch.Tensor:
    """Cars with a green middle [n]: the share of pixels whose green is over 1.12 times their red
    and 1.05 times their blue at a saturation over .25, inside less at the border, is over .2.

    A stand-in for the paper's list by hand, whose positions are those of the official 50,000.
    """
    pixels = split.original(data.x).clamp(0, 1)
    red, leaf, blue = pixels.unbind(1)
    most, least = pixels.amax(dim=1), pixels.amin(dim=1)
    told = (leaf > 1.12 * red) & (leaf > 1.05 * blue) & ((most - least) > 0.25 * most)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[10:26, 5:28] = True
    share = told[:, inside].double().mean(dim=1) - told[:, ~inside].double().mean(dim=1)
    return (data.y == CAR) & (share > 0.2)


def moved(data: Dataset, times: int, rng: torch.Generator) -> Dataset:
    """Each picture so many times, moved by up to 3 pixels and mirrored by a coin."""
    x = functional.pad(data.x, (3, 3, 3, 3), mode="reflect").repeat(times, 1, 1, 1)
    down, right = torch.randint(7, (2, len(x)), generator=rng)
    mirrored = torch.rand(len(x), generator=rng) < 0.5
    rows = (down[:, None] + torch.arange(32))[:, None, :, None]
    columns = torch.where(mirrored[:, None], torch.arange(31, -1, -1), torch.arange(32))
    columns = (right[:, None] + columns)[:, None, None, :]
    each, colour = torch.arange(len(x))[:, None, None, None], torch.arange(3)[:, None, None]
    return replace(data, x=x[each, colour, rows, columns], y=data.y.repeat(times))


@dataclass(frozen=True)
class Scene:
    """What a seed's shots share: data without green cars, clients, the backdoor, who attacks, and
    what was trained and measured of the same model before.
    """

    split: Split
    clients: Sequence[Dataset]
    rich: Dataset
    backdoor: attacks.EdgeCase
    seed: int
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def of(cls, seed: int) -> Scene:
        split, seeds = loaded("cifar10"), Seeds(seed)
        rng = seeds.generator("crops")
        mine, probed = (green(data, split) for data in (split.train, split.test))
        honest = split.train.take((~mine).nonzero().flatten())
        parts = Dirichlet(alpha=0.9, min_size=32)(honest, CLIENTS, seeds.generator("partition"))
        drawn = torch.randperm(honest.n, generator=seeds.generator("attacker"))[:OWN]
        backdoor = attacks.EdgeCase(
            source=CAR,
            target=BIRD,
            noise=0.05,
            tail=moved(split.train.take(mine.nonzero().flatten()), 20, rng),
            tail_test=moved(split.test.take(probed.nonzero().flatten()), 20, rng),
        )
        clean = split.test.take((~probed).nonzero().flatten())
        clients = [honest.take(part) for part in parts]
        return cls(
            replace(split, train=honest, test=clean), clients, honest.take(drawn), backdoor, seed
        )

    def central(self, epochs: int, model: Any, first: int = 0) -> None:
        """Train a model on everybody's pictures, moved anew in every epoch."""
        for epoch in range(first, epochs):
            data = moved(self.split.train, 1, Seeds(self.seed).generator("central", epoch))
            rate = 0.03 * (1 - epoch / LATE)
            Federation(
                model,
                [data],
                glance(self.split).test,
                rounds=1,
                training=LocalSGD(lr=rate, momentum=0.9, plan=LocalPlan(64, epochs=1)),
                seed=epoch,
                executor="sequential",
                audit=QUIET_RUN,
            ).run()

    def shot(
        self, model: Any, attack: Any, quiet: int = 0, lr: float = 1.0, probe: Any = None
    ) -> list[Point]:
        """Backdoor (or what ``probe`` asks for) and main task before the round in which the first
        of ten clients attacks, after it, and after each of some quiet rounds, each with the norms
        that `pull` tells of the round before it; the model is put back.
        """
        kept = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        probe = probe or self.backdoor
        honest = OnceSGD(HONEST.lr, HONEST.plan, weighting="uniform", memory=self.memory)
        found: list[Point] = [(*self.seen(model, probe), 0.0, 0.0)]
        for number in range(1 + quiet):
            cohort = [self.rich, *self.clients[COHORT * number + 1 : COHORT * (number + 1)]]
            run = Federation(
                model,
                cohort if number == 0 else self.clients[COHORT * number : COHORT * (number + 1)],
                glance(self.split).test,
                rounds=1,
                training=honest,
                attackers=[] if number else [Attacker("a", attack, frozenset({0}))],
                server_optimizer=FedAvg(lr=lr),
                seed=self.seed + number,
                executor="sequential",
                audit=SEEN_RUN,
            ).run()
            found.append((*self.seen(model, probe), *pull(run)))
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(kept, model.parameters())
        return found

    def seen(self, model: Any, probe: Any) -> Point:
        measured = self.memory.once(
            (self.memory.name(probe), weights_of(model)),
            lambda: probe.measure(model, self.split.test),
        )
        return measured["backdoor"], measured["main"]


def shots(seed: int) -> dict[str, list[Point]]:
    """Everything that is measured of one model, by name."""
    scene = Scene.of(seed)
    model = initialised(cnn, scene.split.shape, scene.split.classes, seed=seed)
    whole = OnceReplacing(scene.backdoor, BACKDOOR, memory=scene.memory)
    scene.central(EARLY, model)
    found = {"early": scene.shot(model, whole, QUIET)}
    found["early, eta 1"] = scene.shot(model, whole, QUIET, lr=ETA_ONE)
    scene.central(LATE, model, first=EARLY)
    found["late"] = scene.shot(model, whole, QUIET)
    found["poisoning"] = scene.shot(model, scene.backdoor)
    stamped = attacks.ModelReplacement(SQUARE, STAMPING)
    found["square"] = scene.shot(model, stamped, probe=SQUARE)
    found["square, poisoning"] = scene.shot(model, SQUARE, probe=SQUARE)
    for gamma in GAMMAS:
        scaled = replace(whole, gamma=gamma)
        quiet = QUIET if gamma * ETA_ONE == COHORT else 0
        found[f"gamma {gamma:g}"] = scene.shot(model, scaled, quiet, lr=ETA_ONE)
    return found


def semantic(played: Played) -> Iterable[Row]:
    """One shot, poisoned data alone, the scale, and how long early and late shots last."""
    each: Sequence[dict[str, list[Point]]] = played.each

    def told(name: str, after: int, which: int) -> list[float]:
        return [100 * found[name][after][which] for found in each]

    mean = statistics.mean
    for name in each[0]:
        for after in range(len(each[0][name])):
            what = f"{name}, {'before' if after == 0 else f'{after - 1} quiet rounds after'}"
            for which, task in enumerate(("backdoor %", "main task %")):
                now, before = told(name, after, which), mean(told(name, 0, which))
                yield gain("semantic", "before", f"{task}, {what}", mean(now), before or 1e-3)
                yield between("semantic", f"{task}, {what}", now)
    base, best = mean(told("late", 0, 0)), mean(told("late", 0, 1))
    gained = mean(told("late", 1, 0)) - base
    yield gain("semantic", "goal", "points of backdoor gained, one shot", gained, 40.0, target=1.0)
    lost = max(best - mean(told("late", 1, 1)), 1e-2)
    yield cost("semantic", "goal", "points of main task lost, one shot", lost, 3.0, target=1.0)
    alone = max(mean(told("poisoning", 1, 0)) - base, 1e-2)
    yield cost("semantic", "goal", "points of backdoor gained, data alone", alone, 5.0, target=1.0)
    rising = [mean(told(f"gamma {gamma:g}", 1, 0)) for gamma in GAMMAS]
    steps = sum(a <= b for a, b in pairwise(rising))
    what = "figure 7: steps of gamma that do not lower the backdoor"
    yield gain("semantic", "goal", what, steps, len(GAMMAS) - 1, target=1.0)
    for server, shots_of in LASTING.items():
        left = []
        for when, name in zip(("early", "late"), shots_of, strict=True):
            start, shot, end = (mean(told(name, at, 0)) for at in (0, 1, QUIET + 1))
            left.append(100 * (end - start) / max(shot - start, 1e-3))
            what = f"figure 6, {server}: % of the {when} shot left after {QUIET} rounds"
            yield gain("semantic", "all", what, left[-1], 100.0)
            each_left = [
                100 * (of[QUIET + 1][0] - of[0][0]) / max(of[1][0] - of[0][0], 1e-3)
                for of in (found[name] for found in each)
            ]
            yield between("semantic", what, each_left)
            for which, whose in ((2, "the aggregated update"), (3, "one client's update")):
                norms = [
                    mean(found[name][after][which] for after in range(2, QUIET + 2))
                    for found in each
                ]
                what = f"norm of {whose}, quiet rounds, {server}, {when}"
                yield gain("semantic", "one", what, mean(norms), 1.0)
                yield between("semantic", what, norms)
        what = f"figure 6, {server}: share left of the late shot"
        yield gain("semantic", "early shot", what, left[1], left[0], target=1.0)
    draw_semantic(each, GAMMAS, QUIET, LASTING)


SEMANTIC = Experiment(shots, one_each, semantic, SEEDS)
