"""Adversarial training: where samples are moved to, what it costs in accuracy, and that one sample
still moves a private step by no more than its clip.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.core import (
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    UnsupportedModel,
    cross_entropy,
)
from privfl.data import load
from privfl.dp import DPGradient
from privfl.federation.robustness import PGD_20
from privfl.training import (
    FGSM,
    PGD,
    Ball,
    Climb,
    FreeAdversarial,
    LocalSGD,
    Stacked,
    Workload,
    at_radius,
    robust_accuracy,
    searched_accuracy,
)
from privfl.training.adversarial import ascent

SEATS = [FGSM(eps=0.2), PGD(eps=0.2, steps=5), FreeAdversarial(eps=0.2, replays=3)]


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def samples(n=10, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.rand(n, 6, generator=rng), torch.arange(n) % 3, classes=3)


def trained(method, data, module=None):
    model = FlatModel(module or net())
    rng = torch.Generator().manual_seed(1)
    before = model.read().clone()
    trainer = method.on(model, cross_entropy)
    update, _, noisy = trainer(0, Broadcast(0, before), data, ClientState(), rng)
    return update.delta, noisy


@pytest.mark.parametrize("seat", SEATS, ids=lambda seat: type(seat).__name__)
def test_every_step_is_taken_within_the_ball_and_the_range(seat):
    data = samples()
    seat = type(seat)(**{**{"eps": seat.eps}, "low": 0.1, "high": 0.9})
    seen = []

    def loss(module, x, y):
        seen.append(x.detach().clone())
        return functional.cross_entropy(module(x), y)

    model = FlatModel(net())
    for inner in seat.begin()(model.module, loss, data.x, data.y):
        functional.cross_entropy(model.module(inner), data.y).backward()
        seen.append(inner.detach().clone())
    for x in seen:
        assert float((x - data.x).abs().max()) <= 0.2 + 1e-6
        assert bool((x >= data.x.clamp(max=0.1)).all())
        assert bool((x <= data.x.clamp(min=0.9)).all())


def test_more_steps_find_a_larger_loss_and_the_ascent_is_that_of_an_obvious_loop():
    module, data = net(), samples()
    ball, rng = Ball(0.2), torch.Generator()
    moved = ascent(module, cross_entropy, data.x, data.y, ball, 3, 0.1, rng.manual_seed(3))
    slow = ball.start(data.x, rng.manual_seed(3))
    for _ in range(3):
        for i in range(data.n):  # each sample alone
            one = slow[i : i + 1].clone().requires_grad_()
            functional.cross_entropy(module(one), data.y[i : i + 1]).backward()
            step = one.detach() + 0.1 * one.grad.sign()
            slow[i] = step.clamp(data.x[i : i + 1] - 0.2, data.x[i : i + 1] + 0.2)[0]
    assert torch.allclose(moved, slow, atol=1e-6)
    losses = [
        cross_entropy(module, x, data.y).item()
        for x in (data.x, ascent(module, cross_entropy, data.x, data.y, ball, 1, 0.05), moved)
    ]
    assert losses[0] < losses[1] < losses[2]


def test_the_model_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
    module.train()
    before = [p.clone() for p in module.parameters()]
    ascent(module, cross_entropy, samples().x, samples().y, Ball(0.1), 2, 0.1)
    assert module.training
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    assert all(p.grad is None for p in module.parameters())


# ---- DP-SGD

CLIP, BATCH = 0.1, 10


def private(seat, **more):
    gradient = DPGradient(l2=CLIP, noise_multiplier=0.0, batch_size=BATCH, **more)
    return LocalSGD(lr=1.0, plan=LocalPlan(BATCH, steps=1), gradient=gradient, adversarial=seat)


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
@pytest.mark.parametrize("seat", SEATS[:2], ids=lambda seat: type(seat).__name__)
def test_one_sample_moves_a_private_step_by_no_more_than_twice_its_clip(seat, engine):
    """Every sample is in the batch. Its neighbour is the worst of many, wild ones among them."""
    data = samples(BATCH)
    delta, noisy = trained(private(seat, engine=engine), data)
    assert len(noisy) == 1
    assert noisy[0].count == 1
    for seed in (0, 5):
        x, y = data.x.clone(), data.y.clone()
        x[4] = samples(1, seed=50 + seed).x[0] * 10.0**seed
        y[4] = seed % 3
        moved, _ = trained(private(seat, engine=engine), Dataset(x, y, 3))
        assert 0 < float((moved - delta).norm()) <= 2 * CLIP / BATCH * (1 + 1e-5)


@pytest.mark.parametrize("seat", SEATS[:2], ids=lambda seat: type(seat).__name__)
def test_what_one_sample_is_moves_no_other_sample_by_a_bit(seat):
    data = samples(BATCH)

    def moved(x, y):
        torch.manual_seed(5)
        return next(seat.begin()(net(), cross_entropy, x, y))

    first = moved(data.x, data.y)
    others = torch.arange(BATCH) != 4
    for bad in (1e3, float("nan"), float("inf")):
        x = data.x.clone()
        x[4] = bad
        assert torch.equal(moved(x, data.y)[others], first[others]), bad
    y = data.y.clone()
    y[4] = 99  # makes the loss raise, of the whole batch
    assert torch.equal(moved(data.x, y)[others], first[others])
    assert torch.equal(moved(data.x, y)[4], data.x[4])


def test_a_sample_that_makes_the_loss_raise_ends_no_private_training():
    data = samples(BATCH)
    y = data.y.clone()
    y[4] = 99
    with pytest.warns(UserWarning, match="1 of 10 samples"):
        moved, _ = trained(private(PGD(eps=0.2)), Dataset(data.x, y, 3))
    without, _ = trained(private(PGD(eps=0.2)), data)
    assert 0 < float((moved - without).norm()) <= CLIP / BATCH * (1 + 1e-5)


def test_the_free_form_lets_one_sample_move_others_and_a_private_gradient_refuses_it():
    module, seat = net(), FreeAdversarial(eps=0.2, replays=2)

    def second_batch(first_x):
        start, data = seat.begin(), samples(4, seed=2)
        for x in (first_x, data.x):
            for inner in start(module, cross_entropy, x, data.y):
                functional.cross_entropy(module(inner), data.y).backward()
        return inner.detach()

    one, other = samples(4).x, samples(4).x.clone()
    other[0] = 1 - other[0]
    assert not torch.equal(second_batch(one), second_batch(other))  # a batch that has not changed
    with pytest.raises(ConfigError, match="clipping bounds no sample's share"):
        private(seat)


def test_the_free_form_steps_on_each_batch_as_often_as_it_says_with_one_backward_pass_each():
    calls = []

    def loss(module, x, y):
        calls.append(len(x))
        return functional.cross_entropy(module(x), y)

    method = LocalSGD(
        lr=0.1, plan=LocalPlan(4, epochs=1), adversarial=FreeAdversarial(0.1, replays=3)
    )
    model = FlatModel(net())
    method.on(model, loss)(
        0, Broadcast(0, model.read()), samples(10), ClientState(), torch.Generator()
    )
    assert calls == [4, 4, 4, 4, 4, 4, 2, 2, 2]


def test_tokens_are_refused():
    module = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    data = Dataset(torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), 3)
    with pytest.raises(ConfigError, match="moves features"):
        trained(LocalSGD(adversarial=PGD(0.1)), data, module)


def test_it_is_not_trained_stacked_in_silence():
    work = Workload(FlatModel(net()), cross_entropy, LocalSGD(adversarial=PGD(0.1)), samples())
    with pytest.raises(UnsupportedModel, match="adversarial"):
        Stacked(work)


@pytest.mark.parametrize(
    "wrong", [{"eps": 0.0}, {"eps": 0.1, "low": 1.0, "high": 0.0}, {"eps": 0.1, "steps": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        PGD(**wrong)


# ---- runs

EPS, LOW, HIGH = 0.3, -0.8118, 1.8472  # of grey values with mean 0 and deviation 1


@pytest.fixture(scope="module")
def runs():
    digits = load("digits")
    parts = [digits.train.take(range(i, digits.train.n, 4)) for i in range(4)]
    made = {}
    for name, seat in {
        "undefended": None,
        "pgd": PGD(EPS, steps=5, low=LOW, high=HIGH),
    }.items():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        method = LocalSGD(lr=0.2, plan=LocalPlan(32, epochs=1), adversarial=seat)
        made[name] = Federation(
            module, parts, digits.test, rounds=6, training=method, executor="sequential"
        ).run()
    return made, digits.test


def test_a_run_reports_clean_accuracy_and_that_under_pgd_20(runs):
    made, test = runs
    last = made["pgd"].history[-1]
    robust = last.measures[PGD_20]
    rng = torch.Generator().manual_seed(0)
    again = robust_accuracy(made["pgd"].model, test, Climb(Ball(EPS, LOW, HIGH)), rng)
    assert abs(robust - again) < 0.03
    assert robust < last.accuracy
    assert PGD_20 not in made["undefended"].history[-1].measures


def test_adversarial_training_withstands_what_an_undefended_model_does_not(runs):
    made, test = runs
    attack = Climb(Ball(EPS, LOW, HIGH), restarts=2)  # stronger than the training's
    found = {
        name: robust_accuracy(one.model, test, attack, torch.Generator().manual_seed(1))
        for name, one in made.items()
    }
    assert found["pgd"] > found["undefended"] + 0.05


def test_its_gradients_are_not_masked(runs):
    """Attackers that see less do no better, and a large ball is always enough."""
    made, test = runs
    model, some = made["pgd"].model, test.take(range(200))
    attack = Climb(Ball(EPS, LOW, HIGH), restarts=3)

    def rng():
        return torch.Generator().manual_seed(2)

    white = robust_accuracy(model, some, attack, rng())
    assert white <= robust_accuracy(model, some, attack, rng(), source=made["undefended"].model)
    assert white <= searched_accuracy(model, some, attack.ball, 150, rng())
    radii = [robust_accuracy(model, some, at_radius(attack, e), rng()) for e in (0.1, 0.3, 2.0)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] < 0.05


def test_a_model_that_is_too_sure_for_its_cross_entropy_to_have_a_slope_is_still_attacked():
    """Its logits times a thousand: every answer stays, and the loss underflows to 0."""
    module, data = net(), samples(40)
    for _ in range(200):
        cross_entropy(module, data.x, data.y).backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= 0.5 * p.grad
                p.grad = None
    sure = nn.Sequential(module, nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        sure[1].weight.copy_(1e4 * torch.eye(3))
    attack = Climb(Ball(0.3))
    found = [
        robust_accuracy(one, data, attack, torch.Generator().manual_seed(0))
        for one in (module, sure)
    ]
    clean = robust_accuracy(sure, data, Climb(Ball(1e-9)), torch.Generator())
    assert found[1] <= found[0] + 0.05 < clean
