"""Triggers that attackers learn on the models that they are sent: what is learnt, what is kept, and
that it takes in whole rounds on real digits.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.attacks import A3FL, IBA, LIRA, AttackTraining
from privfl.attacks.backdoor import Patch
from privfl.attacks.backdoor.learned import MEMORY
from privfl.config import AuditConfig
from privfl.core import (
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    RoundKnowledge,
    RoundPlan,
)
from privfl.data import load
from privfl.engine import Attacker, Engine, measures
from privfl.models import initialised, mlp
from privfl.training import LocalSGD, Sequential

QUICK = AttackTraining(lr=0.2, epochs=4, batch_size=64, poisoned=16)
ATTACKS = {
    "a3fl": A3FL(target=2, size=3, top=0, left=0, training=QUICK, gamma=None, epochs=8, renew=4),
    "iba": IBA(target=2, training=QUICK, gamma=None, epsilon=0.2, epochs=8),
    "lira": LIRA(target=2, training=QUICK, gamma=None, epsilon=0.2, turns=3),
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def loss(module, x, y):
    return functional.cross_entropy(module(x), y)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def own(digits):
    return digits.train.take(range(0, digits.train.n, 5))


def trained(digits, seed, part):
    """A model of its own weights, trained on every other sample from ``part`` on."""
    data = digits.train.take(range(part, digits.train.n, 2))
    model = FlatModel(initialised(mlp, digits.shape, 10, seed=seed, hidden=(32,)))
    for _ in range(60):
        model.grad.zero_()
        loss(model.module, data.x, data.y).backward()
        model.flat.add_(model.grad, alpha=-0.5)
    return model


@pytest.fixture(scope="module")
def models(digits):
    return trained(digits, 0, 0), trained(digits, 1, 1)


def target_probability(model, trigger, data):
    with torch.no_grad():
        return float(model.module(trigger.samples(data).x).softmax(dim=1)[:, 2].mean())


def federation(digits, attack, rounds, who=(0,)):
    clients = [digits.train.take(range(i, digits.train.n, 5)) for i in range(5)]
    return Federation(
        initialised(mlp, digits.shape, 10, seed=0),
        clients,
        digits.test,
        rounds=rounds,
        training=LocalSGD(lr=0.2, plan=LocalPlan(16, epochs=2)),
        attackers=[Attacker("a", attack, frozenset(who))],
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=rounds - 1),
    )


# ---- what is learnt


def test_a_patch_that_was_learnt_on_one_model_fools_another_more_than_any_random_patch(
    digits, own, models
):
    attack = dataclasses.replace(ATTACKS["a3fl"], epochs=20)
    others = own.take((own.y != 2).nonzero().flatten())
    learnt = attack.learn(models[0], loss, others, attack.fresh(own), rng())
    low, high = own.span[0][0], own.span[1][0]
    assert float(learnt.min()) >= low - 1e-6
    assert float(learnt.max()) <= high + 1e-6
    unseen = models[1]
    ours = target_probability(unseen, attack.trigger(learnt, own), digits.test)
    for seed in range(5):
        pixels = low + (high - low) * torch.rand(1, 3, 3, generator=rng(seed))
        random = Patch(target=2, pixels=pixels)
        assert ours > target_probability(unseen, random, digits.test) + 0.02


def test_a_patch_moves_by_sign_steps_of_the_loss_that_weighs_in_the_model_that_unlearnt_it(
    own, models
):
    """One epoch of one batch beside a gradient by hand, with and without the second model."""
    others = own.take((own.y != 2).nonzero().flatten())
    low, high = own.span[0][0], own.span[1][0]
    whole = AttackTraining(batch_size=others.n, poisoned=1)
    for balance in (0.0, 1.0):
        attack = A3FL(
            target=2, size=2, top=1, left=1, epochs=2, renew=1, balance=balance, training=whole
        )
        learnt = attack.learn(models[0], loss, others, attack.fresh(own), rng())
        by_hand = np.full((2, 2), (low + high) / 2)
        other = None
        for epoch in range(2):
            if epoch and balance:
                patch = torch.tensor(by_hand, dtype=torch.float32).flatten()
                other = attack._unlearnt(models[0], loss, others, patch, rng())
            asked = [(models[0], 1.0)]
            if other is not None:
                a, b = (m.flat.double().numpy() for m in (other, models[0]))
                asked.append((other, a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            slope = np.zeros((2, 2))
            for model, weight in asked:
                x = others.x.clone()
                x[:, 0, 1:3, 1:3] = torch.tensor(by_hand, dtype=torch.float32)
                x.requires_grad_(True)
                logits = model.module(x)
                value = functional.cross_entropy(logits, torch.full((others.n,), 2))
                (grad,) = torch.autograd.grad(value, x)
                slope += weight * grad[:, 0, 1:3, 1:3].sum(dim=0).double().numpy()
            by_hand = np.clip(by_hand - 0.01 * (high - low) * np.sign(slope), low, high)
        np.testing.assert_allclose(learnt.view(2, 2).numpy(), by_hand, atol=1e-5)


def test_the_model_that_unlearns_a_patch_tells_stamped_images_better(own, models):
    attack = ATTACKS["a3fl"]
    others = own.take((own.y != 2).nonzero().flatten())
    patch = attack.learn(models[0], loss, others, attack.fresh(own), rng())
    stamped = attack.trigger(patch, others).samples(others)
    before = float(loss(models[0].module, stamped.x, others.y).detach())
    kept = models[0].read()
    after = attack._unlearnt(models[0], loss, others, patch, rng())
    assert float(loss(after.module, stamped.x, others.y).detach()) < before
    assert torch.equal(models[0].read(), kept)


@pytest.mark.parametrize("name", ["iba", "lira"])
def test_what_a_network_draws_is_faint_in_the_box_and_fools_better_once_it_has_learnt(
    name, digits, own, models
):
    attack = dataclasses.replace(
        ATTACKS[name], epsilon=0.3, rate=0.03, training=AttackTraining(batch_size=300)
    )
    others = own.take((own.y != 2).nonzero().flatten())
    begun = attack.fresh(own)
    learnt = begun
    for _ in range(10 if name == "lira" else 1):
        learnt = attack.learn(models[0], loss, others, learnt, rng())
    trigger = attack.trigger(learnt, own)
    shown = digits.test.take((digits.test.y != 2).nonzero().flatten())
    pixels, was = (digits.original(x) for x in (trigger.samples(digits.test).x, shown.x))
    assert float((pixels - was).abs().max()) <= 0.3 + 1e-5
    assert float(pixels.min()) >= -1e-5
    assert float(pixels.max()) <= 1 + 1e-5
    first = target_probability(models[0], attack.trigger(begun, own), digits.test)
    assert target_probability(models[0], trigger, digits.test) > first + 0.05


def test_iba_stops_learning_where_enough_is_fooled_and_spares_what_honest_clients_change(
    own, models
):
    easy = dataclasses.replace(ATTACKS["iba"], enough=0.0)
    begun = easy.fresh(own)
    assert torch.equal(easy.learn(models[0], loss, own, begun, rng()), begun)
    d = models[0].d
    last = torch.randn(d, generator=rng())
    plan = RoundPlan(1, (0, 1), d=d, l2=math.inf)
    frozen = easy.frozen(RoundKnowledge(plan, models[0].read(), last))
    assert int(frozen.sum()) == round(0.05 * d)
    assert last[frozen].abs().min() >= last[~frozen].abs().max()


def test_lira_takes_turns_and_then_trains_the_model_alone():
    stages = LIRA(target=2, turns=3, training=QUICK).stages()
    assert [anew for anew, _ in stages] == [True, True, True, False]
    assert [how.epochs for _, how in stages] == [1, 1, 1, QUICK.epochs]


# ---- in rounds


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_a_learnt_trigger_of_one_client_in_five_takes(name, digits):
    *_, after = federation(digits, ATTACKS[name], 3).run().history
    assert after.measures["a: backdoor"] > 0.5
    assert after.measures["a: main"] > 0.75


def test_a_client_remembers_its_trigger_and_learns_on_from_there(digits):
    fed = federation(digits, dataclasses.replace(ATTACKS["a3fl"], epochs=1), 2)
    engine = Engine(fed.scenario, Sequential(fed.scenario.workload))
    first = engine.play(engine.begin("sequential")).state
    assert [c for c, s in first.clients.items() if MEMORY in s.vectors] == [0]
    second = engine.play(first).state
    assert not torch.equal(first.clients[0].vectors[MEMORY], second.clients[0].vectors[MEMORY])
    step = 0.01 * (digits.train.span[1][0] - digits.train.span[0][0])
    apart = second.clients[0].vectors[MEMORY] - first.clients[0].vectors[MEMORY]
    assert float(apart.abs().max()) <= -(-len(fed.scenario.clients[0]) // 64) * step + 1e-5


def test_the_measure_is_the_mean_over_clients_each_with_its_own_trigger(digits, own):
    attack = ATTACKS["a3fl"]
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    states = {0: ClientState({MEMORY: attack.fresh(own)}), 1: ClientState({MEMORY: torch.ones(9)})}
    fed = federation(digits, attack, 2, who=(0, 1))
    found = measures(fed.scenario, states, module, digits.test)
    each = [attack.measure_of(own, state, module, digits.test) for state in states.values()]
    assert found["a: backdoor"] == pytest.approx(sum(one["backdoor"] for one in each) / 2)


def test_a_learner_needs_images_of_a_known_range_and_samples_of_another_class(digits, own):
    bare = Dataset(own.x, own.y, 10)
    with pytest.raises(ConfigError, match="set span"):
        A3FL(target=2).ready(bare)
    with pytest.raises(ConfigError, match="lies outside"):
        A3FL(target=2, size=9).ready(own)
    twos = own.take((own.y == 2).nonzero().flatten())
    knowledge = RoundKnowledge(RoundPlan(0, (0, 1), d=2410, l2=math.inf), torch.zeros(2410))
    model = FlatModel(initialised(mlp, digits.shape, 10, seed=0, hidden=(32,)))
    with pytest.raises(ConfigError, match="another class"):
        ATTACKS["a3fl"].poison_training(knowledge).on(model, loss)(
            0, Broadcast(0, model.read()), twos, ClientState(), rng()
        )
