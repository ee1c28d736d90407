"""Attacks that only look: they recover what is there, score chance where nothing is, and say so
where a view hides what they need.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.attacks import (
    DLG,
    Forward,
    GaussNewton,
    GradientInversion,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    NotApplicable,
    PropertyInference,
    ShadowMembership,
    UpdateMembership,
)
from privfl.attacks.inversion.simulate import Simulator
from privfl.audit import Shadows
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Rows
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.training import FedSGD, LocalSGD, cross_entropy


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def wide(inputs=64, hidden=320):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def smooth(size):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12 * (size // 2) ** 2, 10),
    )
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return net


def play(module, clients, test, *, lr=0.1, training=None, rounds=1, **options):
    training = training or FedSGD(lr=lr)
    options = {"executor": "sequential", "audit": AuditConfig(keep="all"), **options}
    return Federation(module, clients, test, rounds=rounds, training=training, **options).run()


def recipe(module, *, lr=0.1, **more):
    mean, std = 0.3053, 0.3761
    return Forward(
        module,
        cross_entropy,
        (1, 8, 8),
        10,
        lr=lr,
        low=(-mean / std,),
        high=((1 - mean) / std,),
        **more,
    )


def farthest(found, true):
    """The greatest error of any true sample's nearest reconstruction."""
    return float(torch.cdist(true.flatten(1), found.flatten(1)).min(dim=1).values.max())


def psnr(found, true):
    return float(-10 * torch.log10(((found - true) * 0.3761).square().mean()))


def test_the_closed_form_takes_eight_samples_exactly_out_of_the_sum_that_secure_aggregation_opens(
    digits,
):
    clients = [digits.train.take(range(2 * i, 2 * i + 2)) for i in range(4)]
    net = wide()
    run = play(
        net, clients, digits.test, bound=Clip(l2=0.3), channel=SecAgg(fidelity="ideal", bits=24)
    )
    result = LinearLeakage(target="sum").run(run.view("server", 0), Knowledge(forward=recipe(net)))
    true = torch.cat([client.x for client in clients])
    assert farthest(result.samples, true) < 0.05
    assert result.labels.tolist() == sorted(torch.cat([client.y for client in clients]).tolist())


def test_a_batch_of_sixteen_comes_out_exactly_and_a_little_noise_is_no_defence(digits):
    client, net = digits.train.take(range(100, 116)), wide(hidden=512)
    view = play(net, [client], digits.test).view("server", 0)
    rows = view.rows
    noise = torch.randn(rows.values.shape, generator=torch.Generator().manual_seed(0))
    noisy = rows.values + 1e-5 * rows.values.norm() / rows.d**0.5 * noise
    knows = Knowledge(forward=recipe(net))
    assert farthest(LinearLeakage().run(view, knows).samples, client.x) < 0.02
    blurred = replace(view, opened={"delta": Rows(noisy, rows.weights, rows.ids)})
    assert farthest(LinearLeakage().run(blurred, knows).samples, client.x) < 0.1


def test_noise_that_hides_the_zeros_leaves_the_closed_form_sure_of_nothing(digits):
    client, net = digits.train.take(range(100, 108)), wide(hidden=320)
    view = play(net, [client], digits.test).view("server", 0)
    rows = view.rows
    noise = torch.randn(rows.values.shape, generator=torch.Generator().manual_seed(0))
    noisy = rows.values + 0.1 * rows.values.norm() / rows.d**0.5 * noise
    blurred = replace(view, opened={"delta": Rows(noisy, rows.weights, rows.ids)})
    result = LinearLeakage(starts=32, tries=4).run(blurred, Knowledge(forward=recipe(net)))
    assert result.notes["surely sparse"] == "0 of 8"


def test_several_local_steps_are_no_defence_against_the_closed_form(digits):
    client = digits.train.take(range(6))
    net = wide()
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=6, epochs=3))
    run = play(net, [client], digits.test, training=training)
    result = LinearLeakage().run(
        run.view("server", 0), Knowledge(forward=recipe(net, batch_size=6, epochs=3))
    )
    assert farthest(result.samples, client.x) < 0.02


def test_gauss_newton_inverts_a_smooth_net_to_the_last_digit(digits):
    client = digits.train.take([0])
    net = smooth(8)
    run = play(net, [client], digits.test)
    result = GaussNewton().run(run.view("server", 0), Knowledge(forward=recipe(net)))
    assert psnr(result.samples, client.x) > 90
    assert result.labels.tolist() == client.y.tolist()


def test_dlg_finds_a_sample_and_its_label_together(digits):
    client = digits.train.take([3])
    net = smooth(8)
    result = DLG(iterations=120, restarts=2).run(
        play(net, [client], digits.test).view("server", 0), Knowledge(forward=recipe(net))
    )
    assert psnr(result.samples, client.x) > 30
    assert result.labels.tolist() == client.y.tolist()


def test_an_adaptive_attack_sees_through_a_clip_and_through_local_steps(digits):
    client = digits.train.take([5])
    net = smooth(8)
    clipped = play(net, [client], digits.test, bound=Clip(l2=0.01)).view("server", 0)
    knows = Knowledge(forward=recipe(net, l2=0.01))
    adaptive, naive = (
        psnr(GaussNewton(adaptive=a, restarts=1).run(clipped, knows).samples, client.x)
        for a in (True, False)
    )
    assert adaptive > naive + 20
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=8, epochs=3))
    stepped = play(net, [client], digits.test, training=training).view("server", 0)
    knows = Knowledge(forward=recipe(net, batch_size=8, epochs=3))
    adaptive, naive = (
        psnr(GaussNewton(adaptive=a, restarts=1).run(stepped, knows).samples, client.x)
        for a in (True, False)
    )
    assert adaptive > naive + 15


def test_label_counts_of_a_large_batch_are_exact_on_an_untrained_model(digits):
    client = digits.train.take(range(300))
    net = wide()
    view = play(net, [client], digits.test).view("server", 0)
    result = LabelCounts().run(view, Knowledge(forward=recipe(net), auxiliary=digits.test))
    assert (result.counts - torch.bincount(client.y, minlength=10)).abs().sum() <= 6


@pytest.fixture(scope="module")
def stream(digits):
    """Six clients of 20 samples each, and what is known of them."""
    clients = [digits.train.take(range(20 * i, 20 * i + 20)) for i in range(6)]
    pool = digits.train.take(range(240))  # the first 120 are members
    held = digits.train.take(range(400, 1000))
    net = wide(hidden=96)
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=10))
    knows = Knowledge(forward=recipe(net, batch_size=10), candidates=pool, auxiliary=held)
    start = {name: value.clone() for name, value in net.state_dict().items()}

    def views(adversary="server", data=clients, **options):
        net.load_state_dict(start)
        run = play(net, data, digits.test, training=training, rounds=4, **options)
        return [run.view(adversary, round) for round in range(4)]

    return views, knows, clients


def auc(scores, members):
    inside, outside = scores[members], scores[~members]
    return float((inside[:, None] > outside).float().mean())


def test_the_stream_of_updates_tells_members_and_whose_they_are(stream):
    views, knows, _ = stream
    result = UpdateMembership().run(views(), knows)
    best = result.scores.max(dim=0).values
    members = torch.arange(240) < 120
    assert auc(best, members) > 0.85
    source = result.scores[:, :120].argmax(dim=0)
    assert (source == torch.arange(120) // 20).float().mean() > 0.8


def test_scores_against_random_membership_are_chance(stream):
    views, knows, _ = stream
    result = UpdateMembership().run(views(), knows)
    coins = torch.rand(240, generator=torch.Generator().manual_seed(0)) < 0.5
    assert (
        abs(auc(result.scores.max(dim=0).values, coins) - 0.5) < 0.1
    )  # three standard errors of an AUC of 120 against 120


def test_a_secagg_server_learns_the_same_from_any_clients_with_the_same_sum(stream):
    views, knows, clients = stream
    options = {"bound": Clip(l2=5.0), "channel": SecAgg(fidelity="ideal")}
    swapped = [clients[1], clients[0], *clients[2:]]
    one = UpdateMembership(target="sum").run(views(**options)[:1], knows)
    other = UpdateMembership(target="sum").run(views(data=swapped, **options)[:1], knows)
    assert functional.cosine_similarity(one.scores, other.scores, dim=0) > 0.999
    assert auc(one.scores, torch.arange(240) < 120) > 0.5


def test_what_a_view_hides_is_not_applicable_with_a_reason_and_never_a_failure(stream):
    views, knows, _ = stream
    hidden = views(bound=Clip(l2=5.0), channel=SecAgg(fidelity="ideal"))
    for attack in (
        GradientInversion(),
        DLG(),
        GaussNewton(),
        LinearLeakage(),
        LabelCounts(),
        UpdateMembership(),
    ):
        result = attack.run(hidden, knows)
        assert isinstance(result, NotApplicable)
        assert "cannot read single updates" in result.reason
    client = views("client(2)")
    assert isinstance(UpdateMembership().run(client, knows), NotApplicable)
    assert not isinstance(LossThreshold().run(client, knows), NotApplicable)


def test_any_client_reads_the_sum_off_two_models_in_a_row_whatever_the_channel_hides(stream):
    views, knows, _ = stream
    server = UpdateMembership(target="sum").run(
        views(bound=Clip(l2=5.0), channel=SecAgg(fidelity="ideal")), knows
    )
    client = UpdateMembership(target="sum").run(views("client(2)"), knows)
    assert functional.cosine_similarity(server.scores, client.scores, dim=0) > 0.99


def test_the_recipe_is_a_public_fact_of_a_run_so_knowledge_is_optional(digits):
    client = digits.train.take([7])
    result = LinearLeakage().run(play(wide(), [client], digits.test).view("server", 0))
    assert farthest(result.samples, client.x) < 0.01
    assert "LinearLeakage by server: 1 samples" in str(result)


def test_missing_knowledge_is_said_in_words_before_the_work_starts(stream):
    views, knows, _ = stream
    seen = views()
    assert (
        "auxiliary"
        in UpdateMembership()
        .run(seen, Knowledge(forward=knows.forward, candidates=knows.candidates))
        .reason
    )
    assert "candidates" in LossThreshold().run(seen, Knowledge(forward=knows.forward)).reason
    assert "recipe" in GradientInversion().run(replace(seen[0], facts={}), Knowledge()).reason
    assert "no views" in LossThreshold().run([], knows).reason


def test_an_attack_on_a_dataset_of_tokens_or_an_odd_model_says_what_it_needs(digits):
    client = Dataset(digits.train.x[:4], digits.train.y[:4], 10)
    net = smooth(8)
    result = LinearLeakage().run(
        play(net, [client], digits.test).view("server", 0), Knowledge(forward=recipe(net))
    )
    assert isinstance(result, NotApplicable)
    assert "linear first layer" in result.reason


@pytest.mark.parametrize("statistic", ["lira_online", "lira_offline", "rmia", "rmia_offline"])
def test_shadow_models_tell_members_of_an_overfitted_model_better_than_the_loss_does(
    digits, statistic
):
    coins = torch.Generator().manual_seed(3)
    data = digits.train.take(range(800))
    noisy = torch.where(
        torch.rand(800, generator=coins) < 0.3, torch.randint(10, (800,), generator=coins), data.y
    )
    data = Dataset(data.x, noisy, 10)
    net = wide(hidden=64)
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=25))
    shadows = Shadows(net, training)
    view = play(net, [data.take(range(300))], digits.test, training=training).view("server", 0)
    knows = Knowledge(
        candidates=data.take(range(600)), auxiliary=data.take(range(600, 800)), trainer=shadows
    )
    members = torch.arange(600) < 300
    found = ShadowMembership(statistic, epochs=25).run(view, knows)
    assert auc(found.scores, members) > auc(LossThreshold().run(view, knows).scores, members) + 0.03


def test_shadow_attacks_without_computing_power_or_an_attribute_say_so(stream):
    views, knows, _ = stream
    assert "trainer" in ShadowMembership().run(views(), knows).reason
    assert "attribute" in PropertyInference().run(views(), knows).reason


@pytest.mark.parametrize("offline", [False, True])
def test_rmia_by_sorting_is_the_papers_count_of_pairs(offline):
    from privfl.attacks.membership.shadows import OFFLINE_A, _rmia, halves

    rng = torch.Generator().manual_seed(4)
    n, z, K = 30, 40, 8
    margins, target = (
        3 * torch.randn(K, n + z, generator=rng),
        3 * torch.randn(n + z, generator=rng),
    )
    inside = torch.cat([halves(K, n, rng), torch.zeros(K, z, dtype=torch.bool)], dim=1)
    means = []
    for j in range(n + z):
        p = [
            float(torch.sigmoid(margins[k, j])) for k in range(K) if not (offline and inside[k, j])
        ]
        mean = sum(p) / len(p)
        means.append(((1 + OFFLINE_A) * mean + 1 - OFFLINE_A) / 2 if offline else mean)
    ratio = [float(torch.sigmoid(target[j])) / means[j] for j in range(n + z)]
    counted = torch.tensor(
        [sum(ratio[j] >= ratio[i] for i in range(n, n + z)) / z for j in range(n)]
    )
    assert torch.allclose(_rmia(target, margins, inside, n, offline=offline), counted, atol=1e-5)


@pytest.mark.parametrize("l2", [float("inf"), 0.05])
@pytest.mark.parametrize("more", [{}, {"momentum": 0.9, "nesterov": True}, {"prox": 0.1}])
def test_clients_simulated_at_once_move_the_model_as_one_by_one(l2, more):
    """Values and slopes with respect to the samples, through two steps, a clip and the mean."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    before = nn.utils.parameters_to_vector(net.parameters()).detach()
    forward = Forward(net, cross_entropy, (6,), 3, lr=0.3, batch_size=1, l2=l2, **more)
    x, y = torch.randn(6, 6, requires_grad=True), torch.arange(6) % 3
    three, alone = (Simulator(forward, before, clients=n) for n in (3, 1))
    together = three.update(x, y)
    each = [alone.update(x[at : at + 2], y[at : at + 2]) for at in (0, 2, 4)]
    apart = torch.stack(each).mean(dim=0)
    assert torch.allclose(together, apart, atol=1e-7)
    slopes = [torch.autograd.grad(one.square().sum(), x)[0] for one in (together, apart)]
    assert float(slopes[1].norm()) > 0
    assert torch.allclose(*slopes, atol=1e-6)
