"""How long a single shot lasts by the round in which it comes (Bagdasaryan et al. 2020, section V-F
and figure 6): their word predictor, cut to Shakespeare's roles, attacked at three rounds of one
federated training.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from benchmarks.harness import Row, gain
from benchmarks.robustness.central import glance, pull
from benchmarks.robustness.figures import draw_longevity
from benchmarks.robustness.words import BACKDOOR, BACKDOORS, SENTENCES, sentence
from benchmarks.robustness.workers import Experiment, Played, Point, between, one_each
from privfl import Federation, attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Seeds
from privfl.data import Split
from privfl.data.shakespeare import Shakespeare
from privfl.engine import Attacker
from privfl.models import initialised, lstm
from privfl.training import LocalSGD

WORDS, COHORT = 1000, 10
HONEST = LocalSGD(lr=20.0, plan=LocalPlan(20, epochs=2), weighting="uniform")
"""The paper's rate, epochs and batches; its eta is 800 with n / eta = 100 = m, so that the server
takes the cohort's mean there too.
"""
SHOTS = (1, 10, 50)
"""Rounds of the training, the first one 1, in which somebody attacks."""
AFTER = (0, 1, 2, 5, 10, 20)
"""Honest rounds after a shot at which the backdoor is measured."""
READ = (1, 2, 5, 10)
"""Those over which what is left is averaged. At first it was what is left after 20: nothing, of any
shot, on seeds 0, 1 and 2.
"""
WANTED = 10.0
"""Points that more must be left of the last shot than of the first."""
SEEDS = (3, 4, 5)
"""On none of which the rounds that are read were chosen."""


@dataclass(frozen=True)
class Shot:
    """One shot: backdoor and main task before it and after each of `AFTER`; the norm of the
    aggregated update and the mean one of a client's, in each of the honest rounds that follow.
    """

    before: Point
    after: Sequence[Point]
    pulled: Sequence[Point]


@dataclass(frozen=True)
class Course:
    """A federated training of a seed: data, clients, the attacker's windows, the model."""

    split: Split
    clients: Sequence[Dataset]
    own: Dataset
    model: Any
    seed: int

    @classmethod
    def of(cls, seed: int) -> Course:
        """Before its first round: the model has learnt nothing."""
        split = Shakespeare(length=16, unit="word", min_characters=2000, words=WORDS)()
        model = initialised(lstm, split.shape, split.classes, seed=seed, embedding=32, hidden=32)
        rng = Seeds(seed).generator("attacker")
        drawn = torch.randperm(split.train.n, generator=rng)[:SENTENCES]
        roles = list(split.by_client().values())
        return cls(split, roles, split.train.take(drawn), model, seed)

    def round(self, number: int, attack: Any = None) -> Point:
        """Play a round of ten drawn roles, one of which gives way to the attacker if there is one;
        the norm of the aggregated update, and the mean one of a client's.
        """
        rng = Seeds(self.seed).generator("cohort", number)
        drawn = torch.randperm(len(self.clients), generator=rng)[:COHORT].tolist()
        cohort = [self.clients[i] for i in drawn]
        run = Federation(
            self.model,
            cohort if attack is None else [self.own, *cohort[1:]],
            glance(self.split).test,
            rounds=1,
            training=HONEST,
            attackers=[] if attack is None else [Attacker("a", attack, frozenset({0}))],
            seed=1000 * self.seed + number,
            executor="sequential",
            audit=AuditConfig(keep=[0], evaluate_every=100),
        ).run()
        return pull(run)

    def seen(self, probe: Any) -> Point:
        """Backdoor and main task on 400 windows from all over the test parts."""
        test = self.split.test
        measured = probe.measure(self.model, test.take(range(0, test.n, test.n // 400)))
        return measured["backdoor"], measured["main"]

    def shot(self, number: int, probe: Any) -> Shot:
        """Attack in this round, go on honestly, and put the model back."""
        kept = torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()
        before = self.seen(probe)
        self.round(number, attacks.ModelReplacement(probe, BACKDOOR))
        found, pulls = [self.seen(probe)], []
        for later in range(1, AFTER[-1] + 1):
            pulls.append(self.round(number + later))
            if later in AFTER:
                found.append(self.seen(probe))
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(kept, self.model.parameters())
        return Shot(before, found, pulls)


def course(seed: int) -> dict[int, Shot]:
    """The shots of one training, by their round."""
    it = Course.of(seed)
    probe = sentence(it.split, *BACKDOORS[0])
    found = {}
    for number in range(SHOTS[-1]):
        if number + 1 in SHOTS:
            found[number + 1] = it.shot(number, probe)
        if number + 1 < SHOTS[-1]:
            it.round(number)
    return found


def longevity(played: Played) -> Iterable[Row]:
    """What honest rounds leave of each shot, and how hard they pull."""
    each: Sequence[dict[int, Shot]] = played.each
    mean = statistics.mean
    left: list[float] = []
    for number in SHOTS:
        shots = [found[number] for found in each]
        points = {"before": [one.before for one in shots]} | {
            f"{after} honest rounds later": [one.after[i] for one in shots]
            for i, after in enumerate(AFTER)
        }
        for when, seen in points.items():
            for which, task in enumerate(("backdoor %", "main task %")):
                values = [100 * one[which] for one in seen]
                what = f"{task}, shot in round {number}, {when}"
                yield gain("longevity", "all", what, mean(values), 100.0)
                yield between("longevity", what, values)
        for which, whose in enumerate(("the aggregated update", "one client's update")):
            for when, rounds in (("first", 1), ("all", AFTER[-1])):
                values = [mean(one[which] for one in shot.pulled[:rounds]) for shot in shots]
                what = f"norm of {whose}, {when} honest rounds after the shot in round {number}"
                yield gain("longevity", "one", what, mean(values), 1.0)
                yield between("longevity", what, values)
        base, gained = mean(shot.before[0] for shot in shots), mean(s.after[0][0] for s in shots)
        share = {
            after: 100
            * (mean(shot.after[i][0] for shot in shots) - base)
            / max(gained - base, 1e-3)
            for i, after in enumerate(AFTER)
        }
        left.append(mean(share[after] for after in READ))
        what = f"figure 6: % of the gain left, mean over rounds {READ}, shot in round {number}"
        yield gain("longevity", "all", what, left[-1], 100.0)
        what = f"figure 6: % of the gain left {AFTER[-1]} rounds after the shot in round {number}"
        yield gain("longevity", "all", what, share[AFTER[-1]], 100.0)
    what = "figure 6: steps to a later shot of which more is left"
    steps = float(sum(a < b for a, b in pairwise(left)))
    yield gain("longevity", "goal", what, steps, len(SHOTS) - 1, target=1.0)
    what = f"figure 6: points more left of the shot in round {SHOTS[-1]} than of that in round 1"
    yield gain("longevity", "goal", what, left[-1] - left[0], WANTED, target=1.0)
    draw_longevity(
        AFTER, {shot: [[at[0] for at in one[shot].after] for one in each] for shot in SHOTS}
    )


LONGEVITY = Experiment(course, one_each, longevity, SEEDS)
