"""Leaks that an interval over few clients, or an area under a curve, would hide; and chance that
must not look like one.
"""

import pytest
import torch

from privfl import Federation
from privfl.attacks import Scores, UpdateMembership
from privfl.audit import Attacks, audit, card
from privfl.audit.assets import clears
from privfl.audit.findings import LUCK, Finding
from privfl.audit.games import AuditNotes
from privfl.audit.games.membership import scored
from privfl.audit.rehearsal import divide
from privfl.audit.score import membership
from privfl.core import Dataset
from privfl.training import LocalSGD

BASE = {
    "data": {"name": "digits", "clients": 4, "partition": "iid"},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 4, "batch_size": 16},
    "rounds": 2,
    "executor": "stacked",
}


@pytest.mark.parametrize("clients", [1, 2, 3])
def test_membership_leaks_in_the_updates_of_few_clients(clients):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 60, 64, generator=rng), torch.randint(4, (4, 60), generator=rng)
    *parts, test = (Dataset(*part, classes=4) for part in zip(x, y, strict=True))
    torch.manual_seed(0)
    net = torch.nn.Linear(64, 4)
    federation = Federation(net, parts[:clients], test, rounds=2, training=LocalSGD(lr=0.1))
    cosine = Attacks(stream=(UpdateMembership(statistic="cosine"),))
    report = audit(federation, adversaries=("server",), attacks=cosine, lies=None)
    (line,) = [line for line in card(report) if line.asset == "membership"]
    assert line.verdict == "leaks", line


def test_few_members_that_are_surely_told_leak_although_the_area_is_chance():
    federation = Federation.from_config(BASE)
    ground = divide(federation.scenario, 0.5, 0)
    scores = torch.rand(len(ground.inside), generator=torch.Generator().manual_seed(0))
    some = ground.inside.nonzero().squeeze(1)
    scores[some[:: len(some) // 30]] += 1
    notes = AuditNotes([], {}, {})
    asked = Finding("l", "server", "membership", "Planted", "AUC")
    scored(notes, asked, Scores("Planted", "server", scores), ground, set(ground.members), 0)
    (finding,) = notes.findings
    assert finding.value.low < 0.5
    assert finding.verdict == "leaks"
    assert clears(finding, 20)


@pytest.mark.parametrize("clients", [1, 2, 6])
def test_luck_is_as_rare_as_it_says_where_scores_of_a_client_hang_together(clients):
    lucky = {"area or rate": 0, "rate": 0}
    runs = 400
    for seed in range(runs):
        rng = torch.Generator().manual_seed(seed)
        home = torch.arange(clients).repeat_interleave(150)
        members = torch.rand(clients, 150, generator=rng).argsort(dim=1).flatten() < 75
        shift, width = torch.randn(2, clients, generator=rng)[:, home]
        scores = torch.randn(len(home), generator=rng) * (1 + 3 * width.abs()) + 5 * shift
        told = membership(scores, members, clusters=home, draws=2)
        lucky["area or rate"] += told.luck < 0.05
        lucky["rate"] += told.at_hundredth.low > 0.01
    assert lucky["area or rate"] <= 0.05 * runs + 10
    assert lucky["rate"] <= 0.025 * runs + 8
    assert LUCK < 0.05
