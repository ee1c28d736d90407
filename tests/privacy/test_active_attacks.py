"""Adversaries who do more than look: planted layers, silenced clients, pushed models, a participant
with a task of its own.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import (
    EmbeddingLeakage,
    Fishing,
    Forward,
    GradientAscent,
    GradInversion,
    Imprint,
    Knowledge,
    LossThreshold,
    MultiTask,
    NotApplicable,
    SourceInference,
    SubjectMembership,
    UpdateMembership,
    WhiteBoxMembership,
    imprinted,
)
from privfl.audit.score import membership, pictures
from privfl.config import AuditConfig
from privfl.core import BUFFERS, Dataset, FlatModel, LocalPlan, RoundPlan, Rows, View
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.engine import Attacker
from privfl.models import initialised, lstm, mlp
from privfl.training import FedSGD, LocalSGD, cross_entropy

LOW, HIGH = -0.3053 / 0.3761, (1 - 0.3053) / 0.3761
SUMMED = {"bound": Clip(l2=1.0), "channel": SecAgg(fidelity="ideal", bits=24)}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def play(module, clients, test, training, rounds=1, **options):
    options = {"executor": "sequential", "audit": AuditConfig(keep="all"), **options}
    return Federation(module, clients, test, rounds=rounds, training=training, **options).run()


def recipe(module, training, shape=(1, 8, 8)):
    plan = training.plan
    return Forward(
        module,
        cross_entropy,
        shape,
        10,
        lr=training.lr,
        low=(LOW,),
        high=(HIGH,),
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        steps=plan.steps,
    )


def everybody(attack, n):
    return [Attacker("attack", attack, frozenset(range(n)))]


def auc(scores, truth):
    return membership(scores, truth).auc.value


def test_samples_of_many_clients_fall_out_of_a_secure_sum_bin_by_bin(digits):
    clients = [digits.train.take(range(4 * i, 4 * i + 4)) for i in range(5)]
    net = initialised(
        lambda shape, classes: imprinted(mlp(shape, classes, hidden=(16,)), shape, 400),
        (1, 8, 8),
        10,
        seed=0,
    )
    attack = Imprint(inputs=64, bins=400, outputs=64).fitted(digits.test)
    run = play(net, clients, digits.test, FedSGD(lr=0.1), attackers=everybody(attack, 5), **SUMMED)
    found = pictures(
        attack.run(run.view("server", 0)).samples,
        torch.cat([client.x for client in clients]),
        peak=HIGH - LOW,
    )
    assert (found.psnr > 40).float().mean() >= 0.7


def test_without_the_planted_layer_far_fewer_samples_fall_out(digits):
    clients = [digits.train.take(range(4 * i, 4 * i + 4)) for i in range(5)]
    net = initialised(
        lambda shape, classes: imprinted(mlp(shape, classes, hidden=(16,)), shape, 400),
        (1, 8, 8),
        10,
        seed=0,
    )
    run = play(net, clients, digits.test, FedSGD(lr=0.1))
    result = Imprint(inputs=64, bins=400, outputs=64).fitted(digits.test).run(run.view("server", 0))
    found = pictures(result.samples, torch.cat([client.x for client in clients]), peak=HIGH - LOW)
    assert (found.psnr > 40).float().mean() < 0.4  # those that move one neuron alone


def test_one_sample_of_one_client_is_fished_out_and_out_of_a_secure_sum_it_is_not(digits):
    """The bait is another model than the others are sent, so its client is in no sum with them."""
    clients = [digits.train.take(range(12 * i, 12 * i + 12)) for i in range(4)]
    wanted = int((torch.bincount(clients[2].y, minlength=10) == 1).nonzero()[0])
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(32,))
    attack = Fishing(features=32, classes=10, wanted=wanted, victim=2)
    run = play(net, clients, digits.test, FedSGD(lr=0.1), attackers=everybody(attack, 4))
    result = attack.run(run.view("server", 0))
    true = clients[2].x[clients[2].y == wanted]
    assert float(pictures(result.samples, true, peak=HIGH - LOW).psnr) > 50
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(32,))
    run = play(net, clients, digits.test, FedSGD(lr=0.1), attackers=everybody(attack, 4), **SUMMED)
    assert "no sample of class" in attack.run(run.view("server", 0)).reason


def test_the_bait_takes_a_single_sample_through_a_convolution_too(digits):
    def build(shape, classes):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(512, classes)
        )

    client = digits.train.take(range(10))
    wanted = int((torch.bincount(client.y, minlength=10) == 1).nonzero()[0])
    attack = Fishing(features=512, classes=10, wanted=wanted, iterations=300)
    run = play(
        initialised(build, (1, 8, 8), 10, seed=0),
        [client],
        digits.test,
        FedSGD(lr=0.1),
        attackers=everybody(attack, 1),
    )
    result = attack.run(run.view("server", 0))
    assert float(pictures(result.samples, client.x[client.y == wanted], peak=HIGH - LOW).psnr) > 18


@pytest.fixture(scope="module")
def text():
    coins = torch.Generator().manual_seed(0)
    words = [torch.randint(40 * i, 40 * i + 60, (6, 9), generator=coins) for i in range(4)]
    return [Dataset(w[:, :-1], w[:, 1:], classes=200) for w in words]


def test_the_words_of_a_client_are_the_rows_of_the_embedding_that_moved(text):
    net = initialised(lstm, (8,), 200, seed=0, hidden=16)
    training = LocalSGD(lr=0.5, plan=LocalPlan(batch_size=3, epochs=2))
    view = play(net, text, text[0], training).view("server", 0)
    result = EmbeddingLeakage(client=2).run(view)
    assert set(result.tokens.tolist()) == set(text[2].x.flatten().tolist())
    hidden = play(
        initialised(lstm, (8,), 200, seed=0, hidden=16), text, text[0], training, **SUMMED
    ).view("server", 0)
    assert isinstance(EmbeddingLeakage().run(hidden), NotApplicable)
    spoken = set(torch.cat([client.x for client in text]).flatten().tolist())
    assert set(EmbeddingLeakage(target="sum").run(hidden).tokens.tolist()) == spoken


def test_noise_that_drowns_the_rows_hides_the_words(text):
    net = initialised(lstm, (8,), 200, seed=0, hidden=16)
    run = play(net, text, text[0], LocalSGD(lr=0.5, plan=LocalPlan(batch_size=3)))
    view = run.view("server", 0)
    rows = view.rows
    noisy = Rows(
        rows.values + torch.randn(rows.values.shape, generator=torch.Generator().manual_seed(0)),
        rows.weights,
        rows.ids,
    )
    knows = Knowledge(forward=replace(view.facts["forward"], local_noise=1.0))
    assert len(EmbeddingLeakage().run(replace(view, opened={"delta": noisy}), knows).tokens) < 5


def test_several_seeds_that_agree_recover_a_sample_and_its_label(digits):
    client = digits.train.take([4])

    def build(shape, classes):
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(768, classes)
        )

    view = play(
        initialised(build, (1, 8, 8), 10, seed=1), [client], digits.test, FedSGD(lr=0.1)
    ).view("server", 0)
    result = GradInversion(iterations=300, seeds=2).run(view)
    assert result.labels.tolist() == client.y.tolist()
    assert float(pictures(result.samples, client.x, peak=HIGH - LOW).psnr) > 20


def test_what_batch_normalisation_remembers_pulls_the_guess_towards_it(digits):
    """A view built by hand, of statistics that are broadcast and whose change nobody reads."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )
    client = digits.train.take([6])
    net.train()
    for _ in range(60):
        net(client.x.expand(2, -1, -1, -1))
    net.eval()
    leaves = list(net.parameters())
    gradient = torch.cat(
        [g.flatten() for g in torch.autograd.grad(cross_entropy(net, client.x, client.y), leaves)]
    )
    start = torch.cat([p.detach().flatten() for p in leaves])
    rows = Rows(-0.1 * gradient[None], torch.ones(1), (0,))
    plan, held = RoundPlan(0, (0,), len(start), float("inf")), {BUFFERS: FlatModel(net).state}
    view = View("server", plan, start, start, {"delta": rows}, extra=held)
    knows = Knowledge(forward=recipe(net, FedSGD(lr=0.1)))
    strong, none = (
        GradInversion(iterations=60, seeds=1, statistics=s).run(view, knows) for s in (1.0, 0.0)
    )
    assert strong.notes["layers with statistics"] == 1

    def apart(x):
        seen = net[0](x).transpose(0, 1).flatten(1)
        return float((seen.mean(dim=1) - net[1].running_mean).detach().norm())

    assert apart(strong.samples) < apart(none.samples)


@pytest.fixture(scope="module")
def overfitted(digits):
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=10))
    clients = [digits.train.take(range(50 * i, 50 * i + 50)) for i in range(4)]
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(64,))
    forward = recipe(net, training)
    start = {name: value.clone() for name, value in net.state_dict().items()}

    def views(attack=None, rounds=10):
        net.load_state_dict(start)
        attackers = [Attacker("attack", attack, frozenset([0]))] if attack is not None else []
        run = play(net, clients, digits.test, training, rounds, attackers=attackers)
        return [run.view("server", number) for number in range(rounds)]

    return views, forward, digits.train.take([*range(50), *range(300, 350)]), torch.arange(100) < 50


def test_a_classifier_on_what_rounds_show_beats_the_loss_and_random_truth_is_chance(
    overfitted, digits
):
    views, forward, pool, truth = overfitted
    seen = views()
    knows = Knowledge(
        forward=forward,
        candidates=pool,
        members=digits.train.take(range(0, 50, 2)),
        auxiliary=digits.train.take(range(500, 900)),
    )
    asked = torch.ones(100, dtype=torch.bool)
    asked[0:50:2] = False  # those it learnt from
    scores = WhiteBoxMembership(client=0).run(seen, knows).scores
    assert (
        auc(scores[asked], truth[asked])
        > auc(LossThreshold().run(seen, knows).scores, truth) + 0.05
    )
    coins = torch.rand(100, generator=torch.Generator().manual_seed(1)) < 0.5
    assert abs(auc(scores, coins) - 0.5) < 0.18  # three standard errors
    assert "members" in WhiteBoxMembership().run(seen, replace(knows, members=None)).reason


def test_pushing_the_loss_of_targets_up_shows_who_pulls_it_down_again(overfitted):
    views, forward, pool, truth = overfitted
    passive, active = (GradientAscent(pool, forward, client=0, active=a) for a in (False, True))
    assert auc(active.run(views(active)).scores, truth) > auc(
        passive.run(views(passive)).scores, truth
    )


def test_the_local_model_with_the_least_loss_names_the_client(overfitted, digits):
    views, forward, _, _ = overfitted
    result = SourceInference().run(
        views(rounds=2), Knowledge(forward=forward, candidates=digits.train.take(range(200)))
    )
    named = (result.scores.argmax(dim=0) == torch.arange(200) // 50).float().mean()
    assert named > 0.4  # chance is .25


def test_a_subject_is_found_by_samples_that_were_never_trained_on(digits):
    """Twenty people, each with a hand of its own (a pattern of pixels); ten of them take part."""
    hands = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    who = torch.arange(1400) % 20
    data = Dataset(
        digits.train.x[:1400] + 0.7 * hands[who], digits.train.y[:1400], 10, {"writer": who}
    )
    of = [(who == person).nonzero().squeeze(1) for person in range(20)]
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=20, epochs=2))
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(64,))
    run = play(
        net, [data.take(of[person][:20]) for person in range(10)], digits.test, training, rounds=4
    )
    fresh, other = (
        torch.cat([index[20:45] for index in of]),
        torch.cat([index[45:] for index in of]),
    )
    knows = Knowledge(
        forward=recipe(net, training), candidates=data.take(fresh), auxiliary=data.take(other)
    )
    views = [run.view("server", r) for r in range(4)]
    assert auc(SubjectMembership().run(views, knows).scores, torch.arange(20) < 10) > 0.8
    summed = SubjectMembership(base=UpdateMembership(target="sum"))
    assert auc(summed.run(views, knows).scores, torch.arange(20) < 10) > 0.5
    assert (
        "no attribute"
        in SubjectMembership(subject="hospital").run([run.view("server", 0)], knows).reason
    )


def test_a_participant_with_a_task_of_its_own_keeps_its_head_at_home_and_needs_the_fact(digits):
    marked = torch.arange(60) % 2
    mine = Dataset(digits.train.x[:60], digits.train.y[:60], 10, {"mirrored": marked})
    other = Dataset(digits.train.x[60:120], digits.train.y[60:120], 10, {"mirrored": marked})
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(16,))
    attackers = [Attacker("mt", MultiTask("mirrored"), frozenset([1]))]
    run = play(net, [other, mine], digits.test, LocalSGD(lr=0.1), rounds=2, attackers=attackers)
    assert not run.history[1].incidents
    assert run.state.clients[1].vectors["property head"].shape == (17,)
    attackers = [Attacker("mt", MultiTask("hospital"), frozenset([1]))]
    run = play(
        initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(16,)),
        [other, mine],
        digits.test,
        LocalSGD(lr=0.1),
        attackers=attackers,
    )
    assert any("hospital" in what for what in run.history[0].incidents)
