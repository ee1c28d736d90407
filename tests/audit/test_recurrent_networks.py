"""Attacks on membership read networks with recurrent layers, sample by sample as anybody would."""

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import ClientPresence, FedMIA, LossThreshold, UpdateMembership
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.membership.gradients import losses, per_sample
from privfl.audit import Attacks, audit
from privfl.config import AuditConfig
from privfl.core import Dataset, FlatModel, LocalPlan, cross_entropy
from privfl.training import LocalSGD


class Words(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.words, self.last = nn.Embedding(9, 4), nn.Linear(5, 9)
        self.states = kind(4, 5, batch_first=True)

    def forward(self, tokens):
        return self.last(self.states(self.words(tokens))[0])


def federation(kind, **settings):
    torch.manual_seed(0)
    text = torch.randint(9, (90, 6))
    data = Dataset(text[:, :-1].clone(), text[:, 1:].clone(), 9)
    parts = [data.take(range(i, 60, 4)) for i in range(4)]
    return Federation(
        Words(kind), parts, data.take(range(60, 90)), rounds=1,
        training=LocalSGD(plan=LocalPlan(4)), executor="sequential", **settings,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_losses_and_gradients_are_those_of_each_sample_alone(kind):
    made = federation(kind, audit=AuditConfig(keep="all"))
    view, data = made.run().view("server", round=0), made.scenario.test.take(range(7))
    simulator = Simulator(view.facts["forward"], view.before)
    model = FlatModel(Words(kind))
    found = zip(losses(simulator, data), per_sample(simulator, data), strict=True)
    for i, (loss, slope) in enumerate(found):
        model.write(view.before)
        model.grad.zero_()
        alone = cross_entropy(model.module, data.x[i : i + 1], data.y[i : i + 1])
        alone.backward()
        assert torch.allclose(loss, alone, atol=1e-6)
        assert torch.allclose(slope, model.grad, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_an_audit_of_a_recurrent_network_leaves_no_membership_undone(kind):
    stream = (LossThreshold(), UpdateMembership(statistic="cosine"), FedMIA())
    attacks = Attacks(stream=stream, active=True, presence=(ClientPresence("loss"),))
    report = audit(federation(kind), adversaries=["server"], attacks=attacks, seed=1)
    assert not [(one.attack, one.undone) for one in report.findings if one.undone]
    assert {"LossThreshold", "UpdateMembership", "FedMIA"} <= {
        one.attack.split(" ")[0] for one in report.findings if one.value is not None
    }
