"""Running statistics in a federation: averaged as FedAvg on plain torch averages them, each
client's own, or frozen; resumed to the same bits; refused where nothing could be claimed of them.
"""

import copy
import io
import multiprocessing
import pickle
import signal
import threading

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import (
    Broadcast,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    NotVisible,
    Rows,
    Seeds,
    Total,
    UnsupportedModel,
)
from privfl.engine import statistics_of
from privfl.training import (
    FedNova,
    LocalSGD,
    Scaffold,
    Sequential,
    Soteria,
    Task,
    Workload,
    adapt,
    cross_entropy,
    worker,
)
from privfl.training.worker import Job, Mapped, WorkerOrder, WorkerRound, packed

PLAN = LocalPlan(4, epochs=2)


def points(seed, n=12):
    rng = torch.Generator().manual_seed(seed)
    x = 3 + 2 * torch.randn(n, 3, generator=rng)
    return Dataset(x, (x.sum(dim=1) > 9).long(), classes=2)


def net(momentum=0.1, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum), nn.ReLU(), nn.Linear(4, 2)
    )


CLIENTS = [points(1), points(2, 20), points(3, 8)]
TEST = points(9, 40)


def federation(buffers="averaged", momentum=0.1, **parts):
    parts = {
        "training": LocalSGD(lr=0.2, plan=PLAN),
        "rounds": 3,
        "executor": "sequential",
        **parts,
    }
    return Federation(net(momentum), CLIENTS, TEST, buffers=buffers, **parts)


def shares(run, federation):
    return statistics_of(federation.scenario.workload, run.state)


def by_hand(momentum, rounds=3):
    """FedAvg of a whole state_dict, but for counts, with torch's own optimiser."""
    server, n = net(momentum), [one.n for one in CLIENTS]
    for number in range(rounds):
        left = []
        for client, data in enumerate(CLIENTS):
            own = copy.deepcopy(server).train()
            sgd = torch.optim.SGD(own.parameters(), lr=0.2)
            rng = Seeds(0).generator("training", number, client)
            for positions in LocalSGD(plan=PLAN).gradient.batches(data.n, PLAN, rng):
                sgd.zero_grad()
                cross_entropy(own, data.x[positions], data.y[positions]).backward()
                sgd.step()
            left.append(own.state_dict())
        for name, value in server.state_dict().items():
            if value.is_floating_point():
                value.copy_(sum(k / sum(n) * one[name] for k, one in zip(n, left, strict=True)))
    return server.eval()


def close(run, server, tolerance):
    model = FlatModel(copy.deepcopy(server))
    assert (run.parameters - model.read()).abs().max() < tolerance
    assert (FlatModel(copy.deepcopy(run.model)).state - model.state).abs().max() < tolerance
    assert torch.allclose(run.model.eval()(TEST.x), server(TEST.x), atol=10 * tolerance)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_averaged_statistics_are_those_of_federated_averaging_in_plain_torch(momentum):
    run = federation(momentum=momentum).run()
    close(run, by_hand(momentum), 1e-5)
    assert run.model[1].num_batches_tracked == 0


def config(**parts):
    return {
        "data": {"name": "digits", "clients": 3},
        "model": {"name": "resnet20", "norm": "batch", "width": 2},
        "rounds": 2,
        "repeatable": True,
        "executor": "sequential",
        "training": {"name": "sgd", "weighting": "uniform", "steps": 2, "buffers": "averaged"},
        "bound": {"name": "clip", "l2": 5.0, "parts": {"buffers": 20.0}},
        **parts,
    }


def test_secure_aggregation_of_statistics_is_within_its_rounding_of_plain_averaging():
    plain = Federation.from_config(config())
    secure = Federation.from_config(config(channel={"name": "secagg", "bits": 24}))
    ran, hidden = plain.run(), secure.run()
    there, here = shares(ran, plain), shares(hidden, secure)
    assert (there - 1).abs().max() > 0.1
    assert (here - there).abs().max() < 1e-4
    assert (hidden.parameters - ran.parameters).abs().max() < 1e-4


@pytest.mark.parametrize("buffers", ["averaged", "local", "frozen"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(buffers, tmp_path):
    class Killed(BaseException):
        pass

    def killed(record, rounds):
        if record.round == 1:
            raise Killed

    whole = federation(buffers).run(tmp_path / "whole")
    with pytest.raises(Killed):
        federation(buffers).run(tmp_path / "cut", progress=killed)
    went_on = federation(buffers).run(tmp_path / "cut", resume=True)
    assert torch.equal(went_on.parameters, whole.parameters)
    assert [r.loss for r in went_on.history] == [r.loss for r in whole.history]
    assert went_on.summary["client_accuracy"] == whole.summary["client_accuracy"]
    held, kept = (
        {client: dict(one.vectors) for client, one in run.state.clients.items()}
        for run in (whole, went_on)
    )
    assert all(torch.equal(kept[c][name], v) for c in held for name, v in held[c].items())
    for name, buffer in whole.model.named_buffers():
        assert torch.equal(dict(went_on.model.named_buffers())[name], buffer)


def test_a_second_run_goes_on_with_the_statistics_and_one_set_back_begins_anew():
    twice = federation(audit=AuditConfig(keep="all"))
    start = twice.scenario.workload.model.read()
    first = twice.run()
    went_on = twice.run()
    assert torch.equal(went_on.transcript(0).extra["buffers"], shares(first, twice))
    twice.scenario.workload.model.write(start)
    anew, fresh = twice.run(), federation()
    assert torch.equal(shares(anew, twice), shares(fresh.run(), fresh))


def test_local_statistics_stay_with_their_client_and_reach_nobody():
    local = federation("local")
    run = local.run()
    assert shares(run, local) is None
    for client, data in enumerate(CLIENTS):
        held = run.state.clients[client].vectors
        alone = copy.deepcopy(net())  # what the statistics would be of this client's batches alone
        mean = (data.x @ alone[0].weight.T + alone[0].bias).mean(dim=0)
        assert held["batches seen"].dtype == torch.int64
        assert int(held["batches seen"]) == 3 * 2 * -(-data.n // 4)
        assert not torch.equal(held["buffers"][:4], mean)
    ours = [run.state.clients[c].vectors["buffers"] for c in range(3)]
    assert not torch.equal(ours[0], ours[1])
    other = Federation(
        net(),
        [CLIENTS[0], points(77, 20), CLIENTS[2]],
        TEST,
        buffers="local",
        training=LocalSGD(lr=0.2, plan=PLAN),
        rounds=1,
        executor="sequential",
    ).run()
    first = federation("local", rounds=1).run()
    for client in (0, 2):  # another client's data move nothing of this one's in the same round
        a, b = (r.state.clients[client].vectors["buffers"] for r in (first, other))
        assert torch.equal(a, b)


def test_a_model_of_local_statistics_is_measured_with_those_of_the_samples():
    run = federation("local").run()
    assert run.accuracy > 0.8
    before = run.model[0](TEST.x)
    norm = run.model[1]
    assert torch.allclose(norm.running_mean, before.mean(dim=0), atol=1e-5)
    assert torch.allclose(norm.running_var, before.var(dim=0), atol=1e-4)


def test_frozen_statistics_are_those_that_the_model_began_with_in_training_too():
    model = net()
    model[1].running_mean.fill_(2.0)
    started = Federation(
        model,
        CLIENTS,
        TEST,
        buffers="frozen",
        training=LocalSGD(lr=0.2, plan=LocalPlan(100, steps=1)),
        rounds=1,
        executor="sequential",
    )
    reference = copy.deepcopy(model).eval()
    run = started.run()
    assert torch.equal(run.model[1].running_mean, torch.full((4,), 2.0))
    assert run.transcripts == {} or "buffers" not in run.transcript(0).carried.opened
    for layer in reference:
        layer.requires_grad_()
    total = sum(d.n for d in CLIENTS)
    loss = sum(d.n / total * cross_entropy(reference, d.x, d.y) for d in CLIENTS)
    loss.backward()
    change = torch.cat([-0.2 * p.grad.reshape(-1) for p in reference.parameters()])
    there = torch.cat([p.detach().reshape(-1) for p in reference.parameters()])
    assert (run.parameters - there - change).abs().max() < 1e-6


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("way", [pickled, copy.deepcopy, saved])
def test_a_copy_keeps_its_statistics_and_shares_none(way):
    model = FlatModel(net())
    model.write_state(torch.arange(8.0))
    model.counts.fill_(1 << 60)
    there = way(model)
    assert torch.equal(there.state, model.state)
    assert int(there.module[1].num_batches_tracked) == 1 << 60
    there.module.train()(TEST.x)
    assert torch.equal(model.state, torch.arange(8.0))
    assert not torch.equal(there.state, model.state)
    assert int(there.counts) == (1 << 60) + 1
    assert int(model.counts) == 1 << 60


def test_a_pickle_of_many_layers_holds_the_statistics_once():
    deep = nn.Sequential(*(nn.BatchNorm1d(1000) for _ in range(20)))
    assert len(pickle.dumps(FlatModel(deep))) < 4 * (2 * 20_000 + 2 * 20_000) + 40_000


@pytest.mark.parametrize(
    "method", [Scaffold(lr=0.1), FedNova(lr=0.1), LocalSGD(gradient=Soteria())]
)
def test_methods_send_their_own_vectors_beside_the_statistics(method):
    run = federation(training=method, rounds=1)
    sent = run.scenario.workload.method.parts(26)
    assert sent == {**method.parts(26), "buffers": 8}
    assert run.run().accuracy >= 0


def asked(*messages):
    """A worker's end of a pipe, on which it is asked these and then nothing, and its answers."""
    ours, theirs = multiprocessing.Pipe()
    said = []

    def ask():
        for message in messages:
            ours.send_bytes(packed(message))
        said.extend(pickle.loads(ours.recv_bytes()) for _ in messages)
        ours.close()

    asking = threading.Thread(target=ask)
    asking.start()
    return theirs, asking, said


@pytest.mark.parametrize("buffers", ["averaged", "local", "frozen"])
def test_a_worker_process_gives_the_bits_of_one_process(buffers, tmp_path):
    model, data = FlatModel(net()), CLIENTS[1]
    work = Workload(model, cross_entropy, LocalSGD(plan=PLAN), data, buffers)
    sent = Broadcast(0, model.read(), work.method.broadcast(work.method.init(model.d)))
    x, y = (Mapped.holding(t, tmp_path / n) for t, n in ((data.x, "x"), (data.y, "y")))
    rows = Mapped(tmp_path / "rows", (1, model.d), torch.float32)
    job = packed(Job(copy.deepcopy(model.module), cross_entropy, work.method, x, y, 2, False))
    pipe, asking, said = asked(WorkerRound(sent, Seeds(0), rows), WorkerOrder(0, Task(0)))
    threads, interrupt = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    try:
        worker.work(pipe, job)
    finally:
        asking.join()
        pipe.close()
        torch.set_num_threads(threads)
        signal.signal(signal.SIGINT, interrupt)
    out = torch.empty(1, model.d)
    (here,) = Sequential(work).train(sent, [Task(0)], out, Seeds(0))
    ready, there = said
    assert ready is None
    assert torch.equal(rows.open(), out)
    ours, theirs = ({**one.aux, **one.state.vectors} for one in (here, there))
    assert ours.keys() == theirs.keys()
    assert bool(ours) is (buffers != "frozen")
    assert all(torch.equal(theirs[name], vector) for name, vector in ours.items())


def test_whoever_reads_rows_reads_the_clients_statistics_and_a_sum_hides_them():
    run = Federation.from_config(config(audit={"keep": "all"})).run()
    seen = run.view("server", 0)
    assert isinstance(seen.opened["buffers"], Rows)
    assert torch.equal(seen.extra["buffers"][:2], torch.zeros(2))
    outsider = run.view("outsider", 1)
    assert torch.equal(outsider.extra["buffers"], run.view("outsider", 0).extra_after["buffers"])
    hidden = Federation.from_config(config(channel="secagg", audit={"keep": "all"})).run()
    view = hidden.view("server", 0)
    assert isinstance(view.opened["buffers"], Total)
    with pytest.raises(NotVisible):
        _ = view.rows
    for policy in ("local", "frozen"):
        part = {**config()["training"], "buffers": policy}
        run = Federation.from_config(
            config(training=part, bound={"name": "clip", "l2": 5.0}, audit={"keep": "all"})
        ).run()
        assert set(run.view("server", 0).opened) == {"delta"}


NOISE = {"name": "gaussian", "noise_multiplier": 1.0}


@pytest.mark.parametrize(
    ("parts", "error", "says"),
    [
        (
            {"training": {"name": "sgd"}, "bound": "none"},
            UnsupportedModel,
            "training.buffers: averaged, local",
        ),
        (
            {"training": {"name": "sgd", "buffers": "avg"}},
            ConfigError,
            "training.buffers 'avg'",
        ),
        (
            {"training": {"name": "sgd", "buffers": "averaged"}, "model": "softmax"},
            ConfigError,
            "no running statistics",
        ),
        (
            {"bound": {"name": "clip", "l2": 1.0}, "mechanism": NOISE},
            ConfigError,
            "sends 'buffers', which needs a bound of its own",
        ),
        (
            {"mechanism": {"name": "local_gaussian", "noise_multiplier": 1.0}},
            ConfigError,
            "'buffers' would leave without noise",
        ),
        (
            {
                "training": {
                    "name": "sgd",
                    "buffers": "averaged",
                    "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0},
                }
            },
            UnsupportedModel,
            "per-sample privacy is impossible",
        ),
        (
            {
                "training": {
                    "name": "sgd",
                    "buffers": "local",
                    "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0},
                },
                "bound": "none",
            },
            UnsupportedModel,
            "per-sample privacy is impossible",
        ),
        (
            {
                "bound": {"name": "clip", "l2": 1.0, "parts": {"buffers": 1.0}},
                "training": {"name": "sgd", "buffers": "local"},
            },
            ConfigError,
            "bounds 'buffers', which sgd does not send",
        ),
        (
            {"aggregator": "zeno", "data": {"name": "digits", "clients": 3, "root": 60}},
            ConfigError,
            "evaluates models that it makes of parameters",
        ),
    ],
)
def test_what_nothing_could_be_claimed_of_is_refused_by_name(parts, error, says):
    with pytest.raises(error, match=says):
        Federation.from_config({**config(), "rounds": 1, **parts})


def test_bounded_statistics_are_noised_and_charged_like_any_part():
    noisy = Federation.from_config(config(rounds=1, mechanism=NOISE))
    bare = Federation.from_config(
        config(
            rounds=1,
            mechanism=NOISE,
            training={**config()["training"], "buffers": "frozen"},
            bound={"name": "clip", "l2": 5.0},
        )
    )
    run, frozen = noisy.run(), bare.run()
    (charged,), (alone,) = run.ledger.charges, frozen.ledger.charges
    both = charged.event.parameters["noise_multiplier"]
    assert both == pytest.approx(alone.event.parameters["noise_multiplier"] / 2**0.5)
    variances = noisy.scenario.workload.method.variances > 0
    released = shares(run, noisy)
    assert (released[variances] > 0).all()
    assert (released[variances] == 1).any()  # noise would have taken them below zero
    assert run.model.eval()(torch.rand(2, 1, 8, 8)).isfinite().all()


def test_statistics_of_samples_take_no_label_and_leave_modes_and_counts():
    module = net().train()
    module[1].num_batches_tracked.fill_(5)
    adapt(module, TEST.x, batch=20)
    first, second = (module[0](part) for part in TEST.x.split(20))
    assert torch.allclose(
        module[1].running_mean, (first.mean(dim=0) + second.mean(dim=0)) / 2, atol=1e-5
    )
    assert module.training
    assert module[1].training
    assert module[1].momentum == 0.1
    assert module[1].num_batches_tracked == 5
