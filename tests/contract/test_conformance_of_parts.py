"""The checks of attacks, mechanisms, data sets, models and defences find what was planted."""

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from privfl.aggregators import Clipping, NormClipping
from privfl.attacks import (
    IPM,
    FreeRider,
    LabelFlip,
    LossThreshold,
    Mimic,
    SelectionProfile,
    SignFlip,
    SkipClip,
)
from privfl.core import Bounded, DataMissing, NotVisible, SeededNoise
from privfl.data import Digits
from privfl.dp import DistributedSkellam, Gaussian, LocalGaussian
from privfl.testing import (
    ConformanceError,
    attack_checks,
    check_dataset,
    dataset_checks,
    defence_checks,
    inference_attack_checks,
    mechanism_checks,
    model_checks,
)


class InPlace(SignFlip):
    def poison_updates(self, own, knowledge, rng):
        return own.neg_()


class Unseeded(SignFlip):
    def poison_updates(self, own, knowledge, rng):
        return torch.randn_like(own)


class Peeks(IPM):
    @property
    def knows(self):
        return "own"

    def poison_updates(self, own, knowledge, rng):
        more = 0 if knowledge.benign is None else knowledge.benign.values.mean(dim=0)
        return own + more


class WrongSeat(SignFlip):
    seats: ClassVar = frozenset({"data"})


class KeepsItsOwnMemory(Mimic):
    def poison_and_remember(self, own, knowledge, memory, rng):
        SEEN.append(0)
        return own + len(SEEN), memory


SEEN: list[int] = []


class FlipsInPlace(LabelFlip):
    def poison_data(self, dataset, rng):
        dataset.y.zero_()
        return dataset


class Twelve(LabelFlip):
    def poison_data(self, dataset, rng):
        return replace(dataset, y=dataset.y + 12)


class OtherClient(SkipClip):
    def poison_bounded(self, honest, unbounded):
        return Bounded.claimed(honest.client + 1, honest.delta, honest.l2)


class OneRowOnly(FreeRider):
    def poison_updates(self, own, knowledge, rng):
        return own[:1].clone()


class Thin(Gaussian):
    def release(self, vector, sensitivity, survivors, noise):
        out, event = super().release(vector, sensitivity, survivors, noise)
        return vector + (out - vector) / 2, event


class Free(Gaussian):
    def release(self, vector, sensitivity, survivors, noise):
        return super().release(vector, sensitivity, survivors, noise)[0], None


class OwnCoins(Gaussian):
    def release(self, vector, sensitivity, survivors, noise):
        return super().release(vector, sensitivity, survivors, SeededNoise(1))


class SaysLocal(Gaussian):
    local = True


class SaysCentral(LocalGaussian):
    local = False


class Fixed(Gaussian):
    def release(self, vector, sensitivity, survivors, noise):
        out, event = super().release(
            torch.zeros_like(vector), replace(sensitivity, l2=1.0), 1, noise
        )
        return vector + out, event


class NoReach(DistributedSkellam):
    def reach(self, unit_l2, among, contributors):
        return 3


class ThinShares(DistributedSkellam):
    def add(self, integers, unit_l2, among, noise):
        return integers + (super().add(np.zeros_like(integers), unit_l2, among, noise) // 2)


class OneLabel(Digits):
    def __call__(self, folder=None):
        split = super().__call__(folder)
        return replace(split, train=replace(split.train, y=torch.zeros_like(split.train.y)))


class Shuffled(Digits):
    def __call__(self, folder=None):
        split = super().__call__(folder)
        return replace(split, train=split.train.take(torch.randperm(split.train.n)))


class Flattened(Digits):
    def __call__(self, folder=None):
        return replace(super().__call__(folder), shape=(64,))


class Absent(Digits):
    def __call__(self, folder=None):
        raise DataMissing("no file absent.csv")


def normed(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.BatchNorm1d(classes))


class Mixes(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.layer(x - x.mean(dim=0))


def mixing(shape, classes):
    return Mixes(classes)


def one_too_many(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))


def clocked(shape, classes):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    rng = torch.Generator()
    rng.seed()
    with torch.no_grad():
        module[1].weight.copy_(torch.randn(classes, 64, generator=rng))
    return module


class ClipsInPlace(Clipping):
    def before(self, rows, state, context):
        rows.values.mul_(0.5)
        return rows, state


class SpreadsNaN(Clipping):
    def before(self, rows, state, context):
        return replace(rows, values=rows.values - rows.values.mean(dim=0)), state


class Anonymises(Clipping):
    def before(self, rows, state, context):
        return replace(rows, ids=None), state


@dataclass(frozen=True, slots=True)
class ForgetsAfter(NormClipping):
    seats: ClassVar = frozenset({"before"})


PLANTED = [
    (attack_checks, InPlace, "work on copies|second time"),
    (attack_checks, Unseeded, "draw chance from rng"),
    (attack_checks, Peeks, "declare knows = 'benign'"),
    (attack_checks, WrongSeat, "declare the seats whose methods it has"),
    (attack_checks, KeepsItsOwnMemory, "keep memory in what goes in and out"),
    (attack_checks, FlipsInPlace, "work on a copy"),
    (attack_checks, Twelve, "labels in .12, "),
    (attack_checks, OtherClient, "of client 5"),
    (attack_checks, OneRowOnly, "one row for each"),
    (mechanism_checks, Thin, "as wide as its event says"),
    (mechanism_checks, Free, "its event is None"),
    (mechanism_checks, OwnCoins, "the source that is passed in"),
    (mechanism_checks, SaysLocal, "declare local as it is"),
    (mechanism_checks, SaysCentral, "declare local as it is"),
    (mechanism_checks, Fixed, "refuse with ConfigError|scale noise"),
    (mechanism_checks, NoReach, "reach is 3"),
    (mechanism_checks, ThinShares, "shares have the variance"),
    (dataset_checks, OneLabel, "samples of every class"),
    (dataset_checks, Shuffled, "global generator"),
    (dataset_checks, Flattened, "make samples of that shape"),
    (model_checks, normed, "Use GroupNorm"),
    (model_checks, mixing, "change with the other three"),
    (model_checks, one_too_many, "return logits"),
    (model_checks, clocked, "default generator"),
    (defence_checks, ClipsInPlace, "return new ones"),
    (defence_checks, SpreadsNaN, "spread it over no other"),
    (defence_checks, Anonymises, "declare keeps_ids"),
    (defence_checks, ForgetsAfter, "declare the seats"),
]


@pytest.mark.parametrize(
    ("checks", "part", "says"), PLANTED, ids=[part.__name__ for _, part, _ in PLANTED]
)
def test_a_planted_fault_is_found_and_the_way_out_is_named(checks, part, says):
    errors = [error for check in checks(part) if (error := raised(check))]
    assert any(re.search(says, str(error)) for error in errors), errors


def raised(check):
    try:
        check()
    except ConformanceError as error:
        return error


def test_a_data_set_that_is_not_here_was_not_checked():
    with pytest.raises(DataMissing, match=r"absent\.csv"):
        check_dataset(Absent)


class Fails(SelectionProfile):
    def infer(self, views, knowledge):
        views[0].disclosed["selected"]  # a KeyError where nobody is told
        return super().infer(views, knowledge)


class AnswersNobody(LossThreshold):
    def infer(self, views, knowledge):
        raise NotVisible("it is too dark.")


class AnswersInPart(LossThreshold):
    def infer(self, views, knowledge):
        scored = super().infer(views, knowledge)
        return replace(scored, scores=scored.scores[1:])


class Guesses(LossThreshold):
    def infer(self, views, knowledge):
        scored = super().infer(views, knowledge)
        return replace(scored, scores=torch.rand_like(scored.scores))


class SpoilsItsView(LossThreshold):
    def infer(self, views, knowledge):
        scored = super().infer(views, knowledge)
        views[0].before.add_(1)
        return scored


class OfNoFamily(LossThreshold):
    family: ClassVar = "burglary"


class NoResult(LossThreshold):
    def run(self, view, knowledge=None):
        return 0.5


@pytest.mark.parametrize(
    ("attack", "broken", "found"),
    [
        (Fails, "where it lacks something it says what", "raised KeyError"),
        (AnswersNobody, "it answers somebody who sees", "it is too dark"),
        (AnswersInPart, "with what was asked", r"shape \(47,\), and \(48,\)"),
        (Guesses, "it repeats with the seed", "another claim the second time"),
        (SpoilsItsView, "leaves what it was shown", "changed its views"),
        (OfNoFamily, "it declares its family", "family is 'burglary'"),
        (SignFlip, "it declares its family", "is no Inference"),
        (NoResult, "where it lacks something it says what", "answered 0.5"),
    ],
)
def test_a_fault_in_an_attack_on_views_is_found(attack, broken, found):
    said = []
    for check in inference_attack_checks(attack):
        try:
            check()
        except ConformanceError as error:
            said.append(error)
    assert any(broken in error.broken and re.search(found, error.found) for error in said), said
