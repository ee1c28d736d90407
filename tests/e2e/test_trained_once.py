"""Trainings that runs have in common: `benchmarks.robustness.once`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.robustness.once import (
    Memory,
    OnceConstrained,
    OnceReplacing,
    OnceScaling,
    OnceSGD,
)
from privfl import Federation, attacks
from privfl.core import (
    Broadcast,
    ClientState,
    Dataset,
    FlatModel,
    LocalPlan,
    Objective,
    cross_entropy,
)
from privfl.dp import DPGradient
from privfl.engine import Attacker
from privfl.training import LocalSGD

PLAN = LocalPlan(4, epochs=2)
SQUARE = attacks.PixelPattern(target=1, boxes=((0, 0, 2, 2),))
TAIL = attacks.EdgeCase(
    source=0,
    target=1,
    tail=Dataset(torch.full((3, 1, 4, 4), 2.0), torch.zeros(3, dtype=torch.int64), 3),
    tail_test=Dataset(torch.full((2, 1, 4, 4), 3.0), torch.zeros(2, dtype=torch.int64), 3),
)
HOW = attacks.AttackTraining(lr=0.1, epochs=2, batch_size=4, poisoned=2)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def sent(module, training, attack=None, seed=0, shift=0.0):
    """The rows [3, d] that reach the server in two rounds of three clients, of which the first
    attacks if anybody does.
    """
    rng = torch.Generator().manual_seed(7)
    clients = [
        Dataset(
            torch.rand(9, 1, 4, 4, generator=rng) + shift * (k == 2),
            torch.randint(3, (9,), generator=rng),
            3,
        )
        for k in range(3)
    ]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run = Federation(
        module,
        clients,
        clients[0],
        rounds=2,
        training=training,
        attackers=[] if attack is None else [Attacker("a", attack, frozenset({0}))],
        seed=seed,
        executor="sequential",
    ).run()
    module.load_state_dict(before)
    return torch.stack([run.view("server", number).rows.values for number in range(2)])


@pytest.mark.parametrize(
    ("plain", "once"),
    [
        (attacks.ModelReplacement(SQUARE, HOW), OnceReplacing(SQUARE, HOW)),
        (attacks.ModelReplacement(TAIL, HOW), OnceReplacing(TAIL, HOW)),
        (attacks.TrainAndScale(TAIL, HOW, bound=0.5), OnceScaling(TAIL, HOW, bound=0.5)),
        (
            attacks.ConstrainAndScale(TAIL, HOW, alpha=0.4),
            OnceConstrained(TAIL, HOW, alpha=0.4),
        ),
    ],
)
def test_what_is_remembered_is_what_is_trained_to_the_bit(plain, once):
    module = model()
    expected = sent(module, LocalSGD(0.1, PLAN), plain)
    training = OnceSGD(0.1, PLAN, memory=once.memory)
    assert torch.equal(sent(module, training, once), expected)
    trained = len(once.memory.kept)
    assert trained == 6  # three clients in two rounds
    assert torch.equal(sent(module, training, once), expected)
    assert len(once.memory.kept) == trained


def test_nothing_is_taken_for_something_else():
    memory = Memory()
    training, whole = OnceSGD(0.1, PLAN, memory=memory), OnceReplacing(TAIL, HOW, memory=memory)
    module = model()
    others = [
        (training, whole, 0, 0.0),
        (training, replace(whole, gamma=2.0), 0, 0.0),
        (training, replace(whole, backdoor=SQUARE), 0, 0.0),
        (training, replace(whole, backdoor=replace(TAIL, target=2)), 0, 0.0),
        (training, replace(whole, training=replace(HOW, lr=0.2)), 0, 0.0),
        (training, OnceScaling(TAIL, HOW, memory=memory), 0, 0.0),
        (training, OnceConstrained(TAIL, HOW, alpha=0.4, memory=memory), 0, 0.0),
        (training, OnceConstrained(TAIL, HOW, alpha=0.6, memory=memory), 0, 0.0),
        (replace(training, lr=0.2), whole, 0, 0.0),
        (replace(training, plan=LocalPlan(4)), whole, 0, 0.0),
        (replace(training, momentum=0.5), whole, 0, 0.0),
        (training, whole, 1, 0.0),
        (training, whole, 0, 1.0),
        (training, None, 0, 0.0),
    ]
    kinds = {
        OnceReplacing: attacks.ModelReplacement,
        OnceScaling: attacks.TrainAndScale,
        OnceConstrained: attacks.ConstrainAndScale,
    }
    for method, attack, seed, shift in others:
        fresh = LocalSGD(method.lr, method.plan, momentum=method.momentum)
        parts = {} if attack is None else dict(vars(attack))
        parts.pop("memory", None)
        plain = None if attack is None else kinds[type(attack)](**parts)
        remembered = sent(module, method, attack, seed, shift)
        assert torch.equal(remembered, sent(module, fresh, plain, seed, shift)), (
            method,
            attack,
            seed,
            shift,
        )


def squared(module, x, y):
    return module(x).square().mean()


class Pushed(Objective):
    """An objective of no settings."""

    def objective(self, loss, start):
        return squared


CHANGES = {
    "gradient": {"gradient": DPGradient(0.1, 0.0, 4)},
    "objective": {"objective": Pushed()},
    "weight_decay": {"weight_decay": 0.5},
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_setting_of_a_training_is_forgotten(change):
    memory, module = Memory(), model()
    sent(module, OnceSGD(0.1, PLAN, memory=memory))
    told = sent(module, OnceSGD(0.1, PLAN, memory=memory, **CHANGES[change]))
    assert not torch.equal(told, sent(module, LocalSGD(0.1, PLAN)))
    assert len(memory.kept) == 12


def work(module, loss=cross_entropy, memory=None):
    flat = FlatModel(module)
    at = OnceSGD(0.1, PLAN, memory=memory or Memory()).on(flat, loss)
    rng = torch.Generator().manual_seed(0)
    data = Dataset(torch.rand(8, 1, 4, 4, generator=rng), torch.arange(8) % 3, 3)
    start = torch.zeros_like(flat.flat)
    return lambda: at(0, Broadcast(0, start), data, ClientState(), rng.manual_seed(0))[0].delta


def test_another_model_of_as_many_weights_and_another_loss_are_trained_anew():
    memory, module = Memory(), model()
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Tanh())
    first = work(module, memory=memory)()
    for training in ((other,), (module, squared)):
        assert torch.equal(work(*training, memory=memory)(), work(*training)())
        assert not torch.equal(work(*training)(), first)


def test_an_update_that_somebody_overwrites_is_not_handed_out_so():
    train = work(model())
    first = train()
    kept = first.clone()
    first.zero_()
    assert torch.equal(train(), kept)


def test_what_keeps_something_from_round_to_round_is_refused():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="in no key"):
        work(module)()
