"""The grid of attacks and rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.figures import draw_grid
from benchmarks.robustness.workers import SEEDS, Experiment, Job, Played
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data import Dirichlet, load
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

N, F = 20, 8
CORES = 2
ATTACKS: Mapping[str, Callable[[], Any] | None] = {
    "none": None,
    "zero": attacks.ZeroWeights,
    "random": attacks.RandomWeights,
    "flip": attacks.FlippedWeights,
    "sign flip x4": lambda: attacks.SignFlip(scale=4.0),
    "gaussian": attacks.GaussianUpdate,
    "constant": attacks.ConstantUpdate,
    "linear combination": attacks.LinearCombination,
    "ALIE": attacks.ALIE,
    "ALIE 1.5": lambda: attacks.ALIE(z=1.5),
    "IPM 0.5": lambda: attacks.IPM(epsilon=0.5),
    "Fang, Krum": attacks.FangKrum,
    "Fang, trimmed": lambda: attacks.FangTrimmedMean(of="updates"),
    "Min-Max": attacks.MinMax,
    "Min-Sum": attacks.MinSum,
    "AGR-tailored": lambda: attacks.AGRTailored(tries=12),
    "mimic": attacks.Mimic,
    "free rider": attacks.FreeRider,
    "label flip": attacks.LabelFlip,
    "feature noise": lambda: attacks.FeatureNoise(sigma=3.0),
    "model replacement": lambda: attacks.ModelReplacement(
        attacks.PixelPattern(target=2, boxes=((0, 0, 2, 2),)),
        attacks.AttackTraining(lr=0.2, epochs=1, batch_size=32, poisoned=10),
    ),
}
RULES: Mapping[str, Callable[[], tuple[Any, Sequence[Any]]]] = {
    "mean": lambda: (aggregators.Mean(), ()),
    "median": lambda: (aggregators.Median(), ()),
    "trimmed mean": lambda: (aggregators.TrimmedMean(F), ()),
    "MeaMed": lambda: (aggregators.MeaMed(F), ()),
    "geometric median": lambda: (aggregators.GeometricMedian(tolerance=1e-6), ()),
    "Krum": lambda: (aggregators.Krum(F), ()),
    "Multi-Krum": lambda: (aggregators.Krum(F, m=N - F - 2), ()),
    "MDA, greedy": lambda: (aggregators.GreedyMDA(F), ()),
    "CGE": lambda: (aggregators.CGE(F), ()),
    "centred clipping": lambda: (aggregators.CenteredClipping(tau=0.5), ()),
    "DnC": lambda: (aggregators.DnC(F), ()),
    "SignGuard": lambda: (aggregators.SignGuard(), ()),
    "clipped clustering": lambda: (aggregators.ClippedClustering(), ()),
    "FoolsGold": lambda: (aggregators.FoolsGold(), ()),
    "NNM + trimmed mean": lambda: (
        aggregators.TrimmedMean(F),
        (aggregators.NearestNeighbourMixing(F),),
    ),
}


def column(attack: str, seed: int) -> list[float]:
    """The final accuracy under every rule: digits, 20 clients of which 8 attack, Dirichlet 0.5, an
    MLP of 32, 100 rounds of one step.
    """
    split, seeds = load("digits"), Seeds(seed)
    parts = Dirichlet(alpha=0.5, min_size=8)(split.train, N, seeds.generator("partition"))
    clients, made = [split.train.take(part) for part in parts], ATTACKS[attack]
    found = []
    for rule, before in (make() for make in RULES.values()):
        run = Federation(
            initialised(mlp, split.shape, split.classes, seed=seed, hidden=(32,)),
            clients,
            split.test,
            rounds=100,
            training=LocalSGD(lr=0.5, plan=LocalPlan(32, steps=1), weighting="uniform"),
            aggregator=rule,
            defences=before,
            attackers=[Attacker(attack, made(), frozenset(range(N - F, N)))] if made else [],
            seed=seed,
            executor="stacked",
            audit=AuditConfig(keep=[], evaluate_every=1000),
        ).run()
        found.append(run.accuracy)
    return found


def columns(seeds: Sequence[int]) -> Sequence[Job]:
    return [(attack, seed) for attack in ATTACKS for seed in seeds]


def grid(played: Played) -> Iterable[Row]:
    """20 attacks x 15 rules, and no attack, by seeds; the heat map."""
    found: dict[str, list[list[float]]] = {attack: [] for attack in ATTACKS}
    for (attack, _), accuracies in played.runs:
        found[attack].append(accuracies)
    seeds = len(played.jobs) // len(ATTACKS)
    whole = len(SEEDS) / seeds / 60
    waited, minutes = played.waited * whole, played.seconds * whole
    cells = torch.tensor([found[attack] for attack in ATTACKS])  # [attacks, seeds, rules]
    heat, spread = cells.mean(dim=1), cells.amax(dim=1) - cells.amin(dim=1)
    worst = heat[1:].amin(dim=0)
    for i, rule in enumerate(RULES):
        yield gain(
            "grid",
            "no attack",
            f"worst accuracy under 20 attacks, {rule}",
            float(worst[i]),
            float(heat[0, i]),
        )
        yield gain(
            "grid",
            "no attack",
            f"mean accuracy under 20 attacks, {rule}",
            float(heat[1:, i].mean()),
            float(heat[0, i]),
        )
    size = f"{len(ATTACKS) - 1} attacks x {len(RULES)} rules x 3 seeds"
    yield cost("grid", "goal", f"core-minutes, {size}", minutes, 15.0 * CORES, target=1.0)
    yield cost(
        "grid",
        "goal",
        f"minutes on the clock, {played.processes} processes beside whatever else ran, {size}",
        waited,
        15.0,
        target=1.0,
    )
    draw_grid(heat, spread, list(ATTACKS), list(RULES), f"{F} of {N}", seeds)


GRID = Experiment(column, columns, grid, quick=1)
