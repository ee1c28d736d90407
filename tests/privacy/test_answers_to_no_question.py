"""An attack that answers with another number of scores, or with something else, has no verdict: the
audit says what it answered, and neither drops the finding nor breaks off.
"""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from privfl import Federation
from privfl.attacks import ClientScores, Inference, PropertyScores, Result, Scores
from privfl.audit import audit
from privfl.audit.effort import Attacks
from privfl.audit.gates import Limit, over
from privfl.audit.record import record
from privfl.core import Dataset
from privfl.models import initialised, mlp
from privfl.training import FedSGD

SEVEN = torch.zeros(7)
ANSWERS = {
    "too few scores": lambda who: Scores("Odd", who, SEVEN),
    "scores by client of another pool": lambda who: ClientScores("Odd", who, SEVEN[None], (0,)),
    "a property of nobody here": lambda who: PropertyScores(
        "Odd", who, SEVEN[None], (9,) * 7, (0,)
    ),
}


@dataclass(frozen=True, slots=True)
class _Odd(Inference):
    family: ClassVar = "membership"
    answer: str
    sums: bool = False

    @property
    def takes_sum(self) -> bool:
        return self.sums

    def infer(self, views, knowledge) -> Result:
        return ANSWERS[self.answer](views[0].adversary)


def images(n, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand((n, 1, 4, 4), generator=rng)
    return Dataset(x, torch.randint(0, 2, (n,), generator=rng), 2)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_to_another_question_is_undone_with_a_sentence(answer):
    made = Federation(
        initialised(mlp, (1, 4, 4), 2, seed=0, hidden=(4,)),
        [images(12, seed) for seed in range(4)],
        images(60, 9),
        rounds=1,
        training=FedSGD(lr=0.1),
        executor="sequential",
    )
    odd = (_Odd(answer),)
    attacks = Attacks(properties=(*odd, _Odd(answer, sums=True)), stream=odd, presence=odd)
    report = audit(made, adversaries=["server"], attacks=attacks, lies=None)
    assert len(report.findings) == 4
    for finding in report.findings:
        assert finding.verdict == "not found"
        assert finding.value is None
        assert finding.undone.endswith(".")
    assert over(record(report), Limit.parse("membership.tpr_at_.01=.05")).light != "green"
