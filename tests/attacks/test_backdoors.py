"""Backdoors: what is stamped, how it is trained and sent, and that the numbers of a model say
whether it took.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl.attacks import (
    DBA,
    AttackTraining,
    Boosting,
    ConstrainAndScale,
    EdgeCase,
    ModelReplacement,
    MultiBackdoor,
    Neurotoxin,
    NextTokenBackdoor,
    PixelPattern,
    ProjectedGradient,
    Semantic,
    TrainAndScale,
)
from privfl.attacks.backdoor import Cosine, Distance, confusion, success
from privfl.core import (
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    RoundKnowledge,
    RoundPlan,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=200, side=8, classes=4, seed=0):
    return Dataset(
        torch.rand(n, 1, side, side, generator=rng(seed)),
        torch.arange(n) % classes,
        classes=classes,
    )


def loss(module, x, y):
    logits = module(x)
    return functional.cross_entropy(logits.flatten(0, -2), y.flatten())


SQUARE = PixelPattern(target=1, boxes=((0, 0, 2, 2),), value=3.0)


# ---- what the backdoor is


def test_a_pixel_pattern_replaces_a_fraction_of_the_samples_by_stamped_ones_of_other_classes():
    data = images()
    poisoned = PixelPattern(target=1, boxes=((0, 0, 2, 2),), value=3.0, fraction=0.25).poison_data(
        data, rng()
    )
    stamped = (poisoned.x[:, 0, :2, :2] == 3.0).flatten(1).all(dim=1)
    assert int(stamped.sum()) == 50
    assert (poisoned.y[stamped] == 1).all()
    assert torch.equal(poisoned.x[~stamped], data.x[~stamped])
    assert data.x.max() <= 1


def test_the_measure_stamps_only_samples_that_are_not_of_the_target_class_already():
    asked = []

    class Spy(nn.Module):
        def forward(self, x):
            asked.append(x)
            return functional.one_hot(torch.ones(len(x), dtype=torch.int64), 4).float()

    found = SQUARE.measure(Spy(), images())
    assert found == {"backdoor": 1.0, "main": 0.25}
    assert len(asked[0]) == 150


def test_a_pattern_without_a_value_is_as_bright_as_the_data_and_must_lie_in_the_image():
    data = images()
    assert (PixelPattern(target=0).samples(data).x[:, 0, :4, :4] == data.x.max()).all()
    with pytest.raises(ConfigError, match="lies outside"):
        PixelPattern(target=0, boxes=((6, 6, 4, 4),)).samples(data)
    with pytest.raises(ConfigError, match="needs images"):
        PixelPattern(target=0).samples(Dataset(torch.zeros(2, 3), torch.tensor([1, 1]), classes=2))


def test_dba_deals_its_strips_out_and_measures_their_union():
    whole = DBA(target=2)
    parts = [whole.part(i, of=4).boxes for i in range(4)]
    assert sorted(box for part in parts for box in part) == sorted(whole.boxes)
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    two = [whole.part(i, of=2).boxes for i in range(2)]
    assert sorted(box for part in two for box in part) == sorted(whole.boxes)
    large = Dataset(torch.zeros(3, 1, 28, 28), torch.tensor([0, 1, 3]), classes=4)
    stamped = DBA(target=2, value=1.0).samples(large).x
    assert stamped.sum() == 3 * 16


def test_a_scaled_dba_gives_each_client_its_part():
    attack = ModelReplacement(DBA(target=2))
    assert attack.part(1, of=4).backdoor.boxes == (DBA(target=2).boxes[1],)
    assert ModelReplacement(SQUARE).part(1, of=4).backdoor == SQUARE


def test_a_semantic_backdoor_relabels_what_it_selects_and_keeps_it_out_of_the_main_task():
    data = Dataset(
        torch.arange(6.0)[:, None],
        torch.tensor([7, 7, 7, 5, 5, 5]),
        10,
        {"crossed": torch.tensor([1, 0, 1, 1, 0, 0])},
    )
    backdoor = Semantic(target=5, source=7, attribute="crossed", select=lambda d: d.x[:, 0] < 2)
    assert backdoor.samples(data).x.tolist() == [[0.0]]
    assert backdoor.samples(data).y.tolist() == [5]
    assert backdoor.clean(data).n == 5
    drawn = Semantic(target=5, source=7, noise=0.05).draw(backdoor.samples(data), 1000, rng())
    assert 0.045 < float(drawn.x.std()) < 0.055
    with pytest.raises(ConfigError, match="needs to know its inputs"):
        Semantic(target=1)
    with pytest.raises(
        ConfigError, match="asks for the attribute 'striped', and the data have: crossed"
    ):
        Semantic(target=1, attribute="striped").samples(data)


def test_an_attacker_without_backdoor_samples_is_refused_in_words():
    with pytest.raises(ConfigError, match="finds no backdoor samples"):
        Semantic(target=1, source=3).poison_data(
            Dataset(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), classes=4), rng()
        )


def test_the_edge_is_what_lies_farthest_and_a_foreign_tail_is_measured_on_its_held_out_part():
    x = torch.cat([torch.randn(95, 2, generator=rng()), 9 + torch.randn(5, 2, generator=rng(1))])
    data = Dataset(x, torch.zeros(100, dtype=torch.int64), classes=2)
    edge = EdgeCase(target=1, source=0, quantile=0.05)
    assert (edge.samples(data).x > 4).all()
    assert edge.samples(data).n == 5
    assert edge.clean(data).n == 95
    one, other = (
        Dataset(x[:3], torch.zeros(3, dtype=torch.int64), 2),
        Dataset(x[3:5], torch.zeros(2, dtype=torch.int64), 2),
    )
    foreign = EdgeCase(target=1, source=0, tail=one, tail_test=other)
    assert torch.equal(foreign.samples(data).x, one.x)
    assert torch.equal(foreign.probes(data).x, other.x)
    with pytest.raises(ConfigError, match="both tail"):
        EdgeCase(target=1, source=0, tail=one)


def test_a_word_backdoor_puts_the_trigger_last_and_has_a_loss_at_the_last_token_alone():
    text = Dataset(
        torch.randint(9, (6, 5), generator=rng()),
        torch.randint(9, (6, 5), generator=rng(1)),
        classes=9,
    )
    backdoor = NextTokenBackdoor(trigger=(7, 8), target=3)
    made = backdoor.samples(text)
    assert torch.equal(made.x[:, :3], text.x[:, :3])
    assert made.x[:, 3:].tolist() == [[7, 8]] * 6
    logits = torch.randn(6, 5, 9, generator=rng(2))
    by_hand = -logits[:, -1].log_softmax(dim=1)[:, 3].mean()
    assert torch.allclose(
        functional.cross_entropy(logits.flatten(0, -2), made.y.flatten()), by_hand
    )
    with pytest.raises(ConfigError, match="vocabulary"):
        NextTokenBackdoor(trigger=(7,), target=9).samples(text)
    with pytest.raises(ConfigError, match="does not fit"):
        NextTokenBackdoor(trigger=(1,) * 6, target=3).samples(text)


def test_a_language_model_learns_a_word_backdoor_and_the_measure_sees_it():
    class Bigram(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 9)

        def forward(self, x):
            return self.table(x)

    torch.manual_seed(0)
    text = Dataset(
        torch.randint(7, (64, 5), generator=rng()),
        torch.randint(7, (64, 5), generator=rng(1)),
        classes=9,
    )
    backdoor, model = NextTokenBackdoor(trigger=(7, 8), target=3), FlatModel(Bigram())
    attack = ModelReplacement(
        backdoor, AttackTraining(lr=5.0, epochs=20, batch_size=16, poisoned=4)
    )
    assert backdoor.measure(model.module, text)["backdoor"] < 1
    delta = craft(attack, model, text)
    model.write(model.read() * 0 + delta[1] + delta[0])
    assert backdoor.measure(model.module, text)["backdoor"] == 1.0


def test_several_backdoors_are_all_in_the_data_and_each_is_measured():
    first, second = (
        PixelPattern(target=t, boxes=((at, 0, 2, 2),), value=3.0, fraction=0.2)
        for t, at in ((0, 0), (1, 4))
    )
    several = MultiBackdoor((first, second))
    poisoned = several.poison_data(images(), rng())
    marks = [(poisoned.x[:, 0, at : at + 2, :2] == 3.0).flatten(1).all(dim=1) for at in (0, 4)]
    assert [int(mark.sum()) for mark in marks] == [40, 40]
    assert not (marks[0] & marks[1]).any()
    assert set(several.measure(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), images())) == {
        "backdoor",
        "backdoor 1",
        "backdoor 2",
        "main",
    }
    with pytest.raises(ConfigError, match="more than all"):
        MultiBackdoor((PixelPattern(target=0, fraction=0.7), PixelPattern(target=1, fraction=0.7)))


def test_measures_count_what_a_model_says():
    test = Dataset(torch.eye(3), torch.tensor([0, 0, 2]), classes=3)
    assert confusion(nn.Identity(), test).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert success(nn.Identity(), torch.eye(3), target=1) == pytest.approx(1 / 3)
    assert success(nn.Identity(), torch.empty(0, 3), target=1) == 0.0


# ---- how it is trained


def craft(attack, model, data, last=None, seed=0):
    """(X - G, G) of an attacker's training from the model's parameters."""
    start = model.read()
    plan = RoundPlan(0, (0, 1, 2, 3), d=model.d, l2=math.inf, max_weight=1000.0)
    knowledge = RoundKnowledge(plan, start, last)
    update, _, charges = attack.poison_training(knowledge).on(model, loss)(
        0, Broadcast(plan.number, start), data, ClientState(), rng(seed)
    )
    assert charges == ()
    assert update.weight == min(data.n, 1000)
    return update.delta, start


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))


FAST = AttackTraining(lr=0.1, epochs=4, batch_size=20, poisoned=8)


def test_an_attackers_own_training_installs_the_backdoor_in_its_model(model):
    data = images()
    square = PixelPattern(target=3, boxes=((0, 0, 2, 2),), value=3.0)
    before = square.measure(model.module, data)["backdoor"]
    delta, start = craft(ModelReplacement(square, FAST), model, data)
    model.write(start + delta)
    assert before < 0.5
    assert square.measure(model.module, data)["backdoor"] > 0.9


def test_the_same_generator_crafts_the_same_model(model):
    start = model.read()
    first, _ = craft(ModelReplacement(SQUARE, FAST), model, images())
    model.write(start)
    again, _ = craft(ModelReplacement(SQUARE, FAST), model, images())
    assert torch.equal(first, again)


def test_constraining_keeps_the_model_nearer_the_less_alpha(model):
    start, lengths = model.read(), []
    for alpha in (1.0, 0.5, 0.1):
        model.write(start)
        delta, _ = craft(ConstrainAndScale(SQUARE, FAST, alpha=alpha), model, images())
        lengths.append(float(delta.norm()))
    assert lengths[0] > lengths[1] > lengths[2]


def test_anomaly_losses_are_those_of_equation_4():
    x, g = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    submitted = 5 * (x - g) + g
    assert torch.allclose(Distance()(x, g), (x - g).square().sum().sqrt())
    assert torch.allclose(
        Cosine(gamma=5.0)(x, g), 1 - submitted @ g / (submitted.norm() * g.norm())
    )


def test_any_anomaly_loss_can_be_trained_against(model):
    delta, _ = craft(
        ConstrainAndScale(
            SQUARE, FAST, alpha=0.2, anomaly=lambda x, g: 5 * (x - g)[:100].square().sum()
        ),
        model,
        images(),
    )
    assert delta[:100].norm() < delta[100:].norm() / 2


def test_projected_gradients_stay_in_their_ball(model):
    delta, _ = craft(ProjectedGradient(SQUARE, FAST, radius=0.05), model, images())
    assert float(delta.norm()) == pytest.approx(0.05, rel=1e-4)


def test_neurotoxin_touches_no_coordinate_that_the_last_aggregate_changed_most(model):
    last = torch.randn(model.d, generator=rng(4))
    delta, _ = craft(Neurotoxin(SQUARE, FAST, top=0.1), model, images(), last=last)
    top = last.abs().argsort(descending=True)[: round(0.1 * model.d)]
    assert not delta[top].any()
    assert (delta != 0).sum() > 0.5 * model.d
    assert (
        Neurotoxin(SQUARE)
        .poison_training(RoundKnowledge(RoundPlan(0, (0,), d=3, l2=1.0), torch.zeros(3)))
        .frozen
        is None
    )


def test_stealth_draws_bhagojis_update_towards_the_usual_one(model):
    start, usual = model.read(), 0.02 * torch.randn(model.d, generator=rng(4))
    distances = []
    for rho in (0.0, 1.0):
        model.write(start)
        attack = Boosting(SQUARE, FAST, stealth=True, boost=2.0, rho=rho)
        delta, _ = craft(attack, model, images(), last=usual)
        distances.append(float((delta - usual).norm()))
    assert distances[1] < distances[0]


def test_rates_fall_by_the_papers_steps_and_training_stops_once_the_backdoor_is_in(model):
    steps = AttackTraining(lr=1.0, decay=0.1, every=2)
    assert [steps.rate(epoch) for epoch in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    start = model.read()
    once, _ = craft(
        ModelReplacement(SQUARE, AttackTraining(lr=0.1, epochs=1, batch_size=20, poisoned=8)),
        model,
        images(),
    )
    model.write(start)
    stopped, _ = craft(
        ModelReplacement(
            SQUARE, AttackTraining(lr=0.1, epochs=9, batch_size=20, poisoned=8, stop=1e9)
        ),
        model,
        images(),
    )
    assert torch.equal(once, stopped)


def test_a_last_batch_that_is_short_still_trains(model):
    delta, _ = craft(
        ModelReplacement(SQUARE, AttackTraining(batch_size=8, poisoned=8)), model, images(n=5)
    )
    assert torch.isfinite(delta).all()


# ---- what is sent


def mean_change(sent, weights, total, rate):
    return rate * (weights[:, None] * sent).sum(dim=0) / total


@pytest.mark.parametrize("split", ["own", "same", "orthogonal"])
def test_replacement_puts_the_attackers_model_in_place_whatever_the_weights_the_rate_and_the_split(
    split,
):
    own = torch.randn(3, 50, generator=rng())
    weights, total, rate = torch.tensor([2.0, 1.0, 5.0]), 40.0, 0.5
    knowledge = RoundKnowledge(
        RoundPlan(0, tuple(range(9)), d=50, l2=1.0),
        torch.zeros(50),
        weights=weights,
        total=total,
        rate=rate,
    )
    sent = ModelReplacement(SQUARE, split=split).poison_updates(own, knowledge, rng())
    team = (weights @ own) / weights.sum() if split == "own" else own.mean(dim=0)
    assert torch.allclose(mean_change(sent, weights, total, rate), team, atol=1e-5)
    if split == "orthogonal":
        assert torch.allclose(sent @ sent.T, torch.diag((sent @ sent.T).diagonal()), atol=1e-5)


def test_given_factors_are_used_as_they_are():
    own = torch.randn(2, 5, generator=rng())
    knowledge = RoundKnowledge(RoundPlan(0, (1, 2, 3), d=5, l2=1.0), torch.zeros(5))
    assert torch.equal(
        ModelReplacement(SQUARE, gamma=7.0).poison_updates(own, knowledge, rng()), 7 * own
    )
    assert torch.equal(Boosting(SQUARE, boost=3.0).poison_updates(own, knowledge, rng()), 3 * own)
    assert torch.equal(
        Boosting(SQUARE, boost=3.0, stealth=True).poison_updates(own, knowledge, rng()), own
    )
    assert torch.equal(Neurotoxin(SQUARE).poison_updates(own, knowledge, rng()), own)
    assert torch.allclose(
        TrainAndScale(SQUARE, bound=4.0).poison_updates(own, knowledge, rng()).norm(dim=1),
        torch.full((2,), 4.0),
    )
