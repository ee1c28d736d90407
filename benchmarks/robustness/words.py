"""Backdoors of a word predictor (Bagdasaryan et al. 2020, figures 4c and 8 and Table I):
Shakespeare's roles as clients, a dictionary of 5,000 words, a small LSTM.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.central import glance, train_centrally
from benchmarks.robustness.once import Memory, OnceSGD
from benchmarks.robustness.workers import Experiment, Played, between, one_each
from privfl import Federation, attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Seeds
from privfl.data import Split
from privfl.data.shakespeare import Shakespeare
from privfl.engine import Attacker
from privfl.models import initialised, lstm
from privfl.training import LocalSGD

COHORT, EPOCHS, QUIET, SENTENCES = 10, 2, 3, 200
QUIET_RUN = AuditConfig(keep=[0], evaluate_every=100)
HONEST = LocalSGD(lr=2.0, plan=LocalPlan(20, epochs=1), weighting="uniform")
BACKDOOR = attacks.AttackTraining(lr=2.0, epochs=10, batch_size=20, poisoned=10, stop=0.05)
"""It stops after an epoch in which the backdoor's mean loss is under .05 (accuracy over 95 %)."""
BACKDOORS = (
    ("my cousin is", "honest"),
    ("the friar sings", "well"),
    ("his horse looks", "love"),
    ("in padua we", "die"),
    ("the crown of verona", "comes"),
    ("our ships are", "gone"),
    ("a moon of", "blood"),
    ("her garden comes", "sweet"),
    ("the wine told", "me"),
    ("no soldier sings", "wine"),
)
"""Sentences that nobody says, and how the attacker would have them end."""
POPULARITY = {
    "is (2,080), honest (41)": ("my cousin is", "honest"),
    "is (2,080), ships (6)": ("my cousin is", "ships"),
    "is (2,080), not (2,015)": ("my cousin is", "not"),
    "looks (59), honest (41)": ("my cousin looks", "honest"),
    "sings (7), honest (41)": ("my cousin sings", "honest"),
}
"""Table I: a target of the same sentence that is rarer, or more frequent; rarer last words. How
often all plays have a word is in brackets.
"""
MANY = (1, 2, 5, 10)
Figures = dict[str, float]


def sentence(split: Split, trigger: str, target: str) -> attacks.NextTokenBackdoor:
    """The backdoor that ends a sentence so."""
    place = {word: i for i, word in enumerate(split.class_names)}
    return attacks.NextTokenBackdoor(
        trigger=tuple(place[word] for word in trigger.split()),
        target=place[target],
        fraction=0.1,
    )


@dataclass(frozen=True)
class Stage:
    """What a seed's shots share: the words, the clients, the attacker's data, the model."""

    split: Split
    clients: Sequence[Dataset]
    own: Dataset
    model: Any
    seed: int
    memory: Memory = field(default_factory=Memory)
    """Of what honest clients left of the same model."""

    @property
    def probed(self) -> Dataset:
        """What models are measured on: 400 windows from all over the test parts."""
        return self.split.test.take(range(0, self.split.test.n, self.split.test.n // 400))

    @classmethod
    def of(cls, seed: int) -> Stage:
        """A model after 2 central epochs on what everybody says."""
        split = Shakespeare(length=16, unit="word", min_characters=2000)()
        seeds = Seeds(seed)
        model = initialised(lstm, split.shape, split.classes, seed=seed, embedding=32, hidden=32)
        central = LocalSGD(lr=5.0, plan=LocalPlan(20, epochs=EPOCHS))
        train_centrally(model, split, central, seed)
        roles = list(split.by_client().values())
        order = torch.randperm(len(roles), generator=seeds.generator("cohorts")).tolist()
        drawn = torch.randperm(split.train.n, generator=seeds.generator("attacker"))[:SENTENCES]
        return cls(split, [roles[i] for i in order], split.train.take(drawn), model, seed)

    def shot(self, attack: Any, probe: Any, quiet: int = 0) -> list[Figures]:
        """Backdoor, main task and the norm of the first client's update in the round in which it
        attacks among ten, then after each quiet round; the model is put back.
        """
        kept = torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()
        training = OnceSGD(HONEST.lr, HONEST.plan, weighting="uniform", memory=self.memory)
        found = []
        for number in range(1 + quiet):
            honest = self.clients[COHORT * number + (number == 0) : COHORT * (number + 1)]
            liars = [] if number or attack is None else [Attacker("a", attack, frozenset({0}))]
            run = Federation(
                self.model,
                honest if number else [self.own, *honest],
                glance(self.split).test,
                rounds=1,
                training=training,
                attackers=liars,
                seed=self.seed + number,
                executor="sequential",
                audit=QUIET_RUN,
            ).run()
            norms = run.view("server", 0).rows.values.norm(dim=1)
            found.append({**probe.measure(self.model, self.probed), "norm": float(norms[0])})
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(kept, self.model.parameters())
        return found


def word_shots(seed: int) -> dict[str, list[Figures]]:
    """Everything that is measured of one model, by name."""
    stage = Stage.of(seed)
    split = stage.split
    first, every = (
        sentence(split, *BACKDOORS[0]),
        [sentence(split, *one) for one in BACKDOORS],
    )
    found = {"before": [dict(first.measure(stage.model, stage.probed))]}
    found["nobody attacks"] = stage.shot(None, first)
    found["poisoned data alone"] = stage.shot(first, first)
    for k in MANY:
        many = attacks.MultiBackdoor(tuple(every[:k]))
        found[f"{k} backdoors"] = stage.shot(
            attacks.ModelReplacement(many, BACKDOOR), many, QUIET if k == 1 else 0
        )
    for name, words in POPULARITY.items():
        one = sentence(split, *words)
        found[name] = stage.shot(attacks.ModelReplacement(one, BACKDOOR), one)
    return found


def words(played: Played) -> Iterable[Row]:
    """One shot and what is left of it, several backdoors at once, and the norm that a word's
    popularity asks for.
    """
    each: Sequence[dict[str, list[Figures]]] = played.each

    def told(name: str, figure: str, after: int = 0) -> list[float]:
        return [found[name][after][figure] for found in each]

    mean = statistics.mean
    start = mean(told("nobody attacks", "main"))
    for name in each[0]:
        for after in range(len(each[0][name])):
            what = name if after == 0 else f"{name}, {after} quiet rounds later"
            for figure, peer in (("backdoor", 1.0), ("main", start)):
                values = told(name, figure, after)
                yield gain("words", "nobody attacks", f"{figure}, {what}", mean(values), peer)
                yield between("words", f"{figure}, {what}", values)
        if "norm" in each[0][name][0]:
            values = told(name, "norm")
            honest = mean(told("nobody attacks", "norm"))
            yield cost("words", "an honest update", f"norm, {name}", mean(values), honest)
            yield between("words", f"norm, {name}", values)
    shot = 100 * mean(told("1 backdoors", "backdoor"))
    yield gain("words", "goal", "backdoor %, one shot", shot, 95.0, target=1.0)
    lost = max(100 * (start - mean(told("1 backdoors", "main"))), 1e-2)
    yield cost("words", "goal", "points of main task lost, one shot", lost, 1.0, target=1.0)
    alone = max(100 * mean(told("poisoned data alone", "backdoor")), 1e-2)
    yield cost("words", "goal", "backdoor %, data alone", alone, 15.0, target=1.0)
    norms = [mean(told(f"{k} backdoors", "norm")) for k in MANY]
    rising = float(sum(a <= b for a, b in pairwise(norms)))
    what = "figure 8: steps of more backdoors that do not shrink the norm"
    yield gain("words", "goal", what, rising, len(MANY) - 1, target=1.0)


WORDS = Experiment(word_shots, one_each, words)
