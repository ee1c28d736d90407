"""What is no answer to the question, and what is not played, is undone and said so: it is no
figure, and ends no audit.
"""

import pytest
import torch

from privfl import Federation
from privfl.attacks import (
    ClientPresence,
    Counts,
    Inference,
    LabelCounts,
    Reconstruction,
    Scores,
)
from privfl.audit import Attacks, audit, card, record
from privfl.audit.gates import Limit, over

FOUR = torch.zeros(4, dtype=torch.int64)
NO_LABELS = torch.zeros(0, dtype=torch.int64)
DIGITS = {"name": "digits", "clients": 4, "partition": {"name": "iid"}}


def audited(data=DIGITS, **asked):
    base = {"data": data, "model": "softmax", "rounds": 1, "executor": "sequential"}
    federation = Federation.from_config(base)
    return audit(federation, adversaries=["server"], lies=None, active=False, **asked)


class Claims(Inference):
    """An attack of somebody's own, that claims what it is given."""

    family = "inversion"

    def __init__(self, told):
        self.told = told

    def infer(self, views, knowledge):
        return self.told


class CountsOf(LabelCounts):
    """Label counts of somebody's own."""

    def infer(self, views, knowledge):
        return Counts("CountsOf", "server", torch.full((10,), float("nan")).long())


class TooFew(LabelCounts):
    """Counts of other data."""

    def infer(self, views, knowledge):
        return Counts("TooFew", "server", torch.tensor([1, -3]))


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (CountsOf(), "Counts of 10, and a count of each of 10 classes, none below zero"),
        (TooFew(), "Counts of 2, and a count of each of 10 classes"),
        (
            Claims(Reconstruction("Claims", "server", torch.zeros(4, 64), FOUR)),
            "of 4 x 64, and samples",
        ),
        (
            Claims(Reconstruction("Claims", "server", torch.zeros(0, 1, 8, 8), NO_LABELS)),
            "of 0 x 1 x 8 x 8",
        ),
        (Claims(Scores("Claims", "server", torch.zeros(4))), "Scores of 4, and samples of shape"),
    ],
    ids=["what no number is as a count", "other counts", "another shape", "no sample", "scores"],
)
def test_what_is_no_answer_of_a_probe_is_undone_and_no_gate_is_green_over_it(attack, why):
    report = audited(attacks=Attacks(probe=(attack,)))
    (finding,) = report.findings
    assert why in finding.undone
    assert finding.value is None
    asset = "labels.right=.99" if isinstance(attack, LabelCounts) else "samples.recognised=.99"
    assert over(record(report), Limit.parse(asset)).light == "inconclusive"


def presence(report):
    (line,) = [line for line in card(report) if line.asset == "presence"]
    return line


def test_a_presence_that_the_budget_did_not_reach_says_so():
    """Its line said that no attack of this audit asks for it."""
    line = presence(audited(attacks=Attacks(presence=(ClientPresence(),)), budget=1e-9))
    assert line.verdict == "not found"
    assert "the budget was used up" in line.doubts[0]


def test_a_presence_without_enough_strangers_says_so():
    many = {**DIGITS, "clients": 1000}
    line = presence(audited(many, attacks=Attacks(presence=(ClientPresence(),))))
    assert line.verdict == "not found"
    assert "strangers' samples, and there are" in line.doubts[0]
