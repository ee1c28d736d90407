"""Clean-label poisons: labels stay, samples stay in their box, features go where the papers say,
and the victim is misread in a whole run, less so the more clients are averaged.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from privfl import Federation
from privfl.attacks import (
    BullseyePolytope,
    CheapMetaPoison,
    ConvexPolytope,
    FeatureCollision,
    LabelConsistent,
)
from privfl.attacks.poisoning import surrogate
from privfl.attacks.poisoning.collisions import on_simplex
from privfl.attacks.poisoning.surrogate import Surrogate
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, LocalPlan
from privfl.data import load
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

KINDS = (FeatureCollision, ConvexPolytope, BullseyePolytope, CheapMetaPoison)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def own(digits):
    return digits.train.take(range(0, digits.train.n, 4))


@pytest.fixture(scope="module")
def crafting(own):
    """The victim, the rest, the positions of five bases, and two networks trained on the rest."""
    victim, rest = BullseyePolytope(source=3, base=8).split(own)
    chosen = (rest.y == 8).nonzero().flatten()[:5]
    return victim.x, rest, chosen, [surrogate.fit(rest, 32, rng(i)) for i in range(2)]


def played(digits, attack, clients, rounds=6):
    data = [digits.train.take(range(i, digits.train.n, clients)) for i in range(clients)]
    return (
        Federation(
            initialised(mlp, digits.shape, 10, seed=0, hidden=(64,)),
            data,
            digits.test,
            rounds=rounds,
            training=LocalSGD(lr=0.2, plan=LocalPlan(16, epochs=2)),
            attackers=[Attacker("a", attack, frozenset({0}))],
            executor="sequential",
            audit=AuditConfig(keep=[], evaluate_every=rounds),
        )
        .run()
        .history[-1]
        .measures
    )


# ---- what every one of them keeps


@pytest.mark.parametrize("kind", KINDS)
def test_labels_stay_poisons_stay_in_their_box_and_the_victim_is_kept_out(kind, own):
    attack = kind(source=3, base=8, epsilon=0.2, poisoned=0.5, steps=5, surrogates=1)
    victim, rest = attack.split(own)
    made = attack.poison_data(own, rng())
    assert victim.y.tolist() == [3]
    assert made.n == own.n - 1
    assert not (made.x == victim.x).flatten(1).all(dim=1).any()
    assert torch.equal(made.y, rest.y)
    moved = (made.x - rest.x).abs().flatten(1).amax(dim=1)
    width = own.span[1][0] - own.span[0][0]
    assert float(moved.max()) <= 0.2 * width + 1e-5
    assert (made.y[moved > 0] == 8).all()
    count = int((moved > 0).sum())  # a polytope leaves poisons out that its mixture does not need
    assert 0 < count <= round(0.5 * int((rest.y == 8).sum()))
    assert kind is ConvexPolytope or count == round(0.5 * int((rest.y == 8).sum()))
    assert float(made.x.min()) >= own.span[0][0] - 1e-5
    assert float(made.x.max()) <= own.span[1][0] + 1e-5


def test_a_client_without_the_classes_and_one_class_for_both_are_refused(own):
    with pytest.raises(ConfigError, match="both 3"):
        FeatureCollision(source=3, base=3)
    few = own.take((own.y != 3).nonzero().flatten())
    with pytest.raises(ConfigError, match="give it another client"):
        FeatureCollision(source=3, base=8).poison_data(few, rng())


# ---- feature collision


def test_a_collision_step_is_the_papers_forward_backward_step_in_numpy(crafting):
    victim, rest, chosen, nets = crafting
    attack = FeatureCollision(
        source=3, base=8, epsilon=1.0, steps=3, width=32, beta=0.5, rate=0.02, watermark=0.3
    )
    made = attack.craft(victim, rest, chosen, nets[:1], torch.Generator())
    found = made.flatten(1).double().numpy()
    w, b = (one.double().numpy() for one in nets[0].weights[:2])
    t, bases = victim.flatten().double().numpy(), rest.x[chosen].flatten(1).double().numpy()
    marked = 0.7 * bases + 0.3 * t
    low, high = rest.span[0][0], rest.span[1][0]
    x, beta = marked.copy(), 0.5 * (32 / 64) ** 2
    aim = np.maximum(t @ w + b, 0)
    for _ in range(3):
        before = x @ w + b
        slope = (2 * (np.maximum(before, 0) - aim) * (before > 0)) @ w.T
        x = (x - 0.02 * slope + 0.02 * beta * marked) / (1 + 0.02 * beta)
        x = np.clip(x, low, high)
    np.testing.assert_allclose(found, x, atol=1e-4)


def test_poisons_collide_with_the_victim_in_features_and_beta_holds_them_at_their_base(
    crafting,
):
    victim, rest, chosen, nets = crafting
    attack = FeatureCollision(source=3, base=8, epsilon=1.0, steps=200, width=32, rate=0.01)
    made, net = attack.craft(victim, rest, chosen, nets[:1], torch.Generator()), nets[0]
    aim = net.features(victim)
    was = (net.features(rest.x[chosen]) - aim).norm(dim=1)
    assert ((net.features(made) - aim).norm(dim=1) < 0.3 * was).all()
    strong = dataclasses.replace(attack, beta=20.0)
    strict = strong.craft(victim, rest, chosen, nets[:1], torch.Generator())
    held, free = ((x - rest.x[chosen]).flatten(1).norm(dim=1) for x in (strict, made))
    assert (held < 0.8 * free).all()


# ---- polytopes


def miss(net, victim, poisons, share=None):
    """How far a mixture of the poisons' features lies from the victim's, by the latter's length."""
    aim, found = net.features(victim)[0], net.features(poisons)
    mixed = found.mean(dim=0) if share is None else share @ found
    return float((mixed - aim).norm() / aim.norm())


def test_bullseye_puts_the_victim_in_the_middle_of_the_poisons_and_the_polytope_only_inside(
    crafting,
):
    victim, rest, chosen, nets = crafting
    common = {"source": 3, "base": 8, "epsilon": 0.6, "steps": 150, "step": 0.03}
    middle = BullseyePolytope(**common).craft(victim, rest, chosen, nets, torch.Generator())
    convex = ConvexPolytope(**common)
    inside = convex.craft(victim, rest, chosen, nets, torch.Generator())
    for net in nets:
        begun = miss(net, victim, rest.x[chosen])
        assert miss(net, victim, middle) < 0.3 * begun
        share = torch.full((5,), 0.2)
        for _ in range(20):
            share = convex.coefficients(net.features(inside), net.features(victim)[0], share)
        assert miss(net, victim, inside, share) < 0.3 * begun
        assert miss(net, victim, middle) < miss(net, victim, inside)


def test_the_coefficients_are_the_best_on_the_simplex(crafting):
    found = torch.randn(2, 6, generator=rng())
    aim = 0.3 * found[0] + 0.7 * found[1] + 0.1 * torch.randn(6, generator=rng(1))
    share = torch.tensor([0.5, 0.5])
    for _ in range(50):
        share = ConvexPolytope(source=1, base=0).coefficients(found, aim, share)
    grid = torch.linspace(0, 1, 10001)
    tried = (aim - torch.stack([grid, 1 - grid], dim=1) @ found).norm(dim=1)
    assert float(share[0]) == pytest.approx(float(grid[tried.argmin()]), abs=1e-3)
    for seed in range(5):
        point = 3 * torch.randn(4, generator=rng(seed))
        onto = on_simplex(point)
        assert float(onto.sum()) == pytest.approx(1, abs=1e-6)
        others = torch.rand(2000, 4, generator=rng(9)).pow(3)
        others /= others.sum(dim=1, keepdim=True)
        assert float((onto - point).norm()) <= float((others - point).norm(dim=1).min()) + 1e-6


# ---- differentiating through training


def test_the_gradient_through_two_steps_of_training_is_that_of_finite_differences(crafting):
    victim, rest, chosen, nets = crafting
    net = Surrogate(tuple(w.double() for w in nets[0].weights))
    clean = Dataset(rest.x[:20].double(), rest.y[:20], 10)
    attack, poison = CheapMetaPoison(source=3, base=8), rest.x[chosen].double()
    poison.requires_grad_(True)
    value = attack.after_training(net, poison, clean, victim.double())
    (slope,) = torch.autograd.grad(value, poison)
    for at in ((0, 0, 2, 3), (3, 0, 5, 4), (4, 0, 3, 2)):
        ends = []
        for sign in (1, -1):
            tried = poison.detach().clone()
            tried[at] += sign * 1e-5
            ends.append(float(attack.after_training(net, tried, clean, victim.double()).detach()))
        assert float(slope[at]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_a_network_that_is_trained_on_metapoisons_likes_the_victim_more_in_the_base_class(own):
    attack = CheapMetaPoison(source=3, base=8, epsilon=0.3, poisoned=1.0, steps=15)
    victim, rest = attack.split(own)
    made = attack.poison_data(own, rng())
    each = [
        float(surrogate.fit(data, 64, rng(7)).logits(victim.x).softmax(dim=1)[0, 8].detach())
        for data in (rest, made)
    ]
    assert each[1] > each[0]


# ---- a mark on samples that are hard to tell


def test_label_consistent_data_are_hard_to_tell_in_their_box_stamped_and_rightly_labelled(own):
    attack = LabelConsistent(target=2, poisoned=0.5, boxes=((0, 0, 2, 2),), epsilon=0.1)
    made = attack.poison_data(own, rng())
    assert torch.equal(made.y, own.y)
    changed = (made.x != own.x).flatten(1).any(dim=1)
    assert (own.y[changed] == 2).all()
    assert int(changed.sum()) == round(0.5 * int((own.y == 2).sum()))
    assert (made.x[changed][:, :, :2, :2] == own.x.max()).all()
    inner = (made.x - own.x)[changed].clone()
    inner[:, :, :2, :2] = 0
    width = own.span[1][0] - own.span[0][0]
    assert float(inner.abs().max()) <= 0.1 * width + 1e-5
    net = surrogate.fit(own, 64, rng())
    chosen = (own.y == 2).nonzero().flatten()
    hard = attack.perturb(net, own, chosen)

    def wrong(x):
        return float(functional.cross_entropy(net.logits(x), own.y[chosen]).detach())

    assert wrong(hard) > 5 * wrong(own.x[chosen])


# ---- in rounds


@pytest.mark.parametrize("kind", [FeatureCollision, BullseyePolytope])
def test_one_learner_misreads_the_victim_and_averaging_with_another_client_dilutes_it(kind, digits):
    attack = kind(source=8, base=1, victim=1, epsilon=0.4, poisoned=1.0, steps=50, surrogates=1)
    alone, averaged = played(digits, attack, 1), played(digits, attack, 3)
    assert alone["a: victim"] == 1.0
    assert averaged["a: probability"] < alone["a: probability"] - 0.4


def test_without_room_to_move_the_victim_is_told_rightly(digits):
    idle = BullseyePolytope(source=8, base=1, victim=1, epsilon=0.0, steps=1, surrogates=1)
    assert played(digits, idle, 1)["a: probability"] < 0.05


def test_a_label_consistent_backdoor_takes_in_rounds(digits):
    attack = LabelConsistent(target=2, boxes=((0, 0, 2, 2),), epsilon=0.2)
    assert played(digits, attack, 1)["a: backdoor"] > 0.5
