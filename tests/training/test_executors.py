"""Executors: they agree, they are determined by the seed, and one client's failure is that client's
alone.
"""

import gc
import importlib.util
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from privfl.core import (
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    DpEvent,
    FlatModel,
    LocalPlan,
    NoisySteps,
    Sampling,
    Seeds,
    UnsupportedModel,
    Update,
)
from privfl.core.local import LocalRecipe
from privfl.models import cnn, resnet20
from privfl.training import (
    Failed,
    FedNova,
    FedProx,
    FedSGD,
    LocalSGD,
    PlainGradient,
    Processes,
    Scaffold,
    Sequential,
    Stacked,
    Task,
    Trained,
    Vmapped,
    Workload,
    cross_entropy,
    executors,
)
from privfl.training.task import Samples


def run(executor, broadcast, tasks, seed=0, out=None):
    out = torch.full((len(tasks), len(broadcast.parameters)), 9.0) if out is None else out
    return out, executor.train(broadcast, tasks, out, Seeds(seed))


METHODS = [
    LocalSGD(lr=0.1, plan=LocalPlan(8, epochs=2)),
    LocalSGD(lr=0.1, plan=LocalPlan(8, epochs=2), weight_decay=0.1),
    LocalSGD(lr=0.05, plan=LocalPlan(16), momentum=0.9, weight_decay=0.01),
    LocalSGD(lr=0.05, plan=LocalPlan(16, epochs=2), momentum=0.9, nesterov=True),
    LocalSGD(lr=0.1, plan=LocalPlan(12, steps=9), decay=0.5, weighting="uniform"),
    FedProx(lr=0.1, prox=0.5, plan=LocalPlan(8, epochs=2)),
    FedSGD(lr=0.5),
    FedNova(lr=0.1, momentum=0.5, plan=LocalPlan(8)),
]


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda m: f"{type(m).__name__}-{m.momentum}-{m.weight_decay}"
)
@pytest.mark.parametrize("net", ["softmax", "relu", "tanh", "sigmoid", "deep", "wide"])
def test_stacked_trains_like_sequential(workload, cohort, sent, method, net):
    options = (
        {}
        if net == "softmax"
        else {"hidden": (12, 7, 9)}
        if net == "deep"
        else {"hidden": (70, 5), "activation": "tanh"}  # several steps at once
        if net == "wide"
        else {"hidden": (15,), "activation": net}
    )
    load, tasks = (
        workload(method, "softmax" if net == "softmax" else "mlp", **options),
        cohort([40, 40, 40, 33, 5, 1, 64, 40]),
    )
    broadcast = sent(load, tasks, number=1)
    slow, expected = run(Sequential(load), broadcast, tasks)
    fast, got = run(Stacked(load), broadcast, tasks)
    assert torch.allclose(fast, slow, rtol=0, atol=1e-5)
    assert slow.norm(dim=1).min() > 1e-3
    for a, b in zip(got, expected, strict=True):
        assert (a.client, a.weight) == (b.client, b.weight)
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
        assert {k: v.tolist() for k, v in a.aux.items()} == {
            k: v.tolist() for k, v in b.aux.items()
        }


class OwnWay:
    """A client half that goes one unit along every parameter, and hands out nothing beside it."""

    def on(self, model, loss):
        def trained(client, broadcast, dataset, state, rng):
            return Update(client, torch.ones(model.d), 7.0), state, ()

        return trained


@pytest.mark.parametrize("executor", [Sequential, Stacked, Vmapped])
def test_a_client_that_trains_its_own_way_hands_out_what_the_recipes_steps_would_have_left(
    workload, cohort, sent, executor
):
    plan = LocalPlan(8, epochs=2)  # 5 batches of 40 samples, twice
    control = torch.linspace(-1, 1, workload(Scaffold()).model.d)
    for method, aux in (
        (Scaffold(lr=0.1, plan=plan), {"control": control}),
        (FedNova(lr=0.1, plan=plan), {}),
    ):
        load, tasks = workload(method), cohort([40, 40])
        remembered = ClientState({"control": 3 * control})
        tasks[1] = Task(1, tasks[1].index, state=remembered, method=OwnWay())
        out, (_, own) = run(executor(load), sent(load, tasks, aux=aux), tasks)
        assert own.weight == 7.0
        if aux:
            change = torch.ones(load.model.d) / (-10 * 0.1) - control
            torch.testing.assert_close(own.aux["control"], change)
            arrived = method.arrived(own.state, own.aux)
            torch.testing.assert_close(arrived.vectors["control"], 3 * control + change)
            assert torch.equal(out[1], torch.ones(load.model.d))
        else:
            assert own.aux["tau"].tolist() == [10.0]
            torch.testing.assert_close(out[1] * own.aux["tau"], torch.ones(load.model.d))


class Remembered(LocalSGD):
    """A relative whose clients are corrected by what they remember, if anything."""

    def correction(self, broadcast, state):
        return state.vectors.get("own")


@pytest.mark.parametrize("who", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_a_correction_is_its_own_clients_where_others_have_none(workload, cohort, sent, who):
    load, tasks = workload(Remembered(lr=0.1, plan=LocalPlan(8))), cohort([40, 24, 40])
    own = torch.linspace(-1, 1, load.model.d)
    for i in who:
        tasks[i] = Task(i, tasks[i].index, state=ClientState({"own": (i + 1) * own}))
    broadcast = sent(load, tasks)
    slow, _ = run(Sequential(load), broadcast, tasks)
    fast, _ = run(Stacked(load), broadcast, tasks)
    assert torch.allclose(fast, slow, rtol=0, atol=1e-5)
    assert slow[who[0]].norm() > 1


def test_samples_too_long_for_their_inner_products_are_trained_as_sequential_does():
    """Steps are taken several at once: lengths of 10^20 overflow where they are squared, and
    nothing else does.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(48, 20, generator=g)
    x[:24] *= 1e20
    data = Dataset(x, torch.randint(0, 3, (48,), generator=g), classes=3)
    model = FlatModel(nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 3)))
    model.write(0.3 * torch.randn(model.d, generator=g))
    load = Workload(model, cross_entropy, LocalSGD(lr=0.001, plan=LocalPlan(4)), data)
    tasks = [Task(i, index) for i, index in enumerate(torch.arange(48).split(24))]
    broadcast = Broadcast(0, model.read())
    slow, _ = run(Sequential(load), broadcast, tasks)
    fast, _ = run(Stacked(load), broadcast, tasks)
    assert slow.isfinite().all()
    assert torch.allclose(fast, slow, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    batch=st.integers(1, 40),
    steps=st.one_of(st.none(), st.integers(1, 5)),
    epochs=st.integers(1, 3),
    momentum=st.sampled_from([0.0, 0.9]),
    hidden=st.sampled_from([4, 64]),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_stacked_agrees_whatever_the_sizes(
    sizes, batch, steps, epochs, momentum, hidden, bias, seed
):
    g = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    data = Dataset(
        torch.randn(n, 5, generator=g), torch.randint(0, 3, (n,), generator=g), classes=3
    )
    # a rate at which training is stable: at 0.1 with momentum, float32's sequential loop is itself
    # 0.07 away from float64's
    method = LocalSGD(lr=0.02, momentum=momentum, plan=LocalPlan(batch, epochs=epochs, steps=steps))
    model = FlatModel(
        torch.nn.Sequential(
            torch.nn.Linear(5, hidden, bias=bias),
            torch.nn.Tanh(),
            torch.nn.Linear(hidden, 3, bias=False),
        )
    )
    model.write((0.8 / hidden**0.5) * torch.randn(model.d, generator=g))
    load = Workload(model, cross_entropy, method, data)
    tasks = [Task(i, index) for i, index in enumerate(torch.randperm(n, generator=g).split(sizes))]
    broadcast = Broadcast(0, model.read())
    slow, expected = run(Sequential(load), broadcast, tasks, seed)
    fast, got = run(Stacked(load), broadcast, tasks, seed)
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5)
    assert [r.loss for r in got] == pytest.approx([r.loss for r in expected], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("hidden", [5, 70])
def test_a_huge_sample_that_pads_a_batch_costs_its_client_nothing(momentum, hidden):
    """What the model that it made would make of it is infinite: alone nobody looks."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(39, 13, generator=g), torch.randint(7, (39,), generator=g)
    model = FlatModel(nn.Sequential(nn.Linear(13, hidden), nn.ReLU(), nn.Linear(hidden, 7)))
    model.write(0.2 * torch.randn(model.d, generator=g))
    x[0] *= 1e20
    y[0] = int(model.module(x[:1]).argmin())
    method = LocalSGD(lr=0.1, momentum=momentum, plan=LocalPlan(8))
    load = Workload(model, cross_entropy, method, Dataset(x, y, 7))
    tasks = [Task(0, torch.arange(11)), Task(1, torch.arange(11, 39))]
    start, alone = Broadcast(0, model.read()), 0
    for seed in range(6):
        slow, _ = run(Sequential(load), start, tasks, seed)
        fast, _ = run(Stacked(load), start, tasks, seed)
        assert torch.equal(slow.isfinite(), fast.isfinite())
        assert torch.allclose(slow[1], fast[1], atol=1e-5)
        alone += int(slow[0].isfinite().all())
    assert alone > 0


def test_stacked_scaffold_corrects_each_client_by_its_own_control_variate(workload, cohort, sent):
    load, tasks = workload(Scaffold(lr=0.1, plan=LocalPlan(8, epochs=2))), cohort([40, 24, 31])
    g = torch.Generator().manual_seed(1)
    tasks = [
        Task(
            t.client,
            t.index,
            ClientState({"control": 0.1 * torch.randn(load.model.d, generator=g)}),
        )
        for t in tasks[:2]
    ] + tasks[2:]
    broadcast = sent(load, tasks, aux={"control": 0.1 * torch.randn(load.model.d, generator=g)})
    slow, expected = run(Sequential(load), broadcast, tasks)
    fast, got = run(Stacked(load), broadcast, tasks)
    assert torch.allclose(fast, slow, atol=1e-5)
    for a, b in zip(got, expected, strict=True):
        ends = [load.method.arrived(one.state, one.aux).vectors["control"] for one in (a, b)]
        assert torch.allclose(*ends, atol=1e-4)
        assert torch.allclose(a.aux["control"], b.aux["control"], atol=1e-4)


@pytest.mark.parametrize("kind", [Sequential, Stacked, Vmapped])
def test_the_same_seed_gives_the_same_bits_whatever_the_company_of_a_client(
    kind, workload, cohort, sent
):
    load, tasks = workload(LocalSGD(lr=0.1)), cohort([40] * 6)
    broadcast, before = sent(load, tasks), torch.get_rng_state()
    first, _ = run(kind(load), broadcast, tasks, seed=4)
    again, _ = run(kind(load), broadcast, tasks, seed=4)
    other, _ = run(kind(load), broadcast, tasks, seed=5)
    alone, _ = run(kind(load), broadcast, tasks[3:4], seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(alone[0], first[3], atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [Sequential, Stacked, Vmapped])
def test_rows_may_lie_apart_and_nothing_is_written_between_them(kind, workload, cohort, sent):
    load, tasks = workload(LocalSGD(lr=0.1)), cohort([40, 12, 40])
    broadcast, d = sent(load, tasks), load.model.d
    dense, _ = run(kind(load), broadcast, tasks)
    room = torch.full((3, d + 8), 7.0)
    run(kind(load), broadcast, tasks, out=room[:, 8:])
    assert torch.equal(room[:, 8:], dense)
    assert (room[:, :8] == 7.0).all()
    with pytest.raises(ConfigError, match="do not fit"):
        run(kind(load), broadcast, tasks, out=torch.empty(2, d))


def failing_cohort(cohort, digits):
    """An empty client, an index out of range, and labels that the model has no class for, among
    honest clients.
    """
    a, d, f = (cohort([40] * 6)[i] for i in (0, 3, 5))
    wrong = Dataset(digits.x[:20], torch.full((20,), 99), classes=100)
    return [
        a,
        Task(1, torch.empty(0, dtype=torch.int64)),
        Task(2, torch.tensor([10**6] * 40)),
        d,
        Task(4, None, data=wrong),
        f,
    ]


@pytest.mark.parametrize("kind", [Sequential, Stacked, Vmapped, Processes])
def test_a_failing_client_is_named_and_the_others_train_as_ever(
    kind, workload, cohort, sent, digits
):
    load, tasks = workload(LocalSGD(lr=0.1)), failing_cohort(cohort, digits)
    broadcast = sent(load, tasks)
    executor = kind(load) if kind is not Processes else Processes(load, workers=1)
    out, results = run(executor, broadcast, tasks)
    executor.close()
    failed = [r for r in results if isinstance(r, Failed)]
    assert [f.client for f in failed] == [1, 2, 4]
    assert "client 1 holds no samples" in failed[0].why
    assert "IndexError" in failed[1].why
    assert torch.isnan(out[[1, 2, 4]]).all()
    honest = [tasks[i] for i in (0, 3, 5)]
    alone, _ = run(Sequential(load), broadcast, honest)
    assert torch.allclose(out[[0, 3, 5]], alone, atol=1e-6)


@pytest.mark.parametrize("kind", [Sequential, Stacked, Vmapped])
def test_a_diverging_client_is_nan_and_no_crash(kind, workload, cohort, sent, digits):
    load, tasks = workload(LocalSGD(lr=0.1, plan=LocalPlan(8, epochs=2))), cohort([40, 40, 40])
    poisoned = Dataset(digits.x[:40] * float("nan"), digits.y[:40], classes=10)
    out, results = run(
        kind(load), sent(load, tasks), [tasks[0], Task(1, None, data=poisoned), tasks[2]]
    )
    assert all(isinstance(r, Trained) for r in results)
    assert torch.isnan(out[1]).any()
    assert torch.isfinite(out[[0, 2]]).all()
    assert results[1].loss != results[1].loss
    wild = workload(LocalSGD(lr=1e30, plan=LocalPlan(8, epochs=2)))
    _, results = run(kind(wild), sent(wild, tasks), tasks)
    assert all(isinstance(r, Trained) for r in results)


@pytest.mark.parametrize("kind", [Sequential, Stacked, Vmapped])
def test_a_client_may_have_its_own_data_broadcast_and_method(kind, workload, cohort, sent, digits):
    load, tasks = workload(LocalSGD(lr=0.1)), cohort([40, 40, 40, 40])
    broadcast = sent(load, tasks)
    flipped = Dataset(digits.x, 9 - digits.y, classes=10)
    other = sent(load, tasks)
    other = type(other)(other.version, other.parameters * 0.5)
    own = [
        tasks[0],
        Task(1, tasks[1].index, data=flipped),
        Task(2, tasks[2].index, broadcast=other),
        Task(3, tasks[3].index, method=LocalSGD(lr=0.01)),
    ]
    out, _ = run(kind(load), broadcast, own)
    for row, (method, data, start) in enumerate(
        [
            (load.method, digits, broadcast),
            (load.method, flipped, broadcast),
            (load.method, digits, other),
            (LocalSGD(lr=0.01), digits, broadcast),
        ]
    ):
        alone, _ = run(
            Sequential(Workload(load.model, load.loss, method, data)), start, tasks[row : row + 1]
        )
        assert torch.allclose(out[row], alone[0], atol=1e-6)


class Noisy(PlainGradient):
    """A gradient of its own, as DP-SGD has."""

    def noisy(self, n, plan, steps):
        event = DpEvent("gaussian", {"steps": float(steps)})
        return (NoisySteps(event, Sampling("shuffled", 1.0, n)),)


def other_loss(module, x, y):
    return cross_entropy(module, x, y)


def test_stacked_refuses_what_it_cannot_do_and_auto_falls_back(workload, digits, sent, cohort):
    mlp = torch.nn.Sequential
    refused = [
        (workload(LocalSGD(gradient=Noisy())), "gradient"),
        (
            Workload(workload(LocalSGD()).model, other_loss, LocalSGD(), digits),
            "only cross_entropy",
        ),
        (
            Workload(
                FlatModel(mlp(torch.nn.Linear(64, 10), torch.nn.GELU())),
                cross_entropy,
                LocalSGD(),
                digits,
            ),
            "GELU",
        ),
        (
            Workload(
                FlatModel(mlp(torch.nn.Linear(64, 10), torch.nn.ReLU())),
                cross_entropy,
                LocalSGD(),
                digits,
            ),
            "ends with a linear",
        ),
        (
            Workload(FlatModel(torch.nn.Linear(64, 10)), cross_entropy, LocalSGD(), digits),
            "nn.Sequential",
        ),
        (
            Workload(FlatModel(mlp(torch.nn.Linear(32, 10))), cross_entropy, LocalSGD(), digits),
            "32 inputs",
        ),
    ]
    for load, says in refused:
        with pytest.raises(UnsupportedModel, match=says):
            Stacked(load)
    load, tasks = refused[0][0], cohort([40, 40])
    executor, why = executors(load, {t.client: t.index for t in tasks})
    assert isinstance(executor, Sequential)
    assert why.startswith("sequential: a gradient")
    _, results = run(executor, sent(load, tasks), tasks)
    assert results[0].noisy[0].event.parameters == {"steps": 2.0}


def test_a_frozen_layer_is_not_trained_stacked_as_if_it_were_free(digits):
    for layer, parameter in ((0, "weight"), (2, "bias")):
        module = torch.nn.Sequential(
            torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10)
        )
        module[layer].get_parameter(parameter).requires_grad_(False)
        with pytest.raises(UnsupportedModel, match="frozen"):
            Stacked(Workload(FlatModel(module), cross_entropy, LocalSGD(), digits))


def test_auto_measures_names_its_reason_and_leaves_the_model_as_it_was(workload, cohort):
    load, tasks = workload(LocalSGD(lr=0.1)), cohort([40] * 8)
    clients, before = {t.client: t.index for t in tasks}, load.model.read()
    executor, why = executors(load, clients)
    name = why.partition(":")[0]
    assert name in ("sequential", "stacked")
    assert type(executor) is {"sequential": Sequential, "stacked": Stacked}[name]
    assert "measured" in why
    assert torch.equal(load.model.flat, before)
    again, same = executors(load, clients, why)
    assert type(again) is type(executor)
    assert same == why
    with pytest.raises(ConfigError, match="did you mean 'stacked'"):
        executors(load, clients, "staked")


class Foreign:
    """A training written by somebody who knows `core.LocalTraining` and nothing else."""

    weighting, gradient, recipe = "samples", PlainGradient(), LocalRecipe()

    def on(self, model, loss):
        def train(client, broadcast, dataset, state, rng):
            if client == 1:
                raise ValueError("my disk is full")
            delta = torch.full((model.d,), float(dataset.n))
            return (
                Update(client, delta, 2.0, {"extra": torch.ones(1)}),
                ClientState({"seen": torch.ones(1)}),
                (),
            )

        return train

    def parts(self, d):
        return {"extra": 1}

    def init(self, d):
        return {}

    def broadcast(self, state):
        return {}

    def combine(self, aggregate, aux, state, cohort_fraction):
        return aggregate, state

    def arrived(self, state, sent):
        return state


def test_a_foreign_training_runs_and_its_exception_is_the_clients(workload, cohort, sent):
    load, tasks = workload(Foreign()), cohort([40, 40, 12])
    out, results = run(Sequential(load), sent(load, tasks), tasks)
    assert results[1] == Failed(1, "ValueError: my disk is full")
    assert out[:, 0][[0, 2]].tolist() == [40.0, 12.0]
    assert (
        results[2].weight,
        results[2].aux["extra"].item(),
        results[2].state.vectors["seen"].item(),
    ) == (2.0, 1.0, 1.0)
    assert executors(load, {0: tasks[0].index})[1].startswith("sequential")


def test_processes_give_the_bits_of_sequential_survive_a_dead_worker_and_leave_nothing(
    workload, cohort, sent, digits
):
    children = {p.pid for p in multiprocessing.active_children()}
    load, tasks = (
        workload(LocalSGD(lr=0.1, momentum=0.5, plan=LocalPlan(16)), "mlp"),
        cohort([40, 33, 40, 1, 40]),
    )
    tasks[2] = Task(2, tasks[2].index, data=Dataset(digits.x, 9 - digits.y, classes=10))
    broadcast = sent(load, tasks)
    slow, expected = run(Sequential(load), broadcast, tasks)
    executor = Processes(load, workers=2)
    for number in (0, 1):
        fast, got = run(executor, sent(load, tasks, number) if number else broadcast, tasks)
        if number == 0:
            assert torch.equal(fast, slow)
            assert got == expected
    victim = next(iter(executor.workers.values()))
    os.kill(victim.pid, 9)
    victim.join()
    out, results = run(executor, broadcast, tasks)
    lost = [row for row, r in enumerate(results) if isinstance(r, Failed)]
    assert len(lost) <= 1
    kept = [row for row in range(5) if row not in lost]
    assert torch.equal(out[kept], slow[kept])
    after, _ = run(executor, broadcast, tasks)
    assert torch.equal(after, slow)
    folder = Path(executor.folder.name)
    assert folder.is_dir()
    executor.close()
    with pytest.raises(ConfigError, match="closed"):
        run(executor, broadcast, tasks)
    del executor
    gc.collect()
    assert {p.pid for p in multiprocessing.active_children()} == children
    assert not folder.exists()


def test_processes_refuse_parts_that_cannot_travel(workload, digits):
    load = Workload(
        workload(LocalSGD()).model, lambda module, x, y: module(x).sum(), LocalSGD(), digits
    )
    with pytest.raises(ConfigError, match="cannot be sent to worker processes"):
        Processes(load)
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        Processes(workload(LocalSGD()), workers=0)


IMAGE_NETS = {
    "cnn": lambda: cnn((3, 8, 8), 4, channels=4),
    "one colour": lambda: cnn((1, 8, 8), 4, channels=4),
    "resnet20": lambda: resnet20((3, 8, 8), 4),
}


@pytest.mark.parametrize("net", IMAGE_NETS)
def test_batches_with_channels_last_train_alike(net, cohort, sent):
    torch.manual_seed(0)
    x = torch.randn(60, 1 if net == "one colour" else 3, 8, 8)
    data = Dataset(x, torch.arange(60) % 4, classes=4)
    load = Workload(FlatModel(IMAGE_NETS[net]()), cross_entropy, LocalSGD(lr=0.05), data)
    tasks = [Task(0, torch.arange(0, 30)), Task(1, torch.arange(30, 60))]
    broadcast = sent(load, tasks)
    one, _ = run(Sequential(load), broadcast, tasks)
    laid_out, results = run(Sequential(load, channels_last=True), broadcast, tasks)
    torch.testing.assert_close(laid_out, one, rtol=1e-3, atol=2e-5)
    assert [done.weight for done in results] == [30.0, 30.0]


def test_a_batch_lies_as_it_was_asked_for_with_the_same_values():
    x, y = torch.randn(9, 1, 4, 5), torch.arange(9)
    at = torch.tensor([7, 0, 3])
    plain, labels = Samples(x, y).batch(at)
    laid_out, same = Samples(x, y, channels_last=True).batch(at)
    assert torch.equal(plain, laid_out)
    assert torch.equal(labels, same)
    assert laid_out.stride() == (20, 1, 5, 1)
    assert torch.equal(Samples(y[:, None], y, channels_last=True).batch(at)[0], y[at][:, None])
    learned = Samples(x.clone().requires_grad_(), y, channels_last=True)
    assert torch.equal(learned.batch(at)[0], x[at])


def test_a_layout_that_was_asked_for_is_written_down_and_misspelt_ones_are_refused(cohort):
    data = Dataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 4, classes=4)
    load = Workload(FlatModel(cnn((3, 8, 8), 4, channels=4)), cross_entropy, LocalSGD(), data)
    executor, why = executors(load, {0: torch.arange(8)}, "sequential/channels-last")
    assert isinstance(executor, Sequential)
    assert executor.channels_last
    assert why == "sequential/channels-last: asked for"
    again, same = executors(load, {0: torch.arange(8)}, why)
    assert again.channels_last
    assert same == why
    for wrong in ("sequential/2", "stacked/channels-last", "processes/two", "processes/2/2"):
        with pytest.raises(ConfigError, match="executor"):
            executors(load, {0: torch.arange(8)}, wrong)


def test_worker_processes_lay_batches_out_as_they_are_told(sent):
    data = Dataset(torch.randn(20, 3, 8, 8), torch.arange(20) % 4, classes=4)
    load = Workload(FlatModel(cnn((3, 8, 8), 4, channels=4)), cross_entropy, LocalSGD(), data)
    tasks = [Task(0, torch.arange(20))]
    broadcast = sent(load, tasks)
    expected, _ = run(Sequential(load, channels_last=True), broadcast, tasks)
    executor = Processes(load, workers=1, channels_last=True)
    try:
        out, _ = run(executor, broadcast, tasks)
    finally:
        executor.close()
    assert torch.equal(out, expected)


class Views(nn.Module):
    """An image net that cannot view a batch whose channels lie together as rows."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(144, 4)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x.view(len(x), -1))


def test_a_way_in_which_clients_fail_is_not_the_fastest():
    data = Dataset(torch.randn(32, 3, 8, 8), torch.arange(32) % 4, classes=4)
    load = Workload(FlatModel(Views()), cross_entropy, LocalSGD(), data)
    clients = {0: torch.arange(16), 1: torch.arange(16, 32)}
    broadcast = Broadcast(0, load.model.read())
    out = torch.empty(1, load.model.d)
    (laid_out,) = Sequential(load, channels_last=True).train(
        broadcast, [Task(0, clients[0])], out, Seeds(0)
    )
    assert isinstance(laid_out, Failed)  # and it fails at once, which a clock takes for speed
    executor, why = executors(load, clients, workers=1)
    assert isinstance(executor, Sequential)
    assert not executor.channels_last, why
    (done,) = executor.train(broadcast, [Task(0, clients[0])], out, Seeds(0))
    assert isinstance(done, Trained)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_is_asked_for_by_name_and_refused_in_words_where_it_is_not_installed(workload):
    with pytest.raises(ConfigError, match=r"pip install 'privfl\[ray\]'"):
        executors(workload(LocalSGD()), {}, "ray/2")


@pytest.mark.parametrize(
    "wanted", ["ray/two", "ray/2/3", "ray/2/first", "rays", "processes/0", "processes/²"]
)
def test_a_misspelt_executor_and_one_without_workers_are_none(workload, wanted):
    with pytest.raises(ConfigError, match="executor"):
        executors(workload(LocalSGD()), {}, wanted)
