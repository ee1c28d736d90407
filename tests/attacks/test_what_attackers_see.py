"""Attackers that train and poison see their own data and the model that they are sent: other data
of honest clients and another test set change nothing of what they send.
"""

import dataclasses

import pytest
import torch

from privfl import Federation
from privfl.attacks import (
    A3FL,
    IBA,
    LIRA,
    AttackTraining,
    Blended,
    BullseyePolytope,
    Chameleon,
    CheapMetaPoison,
    ClientGAN,
    ConvexPolytope,
    FeatureCollision,
    LabelConsistent,
    PixelPattern,
    SampleSpecific,
)
from privfl.config import AuditConfig
from privfl.core import LocalPlan
from privfl.data import load
from privfl.engine import Attacker, Engine
from privfl.models import initialised, mlp
from privfl.training import LocalSGD, Sequential

QUICK = AttackTraining(lr=0.1, epochs=1, batch_size=64, poisoned=8)
CLEAN = {"source": 3, "base": 8, "steps": 3, "surrogates": 1}
ATTACKS = (
    Blended(target=2),
    SampleSpecific(target=2),
    A3FL(target=2, size=3, epochs=3, renew=1, training=QUICK),
    IBA(target=2, epochs=2, training=QUICK),
    LIRA(target=2, turns=1, training=QUICK),
    Chameleon(PixelPattern(target=2), QUICK, epochs=1),
    FeatureCollision(**CLEAN),
    ConvexPolytope(**CLEAN),
    BullseyePolytope(**CLEAN),
    CheapMetaPoison(**CLEAN),
    LabelConsistent(target=2, steps=2),
    ClientGAN(wanted=2, labelled=0, steps=2),
)


def sent(digits, clients, test, attack):
    """What client 0 sends in the first round."""
    fed = Federation(
        initialised(mlp, digits.shape, 10, seed=0, hidden=(16,)),
        clients,
        test,
        rounds=1,
        training=LocalSGD(lr=0.2, plan=LocalPlan(16)),
        attackers=[Attacker("a", attack, frozenset({0}))] if attack else [],
        executor="sequential",
        audit=AuditConfig(keep=[]),
    )
    engine = Engine(fed.scenario, Sequential(fed.scenario.workload))
    return engine.play(engine.begin("sequential"), keep=True).transcript.updates[0].delta


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_an_attacker_sends_the_same_whatever_the_honest_hold_and_the_test_set_is(attack):
    digits = load("digits")
    clients = [digits.train.take(range(i, digits.train.n, 4)) for i in range(4)]
    strange = [
        dataclasses.replace(client, x=-client.x.flip(0), y=9 - client.y) for client in clients[1:]
    ]
    test = dataclasses.replace(digits.test, x=torch.zeros_like(digits.test.x))
    real = sent(digits, clients, digits.test, attack)
    assert torch.equal(real, sent(digits, [clients[0], *strange], test, attack))
    assert not torch.equal(real, sent(digits, clients, digits.test, None))
