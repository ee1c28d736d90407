"""Attacks against rules on real data: FedSecurity's experiments, the single-shot backdoor, and a
grid of attacks and rules.

Figures go to docs/figures. Runs are dealt out to two worker processes of one thread each.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from benchmarks.harness import Row, cost, gain, main
from benchmarks.robustness_figures import draw_grid, draw_shots, save
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Seeds
from privfl.data import IID, Dirichlet, Split, load
from privfl.engine import Attacker, AttackSchedule
from privfl.models import cnn, initialised, mlp
from privfl.training import LocalSGD, evaluate

WORKERS = 2
SEEDS = (0, 1, 2)
Point = tuple[float, ...]


def spread_out(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each job with its result, in order, worked off by processes of one thread."""
    with ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        yield from zip(jobs, pool.map(partial(_apply, work), jobs), strict=True)


def _apply(work: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    return work(*job)


def between(case: str, what: str, over_seeds: Sequence[float]) -> Row:
    """The spread of a figure over seeds: the least beside the most."""
    return gain(case, "best seed", f"{what}: worst seed", min(over_seeds), max(over_seeds) or 1e-9)


# ---- FedSecurity, experiments 1, 2, 3 and 7

HARM: Mapping[str, Callable[[], Any] | None] = {
    "none": None,
    "label flip": lambda: attacks.LabelFlip(pairs=((3, 9), (2, 1))),
    "flip": attacks.FlippedWeights,
    "zero": attacks.ZeroWeights,
    "random": attacks.RandomWeights,
}
DEFENCE: Mapping[str, Callable[[int], Any]] = {
    "FedAvg": lambda f: aggregators.Mean(),
    "5-Krum": lambda f: aggregators.Krum(f=max(f, 1), m=5),
    "RFA": lambda f: aggregators.RFA(),
    "FoolsGold": lambda f: aggregators.FoolsGold(bound=math.inf),  # as FedML has it
}
EXPERIMENTS = {
    "1: attacks": [("FedAvg", harm, 1) for harm in HARM],
    "2: defences, no attack": [(rule, "none", 1) for rule in DEFENCE],
    "3: defences, labels flipped": [(rule, "label flip", 1) for rule in DEFENCE],
    "3: defences, random weights": [(rule, "random", 1) for rule in DEFENCE],
    "7: adversaries, random weights": [("5-Krum", "random", k) for k in (1, 2, 3)],
}
ROUNDS, EVERY = 30, 3


def fedsecurity_team(harm: str, k: int, seeds: Seeds) -> list[Attacker]:
    """The paper's attackers: those that lie about weights are k other clients every round, flipped
    labels stay where they are.
    """
    made = HARM[harm]
    if made is None:
        return []
    if harm == "label flip":
        return [Attacker(harm, made(), frozenset(range(k)))]
    drawn = [
        torch.randperm(10, generator=seeds.generator("team", number))[:k].tolist()
        for number in range(ROUNDS)
    ]
    return [
        Attacker(harm, made(), frozenset(team), AttackSchedule(rounds=(number,)))
        for number, team in enumerate(drawn)
    ]


def fedsecurity_run(rule: str, harm: str, k: int, seed: int) -> list[float]:
    """Accuracy over 30 rounds on Fashion-MNIST: 10 clients, Dirichlet 0.5, an MLP of 64, 20 steps
    of 32 at 0.1 a round.
    """
    split, seeds = load("fashion_mnist"), Seeds(seed)
    parts = Dirichlet(alpha=0.5, min_size=32)(split.train, 10, seeds.generator("partition"))
    run = Federation(
        initialised(mlp, split.shape, split.classes, seed=seed, hidden=(64,)),
        [split.train.take(part) for part in parts],
        split.test,
        rounds=ROUNDS,
        training=LocalSGD(lr=0.1, plan=LocalPlan(32, steps=20)),
        aggregator=DEFENCE[rule](k),
        attackers=fedsecurity_team(harm, k, seeds),
        seed=seed,
        executor="stacked",
        audit=AuditConfig(keep=[], evaluate_every=EVERY),
    ).run()
    return [record.accuracy for record in run.history if record.accuracy is not None]


def fedsecurity(quick: bool) -> Iterable[Row]:
    """The published orders: attacks compared, defences compared, defences under attack, more
    adversaries.
    """
    seeds = SEEDS[:1] if quick else SEEDS
    settings = list(dict.fromkeys(setting for group in EXPERIMENTS.values() for setting in group))
    curves: dict[tuple[str, str, int], list[list[float]]] = {setting: [] for setting in settings}
    for (rule, harm, k, _), curve in spread_out(
        fedsecurity_run, [(*setting, seed) for setting in settings for seed in seeds]
    ):
        curves[rule, harm, k].append(curve)
    finals = {setting: [curve[-1] for curve in seeds] for setting, seeds in curves.items()}
    ours = {setting: statistics.mean(values) for setting, values in finals.items()}
    plain = ours["FedAvg", "none", 1]
    for group, members in EXPERIMENTS.items():
        for setting in members:
            rule, harm, k = setting
            what = f"{group}: accuracy, {rule}, {harm}" + (
                f" x{k}" if k > 1 or group.startswith("7") else ""
            )
            yield gain("fedsecurity", "FedAvg, no attack", what, ours[setting], plain)
            yield between("fedsecurity", what, finals[setting])
    broken = ours["FedAvg", "random", 1]
    quiet = [ours[rule, "none", 1] for rule in DEFENCE if rule != "FedAvg"]
    yield gain(
        "fedsecurity",
        "goal",
        "1: points that random weights cost FedAvg",
        100 * (plain - broken),
        10.0,
        target=1.0,
    )
    yield gain(
        "fedsecurity",
        "goal",
        "1: published order (none, flip, zero, random)",
        float(_falls(ours)),
        1.0,
        target=1.0,
    )
    yield cost(
        "fedsecurity",
        "goal",
        "1: points that flipped labels cost",
        _lost(plain, ours["FedAvg", "label flip", 1]),
        2.0,
        target=1.0,
    )
    yield gain(
        "fedsecurity",
        "goal",
        "2: defences of 3 that cost accuracy",
        float(sum(one < plain for one in quiet)),
        3.0,
        target=1.0,
    )
    yield cost(
        "fedsecurity",
        "goal",
        "3: points under no attack, 5-Krum, random",
        _lost(plain, ours["5-Krum", "random", 1]),
        5.0,
        target=1.0,
    )
    yield gain(
        "fedsecurity",
        "FedAvg attacked",
        "3: 5-Krum restores under random",
        ours["5-Krum", "random", 1],
        broken,
        target=1.1,
    )
    yield gain(
        "fedsecurity",
        "1 adversary",
        "7: 5-Krum with 3",
        ours["5-Krum", "random", 3],
        ours["5-Krum", "random", 1],
        target=0.95,
    )
    _draw_fedsecurity(curves)


def _falls(ours: Mapping[tuple[str, str, int], float]) -> bool:
    order = [ours["FedAvg", harm, 1] for harm in ("none", "flip", "zero", "random")]
    return all(a >= b for a, b in pairwise(order))


def _lost(before: float, after: float) -> float:
    """Points of accuracy lost; a hundredth where none is."""
    return max(100 * (before - after), 1e-2)


def _draw_fedsecurity(curves: Mapping[tuple[str, str, int], Sequence[Sequence[float]]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, 3, figsize=(12, 6.8), sharex=True, sharey=True, layout="constrained"
    )
    *used, spare = axes.flat
    for axis, (group, members) in zip(used, EXPERIMENTS.items(), strict=True):
        for rule, harm, k in members:
            each = torch.tensor(curves[rule, harm, k])
            rounds = [min(EVERY * i, ROUNDS - 1) + 1 for i in range(each.shape[1])]
            label = {"1": harm, "2": rule, "3": rule, "7": f"{k} of 10"}[group[0]]
            (line,) = axis.plot(rounds, each.mean(dim=0), label=label)
            axis.fill_between(
                rounds, each.amin(dim=0), each.amax(dim=0), color=line.get_color(), alpha=0.15
            )
        axis.set(title=f"Experiment {group}", xlabel="round", ylabel="test accuracy", ylim=(0, 0.9))
        axis.tick_params(labelbottom=True, labelleft=True)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", ncols=2, fontsize=9)
    spare.axis("off")
    about = (
        "Fashion-MNIST, 10 clients, Dirichlet 0.5,\nMLP of 64, 20 steps of 32 at rate 0.1 a"
        f" round.\n\nLines: mean of {len(next(iter(curves.values())))} seeds; bands: least and"
        " most.\n1 client of 10 attacks where not said,\nanother one in every round\n(flipped"
        " labels stay with theirs)."
    )
    spare.text(0.0, 0.5, about, va="center", fontsize=11, transform=spare.transAxes)
    save(figure, "fedsecurity.png")


# ---- The single shot

HONEST = LocalSGD(lr=0.05, plan=LocalPlan(64, epochs=2), weighting="uniform")
SQUARE = attacks.PixelPattern(target=2, boxes=((0, 0, 4, 4),))
SQUARE_TRAINING = attacks.AttackTraining(lr=0.05, epochs=3, poisoned=5, decay=0.1, every=1)
TAIL_TRAINING = attacks.AttackTraining(lr=0.02, epochs=6, poisoned=10)
SIGMAS = (0.0, 0.02, 0.05)
TEAMS = ((1, 0.2), (2, 0.2), (3, 0.5))


def as_mnist(digits: Dataset, digit: int, split: Split) -> Dataset:
    """scikit-learn's scans of a digit, enlarged to 20 x 20 in the middle of 28 x 28, scaled as
    MNIST is.
    """
    found = digits.take((digits.y == digit).nonzero().flatten())
    pixels = load("digits").original(found.x).clamp(0, 1)
    large = functional.pad(
        functional.interpolate(pixels, size=(20, 20), mode="bilinear"), (4, 4, 4, 4)
    )
    return Dataset((large - split.mean[0]) / split.std[0], found.y, 10)


def seven_tail(split: Split) -> attacks.EdgeCase:
    """Sevens of another hand and another scanner, to be called ones."""
    digits = load("digits")
    return attacks.EdgeCase(
        source=7,
        target=1,
        tail=as_mnist(digits.train, 7, split),
        tail_test=as_mnist(digits.test, 7, split),
    )


def one_round(
    model: Any,
    clients: Sequence[Dataset],
    split: Split,
    attack: Any,
    k: int = 1,
    rounds: int = 1,
    **parts: Any,
) -> Point:
    """Trigger and main accuracy after the round(s); the first k clients attack. The model is put
    back afterwards.
    """
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    attackers = [Attacker("a", attack, frozenset(range(k)))] if k else []
    audit = AuditConfig(keep=[], evaluate_every=rounds)
    Federation(
        model,
        clients,
        split.test,
        rounds=rounds,
        training=HONEST,
        attackers=attackers,
        executor="sequential",
        audit=audit,
        **parts,
    ).run()
    measured = attack.measure(model, split.test)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(before, model.parameters())
    return measured["backdoor"], measured["main"]


def near_convergence(split: Split, clients: Sequence[Dataset], seed: int) -> Any:
    """A CNN of 20k weights after 4 central epochs and 5 federated rounds of 10."""
    model = initialised(cnn, split.shape, split.classes, seed=seed)
    central = LocalSGD(lr=0.05, plan=LocalPlan(64, epochs=4))
    quiet = AuditConfig(keep=[], evaluate_every=100)
    Federation(
        model,
        [split.train],
        split.test,
        rounds=1,
        training=central,
        seed=seed,
        executor="sequential",
        audit=quiet,
    ).run()
    Federation(
        model,
        clients[:10],
        split.test,
        rounds=5,
        training=HONEST,
        seed=seed,
        executor="sequential",
        audit=quiet,
    ).run()
    return model


def shots(seed: int) -> dict[str, Point]:
    """Everything that is measured from one model close to convergence: name -> (backdoor, main)."""
    split, seeds = load("mnist"), Seeds(seed)
    everyone = [
        split.train.take(part) for part in IID()(split.train, 100, seeds.generator("partition"))
    ]
    model = near_convergence(split, everyone, seed)
    drawn = torch.randperm(split.train.n, generator=seeds.generator("attacker"))[:20000]
    rich, own, honest, tail = (
        split.train.take(drawn),
        everyone[20],
        everyone[11:20],
        seven_tail(split),
    )
    found: dict[str, Point] = {
        "start, square": (
            SQUARE.measure(model, split.test)["backdoor"],
            evaluate(model, split.test).accuracy,
        )
    }
    found["start, tail"] = (
        tail.measure(model, split.test)["backdoor"],
        evaluate(model, split.test).accuracy,
    )
    shot = partial(one_round, model, split=split)
    found["replacement, square"] = shot(
        clients=[rich, *honest], attack=attacks.ModelReplacement(SQUARE, SQUARE_TRAINING)
    )
    found["poisoning, square"] = shot(clients=[own, *honest], attack=SQUARE)
    replaced = attacks.ModelReplacement(tail, TAIL_TRAINING)
    found["replacement, tail"] = shot(clients=[own, *honest], attack=replaced)
    found["poisoning, tail"] = shot(clients=[own, *honest], attack=tail)
    for sigma in SIGMAS:
        seat = [aggregators.NormClipping(bound=0.12, sigma=sigma)]
        found[f"clip M, noise {sigma:g}, attacked"] = shot(
            clients=[own, *honest], attack=replaced, defences=seat
        )
        found[f"clip M, noise {sigma:g}, 3 quiet rounds"] = shot(
            clients=[own, *honest], attack=tail, k=0, rounds=3, defences=seat
        )
    found["no clip, 3 quiet rounds"] = shot(clients=[own, *honest], attack=tail, k=0, rounds=3)
    for k, alpha in TEAMS:
        stealthy = attacks.ConstrainAndScale(
            tail, TAIL_TRAINING, gamma=1.0, split="same", alpha=alpha
        )
        cohort = [*everyone[20 : 20 + k], *everyone[11 : 21 - k]]
        found[f"krum, {k} of 10, alpha {alpha}"] = shot(
            clients=cohort, attack=stealthy, k=k, aggregator=aggregators.Krum(f=k)
        )
        found[f"mean, {k} of 10, alpha {alpha}"] = shot(clients=cohort, attack=stealthy, k=k)
    return found


def single_shot(quick: bool) -> Iterable[Row]:
    """The backdoor paper's claims, each from the same models close to convergence."""
    seeds = SEEDS[:1] if quick else SEEDS
    each = [found for _, found in spread_out(shots, [(seed,) for seed in seeds])]
    backdoor = {name: [found[name][0] for found in each] for name in each[0]}
    main_task = {name: [found[name][1] for found in each] for name in each[0]}
    for name in each[0]:
        start = "start, square" if "square" in name else "start, tail"
        yield gain(
            "single_shot",
            "before",
            f"backdoor, {name}",
            statistics.mean(backdoor[name]),
            statistics.mean(backdoor[start]) or 1e-3,
        )
        yield between("single_shot", f"backdoor, {name}", backdoor[name])
        yield gain(
            "single_shot",
            "before",
            f"main task, {name}",
            statistics.mean(main_task[name]),
            statistics.mean(main_task[start]),
        )
    for mark in ("square", "tail"):
        shot, start, alone = f"replacement, {mark}", f"start, {mark}", f"poisoning, {mark}"
        lost = 100 * (statistics.mean(main_task[start]) - statistics.mean(main_task[shot]))
        base = (
            0.0 if mark == "square" else 100 * statistics.mean(backdoor[start])
        )  # some tails look like the target to begin with
        gained = 100 * statistics.mean(backdoor[alone]) - base
        yield gain(
            "single_shot",
            "goal",
            f"backdoor %, {shot}",
            100 * statistics.mean(backdoor[shot]),
            95.0,
            target=1.0,
        )
        yield cost(
            "single_shot",
            "goal",
            f"points of main task lost, {shot}",
            max(lost, 1e-2),
            1.0,
            target=1.0,
        )
        what = "backdoor %" if mark == "square" else "points of backdoor gained"
        yield cost("single_shot", "goal", f"{what}, {alone}", max(gained, 1e-2), 15.0, target=1.0)
    picked = 100 * statistics.mean(backdoor["krum, 2 of 10, alpha 0.2"])
    yield gain(
        "single_shot",
        "goal",
        "backdoor % that Krum installs, 2 of 10 collude",
        picked,
        90.0,
        target=1.0,
    )
    draw_shots(SHOWN, backdoor, main_task)


SHOWN = {
    "before the attack": ("start, square", "start, tail"),
    "mean": ("replacement, square", "poisoning, square", "replacement, tail", "poisoning, tail"),
    "norm clipping and noise, attacked": tuple(
        f"clip M, noise {sigma:g}, attacked" for sigma in SIGMAS
    ),
    "the same, 3 rounds without attack": (
        "no clip, 3 quiet rounds",
        *(f"clip M, noise {sigma:g}, 3 quiet rounds" for sigma in SIGMAS),
    ),
    "Krum and mean, constrain-and-scale": tuple(
        f"{rule}, {k} of 10, alpha {alpha}" for k, alpha in TEAMS for rule in ("krum", "mean")
    ),
}


# ---- The grid

N, F = 20, 8
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


def grid(quick: bool) -> Iterable[Row]:
    """20 attacks x 15 rules, and no attack, by seeds; the heat map."""
    seeds, began, used = (SEEDS[:1] if quick else SEEDS), time.perf_counter(), _workers_seconds()
    found: dict[str, list[list[float]]] = {attack: [] for attack in ATTACKS}
    for (attack, _), accuracies in spread_out(
        column, [(attack, seed) for attack in ATTACKS for seed in seeds]
    ):
        found[attack].append(accuracies)
    whole = len(SEEDS) / len(seeds) / 60
    waited, minutes = (time.perf_counter() - began) * whole, (_workers_seconds() - used) * whole
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
    yield cost("grid", "goal", f"core-minutes, {size}", minutes, 15.0 * WORKERS, target=1.0)
    yield cost(
        "grid",
        "goal",
        f"minutes on the clock, {WORKERS} processes beside whatever else ran, {size}",
        waited,
        15.0,
        target=1.0,
    )
    draw_grid(heat, spread, list(ATTACKS), list(RULES), f"{F} of {N}", len(seeds))


def _workers_seconds() -> float:
    """Processor time of all workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


CASES = {"fedsecurity": fedsecurity, "single_shot": single_shot, "grid": grid}

if __name__ == "__main__":
    main("robustness", CASES)
