"""Local SGD against plain loops over torch.optim.SGD, and its relatives against their papers'
formulas.
"""

import copy

import pytest
import torch
from torch.nn import functional

from privfl.core import (
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    LocalTraining,
    Seeds,
)
from privfl.models import MODELS, build
from privfl.training import (
    FedNova,
    FedProx,
    FedSGD,
    LocalSGD,
    PlainGradient,
    Scaffold,
    Sequential,
    cross_entropy,
    evaluate,
)


def plain_loop(module, data, positions, plan, rng, *, lr, mu=0.0, correction=None, **settings):
    """What anybody would write: shuffle, slice, backward, optimizer.step."""
    module = copy.deepcopy(module)
    start = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, **settings)
    n, steps = len(positions), 0
    draws = plan.epochs if plan.steps is None else plan.steps
    for _ in range(draws):
        order = torch.randperm(n, generator=rng)
        if plan.steps is not None:
            order = order[: plan.batch_size]
        for low in range(0, len(order), plan.batch_size):
            chosen = positions[order[low : low + plan.batch_size]]
            optimizer.zero_grad()
            functional.cross_entropy(module(data.x[chosen]), data.y[chosen]).backward()
            offset = 0
            for p, p0 in zip(module.parameters(), start, strict=True):
                p.grad += mu * (p.detach() - p0)
                if correction is not None:
                    p.grad += correction[offset : offset + p.numel()].view_as(p)
                offset += p.numel()
            optimizer.step()
            steps += 1
    moved = [(p.detach() - p0).flatten() for p, p0 in zip(module.parameters(), start, strict=True)]
    return torch.cat(moved), steps


SETTINGS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.01},
    {"momentum": 0.5, "weight_decay": 0.01, "nesterov": True},
]


@pytest.mark.parametrize(
    "plan", [LocalPlan(32, epochs=2), LocalPlan(10, steps=7), LocalPlan(500, epochs=3)], ids=str
)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_local_sgd_is_torchs_sgd(workload, cohort, sent, plan, settings):
    load, (task,) = workload(LocalSGD(lr=0.1, plan=plan, **settings)), cohort([101])
    broadcast, out = sent(load, [task]), torch.empty(1, load.model.d)
    expected, _ = plain_loop(
        load.model.module,
        load.data,
        task.index,
        plan,
        Seeds(5).generator("training", 0, 0),
        lr=0.1,
        **settings,
    )
    (done,) = Sequential(load).train(broadcast, [task], out, Seeds(5))
    assert torch.allclose(out[0], expected, rtol=0, atol=1e-6)
    assert done.weight == 101


def test_it_is_a_local_training_of_core_and_writes_what_fit_writes(workload, cohort, sent):
    load, (task,) = workload(LocalSGD(lr=0.1)), cohort([50])
    trainer, broadcast = load.method.on(load.model, load.loss), sent(load, [task])
    assert isinstance(trainer, LocalTraining)
    update, state, noisy = trainer(
        0,
        broadcast,
        load.data.take(task.index),
        ClientState(),
        Seeds(5).generator("training", 0, 0),
    )
    out = torch.empty(1, load.model.d)
    Sequential(load).train(broadcast, [task], out, Seeds(5))
    assert torch.equal(update.delta, out[0])
    assert (update.client, update.weight, dict(state.vectors), noisy) == (0, 50.0, {}, ())


def test_the_prox_term_pulls_to_the_broadcast_model(workload, cohort, sent):
    plan = LocalPlan(20, epochs=2)
    load, (task,) = workload(FedProx(lr=0.1, prox=0.7, plan=plan)), cohort([90])
    expected, _ = plain_loop(
        load.model.module,
        load.data,
        task.index,
        plan,
        Seeds(5).generator("training", 0, 0),
        lr=0.1,
        mu=0.7,
    )
    out = torch.empty(1, load.model.d)
    Sequential(load).train(sent(load, [task]), [task], out, Seeds(5))
    assert torch.allclose(out[0], expected, rtol=0, atol=1e-6)


def test_fedsgd_sends_minus_lr_times_the_full_gradient(workload, cohort, sent):
    load, (task,) = workload(FedSGD(lr=0.3)), cohort([120])
    out = torch.empty(1, load.model.d)
    broadcast = sent(load, [task])
    (done,) = Sequential(load).train(broadcast, [task], out, Seeds(0))
    load.model.write(broadcast.parameters)
    loss = functional.cross_entropy(
        load.model.module(load.data.x[task.index]), load.data.y[task.index]
    )
    gradient = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(load.model.module.parameters()))]
    )
    assert torch.allclose(out[0], -0.3 * gradient, atol=1e-6)
    assert done.loss == pytest.approx(loss.item(), abs=1e-5)


def test_the_rate_decays_by_round(workload, cohort, sent):
    tasks = cohort([40])
    fast, slow = (
        workload(LocalSGD(lr=lr, plan=LocalPlan(40), decay=decay))
        for lr, decay in ((0.4, 0.5), (0.1, 1.0))
    )
    moves = []
    for load in (fast, slow):
        out = torch.empty(1, load.model.d)
        Sequential(load).train(sent(load, tasks, number=2), tasks, out, Seeds(0))
        moves.append(out)
    assert torch.equal(*moves)


def test_weights_are_sample_counts_or_one(workload, cohort, sent):
    for weighting, expected in (("samples", [30.0, 12.0]), ("uniform", [1.0, 1.0])):
        load, tasks = workload(LocalSGD(weighting=weighting)), cohort([30, 12])
        results = Sequential(load).train(
            sent(load, tasks), tasks, torch.empty(2, load.model.d), Seeds(0)
        )
        assert [r.weight for r in results] == expected


def test_epochs_see_every_sample_once_and_steps_draw_without_replacement():
    rng = torch.Generator().manual_seed(0)
    epoch = list(PlainGradient().batches(25, LocalPlan(10, epochs=2), rng))
    assert [len(b) for b in epoch] == [10, 10, 5, 10, 10, 5]
    assert sorted(torch.cat(epoch[:3]).tolist()) == list(range(25))
    steps = list(PlainGradient().batches(25, LocalPlan(10, steps=30), rng))
    assert all(len(set(b.tolist())) == 10 for b in steps)
    assert set(torch.cat(steps).tolist()) == set(range(25))


class Squared:
    """An attacker's objective: the task's loss plus the distance travelled, as autograd sees it."""

    def objective(self, loss, start):
        def other(module, x, y):
            w = torch.cat([p.flatten() for p in module.parameters()])
            return loss(module, x, y) + 0.35 * (w - start).square().sum()

        return other


def test_an_objective_replaces_the_loss(workload, cohort, sent):
    plan, tasks = LocalPlan(20, epochs=2), cohort([90])
    moves = []
    for method in (
        LocalSGD(lr=0.1, plan=plan, objective=Squared()),
        FedProx(lr=0.1, prox=0.7, plan=plan),
    ):
        load = workload(method)
        out = torch.empty(1, load.model.d)
        Sequential(load).train(sent(load, tasks), tasks, out, Seeds(5))
        moves.append(out)
    assert torch.allclose(*moves, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"nesterov": True}, "needs a momentum"),
        ({"plan": LocalPlan(0)}, "batch_size must be at least 1"),
        ({"plan": LocalPlan(8, steps=0)}, "steps must be at least 1"),
        ({"prox": float("nan")}, "prox must be at least 0"),
    ],
)
def test_impossible_settings_are_refused_in_words(settings, says):
    with pytest.raises(ConfigError, match=says):
        LocalSGD(**settings)


def test_scaffold_refuses_momentum_which_bends_its_control_variate():
    with pytest.raises(ConfigError, match="momentum and prox"):
        Scaffold(momentum=0.9)


def test_scaffolds_client_half_is_option_two_of_the_paper(workload, cohort, sent):
    plan, lr = LocalPlan(16, epochs=2), 0.1
    load, (task,) = workload(Scaffold(lr=lr, plan=plan)), cohort([60])
    g = torch.Generator().manual_seed(1)
    c, c_i = (0.01 * torch.randn(load.model.d, generator=g) for _ in range(2))
    task = type(task)(task.client, task.index, ClientState({"control": c_i}))
    out = torch.empty(1, load.model.d)
    broadcast = sent(load, [task], aux={"control": c})
    (done,) = Sequential(load).train(broadcast, [task], out, Seeds(2))
    load.model.write(broadcast.parameters)
    y_minus_x, K = plain_loop(
        load.model.module,
        load.data,
        task.index,
        plan,
        Seeds(2).generator("training", 0, 0),
        lr=lr,
        correction=c - c_i,
    )
    after = c_i - c - y_minus_x / (K * lr)
    assert torch.allclose(out[0], y_minus_x, atol=1e-5)
    assert torch.equal(done.state.vectors["control"], c_i), "it is not known yet to have arrived"
    arrived = load.method.arrived(done.state, done.aux)
    assert torch.allclose(arrived.vectors["control"], after, atol=1e-4)
    assert load.method.arrived(done.state, {}) == done.state
    assert torch.allclose(done.aux["control"], after - c_i, atol=1e-4)
    assert done.weight == 1.0


def test_scaffold_without_the_servers_control_variate_fails_in_words(workload, cohort, sent):
    load, tasks = workload(Scaffold()), cohort([20])
    (failed,) = Sequential(load).train(
        sent(load, tasks), tasks, torch.empty(1, load.model.d), Seeds(0)
    )
    assert "control variate in the broadcast" in failed.why


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"prox": 0.5}], ids=str)
def test_fednova_normalises_by_the_papers_sums(workload, cohort, sent, settings):
    """Section 3 of the paper: tau for SGD; (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho) with
    momentum rho; (1 - (1 - lr mu)^tau) / (lr mu) with prox mu.
    """
    lr, tau = 0.1, 4
    rho, mu = settings.get("momentum", 0.0), settings.get("prox", 0.0)
    expected = (
        (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)
        if rho
        else (1 - (1 - lr * mu) ** tau) / (lr * mu)
        if mu
        else tau
    )
    plan, tasks = LocalPlan(16, epochs=1), cohort([61])
    nova, plain = (
        workload(FedNova(lr=lr, plan=plan, **settings)),
        workload(LocalSGD(lr=lr, plan=plan, **settings)),
    )
    ours, theirs = (torch.empty(1, nova.model.d) for _ in range(2))
    (done,) = Sequential(nova).train(sent(nova, tasks), tasks, ours, Seeds(0))
    Sequential(plain).train(sent(plain, tasks), tasks, theirs, Seeds(0))
    assert done.aux["tau"].item() == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(ours * expected, theirs, atol=1e-6)


def test_evaluation_counts_labels_and_next_tokens():
    logits = torch.tensor([[[5.0, 0.0], [0.0, 5.0], [5.0, 0.0]]])
    told = evaluate(torch.nn.Identity(), Dataset(logits, torch.tensor([[0, 1, 1]]), classes=2))
    assert told.accuracy == pytest.approx(2 / 3)
    assert told.loss == pytest.approx(
        float(functional.cross_entropy(logits[0], torch.tensor([0, 1, 1])))
    )


def test_evaluation_does_not_depend_on_the_batch_and_leaves_the_mode_alone(digits):
    module = build(MODELS, "mlp", (64,), 10, seed=0)
    module.train()
    whole, parts = evaluate(module, digits, batch=digits.n), evaluate(module, digits, batch=100)
    assert whole.accuracy == parts.accuracy
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
    assert module.training
    with pytest.raises(ConfigError, match="empty"):
        evaluate(module, digits.take([]))


def test_the_same_seed_gives_the_same_bits_and_dropout_leaves_the_global_generator_alone(
    digits, sent
):
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 10)
    )
    model = FlatModel(module)
    load = type("W", (), {})  # only for `sent`
    load.model = model
    trainer = LocalSGD(lr=0.1).on(model, cross_entropy)
    broadcast, before = sent(load, []), torch.get_rng_state()
    deltas = []
    for seed in (1, 1, 2):
        update, _, _ = trainer(
            4,
            broadcast,
            digits.take(range(64)),
            ClientState(),
            Seeds(seed).generator("training", 0, 4),
        )
        deltas.append(update.delta)
    assert torch.equal(deltas[0], deltas[1])
    assert not torch.equal(deltas[0], deltas[2])
    assert torch.equal(torch.get_rng_state(), before)
