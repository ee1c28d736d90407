"""A client whose DP-SGD training raises pays for the steps that it would have taken: what was seen
of it, that it failed included, may hang on all of them.
"""

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.core import Dataset, LocalPlan, RoundFailed
from privfl.dp import DPGradient
from privfl.engine import read_ledger
from privfl.training import LocalSGD

PLAN = LocalPlan(4, epochs=2)
ROUNDS = 4


class RaisesLate(nn.Module):
    """Cross-entropy that refuses two samples of label 1 as soon as the model has moved so far,
    which is no one sample's doing; a worker process imports it.
    """

    def __init__(self, far):
        super().__init__()
        self.far = far

    def forward(self, module, x, y):
        moved = module.weight.detach().abs().max() > self.far
        if moved and int((y == 1).sum()) > 1:
            raise ValueError("label 1 twice is not what this loss can take")
        return nn.functional.cross_entropy(module(x), y)


def federation(executor, far=1.0, labels=(0, 1, 0), rounds=ROUNDS):
    held = [
        Dataset(torch.randn(8 + 4 * i, 4), torch.full((8 + 4 * i,), label), classes=2)
        for i, label in enumerate(labels)
    ]
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight)
    return Federation(
        model,
        held,
        held[0],
        loss=RaisesLate(far),
        training=LocalSGD(lr=2.0, plan=PLAN, gradient=DPGradient(1.0, 3.0, 4)),
        rounds=rounds,
        executor=executor,
    )


def steps(ledger):
    """How many noisy steps each client paid for in each round."""
    return {(c.subject, c.round): (c.count, c.sampling.rate) for c in ledger.charges}


@pytest.mark.parametrize("executor", ["sequential", "processes/1"])
def test_a_client_whose_training_raises_pays_for_all_its_planned_steps(executor):
    run = federation(executor).run()
    failed = [r.round for r in run.history if any("client 1 failed" in i for i in r.incidents)]
    assert failed, "the loss must raise at client 1 in some round"
    paid = steps(run.ledger)
    for number in range(ROUNDS):
        assert paid["sample of client 1", number] == (2 * 12 // 4, 4 / 12)
        assert paid["sample of client 0", number] == (2 * 8 // 4, 4 / 8)


def test_a_round_in_which_everybody_fails_is_charged_before_the_run_stops(tmp_path):
    made = federation("sequential", far=-1.0, labels=(1, 1))
    with pytest.raises(RoundFailed, match="at every client"):
        made.run(tmp_path / "run")
    paid = steps(read_ledger(tmp_path / "run"))
    assert paid == {
        ("sample of client 0", 0): (2 * 8 // 4, 4 / 8),
        ("sample of client 1", 0): (2 * 12 // 4, 4 / 12),
    }
