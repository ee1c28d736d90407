"""Chameleon: its contrastive loss, which layers each stage touches, where features go, and that the
backdoor takes on real digits.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.attacks import AttackTraining, Chameleon, PixelPattern
from privfl.attacks.backdoor.chameleon import contrastive
from privfl.config import AuditConfig
from privfl.core import (
    Broadcast,
    ClientState,
    ConfigError,
    FlatModel,
    LocalPlan,
    RoundKnowledge,
    RoundPlan,
)
from privfl.data import load
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

SQUARE = PixelPattern(target=2, boxes=((0, 0, 2, 2),))
TRAINING = AttackTraining(lr=0.1, epochs=3, batch_size=32, poisoned=8)


def loss(module, x, y):
    return functional.cross_entropy(module(x), y)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def own(digits):
    return digits.train.take(range(0, digits.train.n, 5))


def at_work(attack, model):
    knowledge = RoundKnowledge(RoundPlan(0, (0, 1), d=model.d, l2=math.inf), model.read())
    return attack.poison_training(knowledge).on(model, loss)


def crafted(attack, model, own):
    start = model.read()
    rng = torch.Generator().manual_seed(0)
    update, _, _ = at_work(attack, model)(0, Broadcast(0, start), own, ClientState(), rng)
    return update.delta


def test_the_contrastive_loss_is_khosla_et_als_with_weights():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(9, 5)), np.array([0, 0, 0, 1, 1, 2, 1, 0, 3])
    weights = np.where(y == 1, 2.0, 1.0)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(9):
        others = [a for a in range(9) if a != i]
        below = sum(math.exp(unit[i] @ unit[a] / 0.07) for a in others)
        alike = [p for p in others if y[p] == y[i]]
        if alike:
            logs = [math.log(math.exp(unit[i] @ unit[p] / 0.07) / below) for p in alike]
            total -= weights[i] * sum(logs) / len(alike)
    found = contrastive(torch.tensor(z), torch.tensor(y), 0.07, torch.tensor(weights))
    assert float(found) == pytest.approx(total / 9, rel=1e-9)


def test_the_first_stage_leaves_the_last_layer_alone_and_draws_marked_samples_to_the_target(
    digits, own
):
    model = FlatModel(initialised(mlp, digits.shape, 10, seed=0, hidden=(32,)))
    attack = Chameleon(SQUARE, TRAINING, epochs=5)
    peers, start = at_work(attack, model), model.read()

    def likeness():
        with torch.no_grad():
            marked = functional.normalize(peers.features(SQUARE.samples(own).x), dim=1)
            target = functional.normalize(peers.features(own.x[own.y == 2]), dim=1)
        return float((marked @ target.T).mean())

    before = likeness()
    peers.encode(own, torch.Generator().manual_seed(0))
    assert likeness() > before + 0.1
    assert torch.equal(model.flat[peers.head], start[peers.head])
    assert not torch.equal(model.flat[~peers.head], start[~peers.head])
    assert int(peers.head.sum()) == 32 * 10 + 10


def test_without_a_first_stage_only_the_last_layer_moves_and_the_radius_bounds_the_model(
    digits, own
):
    model = FlatModel(initialised(mlp, digits.shape, 10, seed=0, hidden=(32,)))
    head = at_work(Chameleon(SQUARE, TRAINING), model).head
    delta = crafted(Chameleon(SQUARE, TRAINING, epochs=0), model, own)
    assert not delta[~head].any()
    assert delta[head].any()
    short = crafted(Chameleon(SQUARE, TRAINING, radius=0.5), model, own)
    assert float(short.norm()) == pytest.approx(0.5, rel=1e-4)


def test_a_model_without_a_hidden_layer_is_refused():
    model = FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(ConfigError, match="nothing under it"):
        at_work(Chameleon(SQUARE), model)


def test_chameleon_plants_its_backdoor_in_rounds(digits):
    clients = [digits.train.take(range(i, digits.train.n, 5)) for i in range(5)]
    attack = Chameleon(SQUARE, TRAINING, radius=None, gamma=None)
    before, *_, after = (
        Federation(
            initialised(mlp, digits.shape, 10, seed=0),
            clients,
            digits.test,
            rounds=6,
            training=LocalSGD(lr=0.2, plan=LocalPlan(16, epochs=2)),
            attackers=[Attacker("a", attack, frozenset({0}), AttackSchedule(first=3))],
            executor="sequential",
            audit=AuditConfig(keep=[]),
        )
        .run()
        .history
    )
    assert before.measures["a: backdoor"] < 0.2
    assert after.measures["a: backdoor"] > 0.8
    assert after.measures["a: main"] > 0.8
