"""An update that is not finite ends in a sentence that names it, and keeps no attack from the
updates beside it.
"""

from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import (
    DLG,
    ByRow,
    EmbeddingLeakage,
    GaussNewton,
    GradientInversion,
    GradInversion,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    NotFound,
    Reconstruction,
    TabLeak,
    UpdateMembership,
)
from privfl.config import AuditConfig
from privfl.core import Dataset
from privfl.models import initialised, mlp, transformer
from privfl.training import FedSGD

QUICK = GradientInversion(iterations=3)
ATTACKS = [
    LabelCounts(),
    QUICK,
    DLG(iterations=1),
    GaussNewton(),
    GradInversion(iterations=1),
    LinearLeakage(),
]


def samples(n, seed, shape=(1, 4, 4)):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.rand((n, *shape), generator=rng), torch.arange(n) % 3, 3)


def viewed(net, clients):
    made = Federation(
        net,
        clients,
        clients[0],
        rounds=1,
        training=FedSGD(lr=0.1),
        executor="sequential",
        audit=AuditConfig(keep="all"),
    )
    return made.run().view("server", 0)


@pytest.fixture(scope="module")
def view():
    net = initialised(mlp, (1, 4, 4), 3, seed=0, hidden=(6,))
    return viewed(net, [samples(1, seed) for seed in range(3)])


def spoilt(view, value=float("nan"), at=0):
    values = view.rows.values.clone()
    values[at, -1] = value
    return replace(view, opened={"delta": replace(view.rows, values=values)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: type(one).__name__)
def test_it_is_named_and_nothing_is_claimed_of_it(view, attack, value):
    told = attack.run(spoilt(view, value))
    assert isinstance(told, NotFound)
    assert "the update of client 0 in round 0 is not finite" in told.reason


def test_a_sum_with_it_is_named_too(view):
    told = replace(QUICK, target="sum").run(spoilt(view))
    assert "the update of the sum in round 0 is not finite" in told.reason


def test_a_model_that_diverged_is_named(view):
    told = LabelCounts().run(replace(view, before=view.before * float("nan")))
    assert "the model of client 0 in round 0 is not finite" in told.reason


def test_candidates_are_held_against_no_such_update(view):
    knows = Knowledge(auxiliary=samples(60, 9), candidates=samples(4, 8))
    told = UpdateMembership().run(spoilt(view, at=1), knows)
    assert "an update that it looks at in round 0 is not finite" in told.reason


def test_records_and_text_are_no_exception():
    table = viewed(
        initialised(mlp, (6,), 3, seed=0, hidden=(6,)), [samples(2, s, (6,)) for s in range(2)]
    )
    own = Knowledge(auxiliary=samples(40, 9, (6,)))
    assert "is not finite" in TabLeak(iterations=1, restarts=1).run(spoilt(table), own).reason
    words = torch.arange(14).view(2, 7) % 5
    text = Dataset(words[:, :-1], words[:, 1:], 5)
    read = viewed(initialised(transformer, (6,), 5, seed=0, width=8, heads=2), [text, text])
    assert "is not finite" in EmbeddingLeakage().run(spoilt(read)).reason


def test_the_rows_beside_it_are_attacked_all_the_same(view):
    """Also where the attack is tuned first, which it is on the first row that can be."""
    knows = Knowledge(auxiliary=samples(12, 9))
    for attack in (LabelCounts(), replace(QUICK, tune=True)):
        told = attack.run_rows(spoilt(view), knows)
        assert isinstance(told, ByRow)
        first, *others = (answer for _, answer in told.answers)
        assert isinstance(first, NotFound)
        assert not any(isinstance(answer, NotFound) for answer in others)
    whole = replace(QUICK, tune=True).run_rows(view, knows)
    assert isinstance(whole.answers[0][1], Reconstruction)
