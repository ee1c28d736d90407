"""Clients whose networks are trained at once by vmap: as one after the other, or refused."""

import copy
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.core import (
    Broadcast,
    ClientState,
    Dataset,
    FlatModel,
    LocalPlan,
    Seeds,
    UnsupportedModel,
    written_out,
)
from privfl.models import cnn, lstm, resnet20, transformer
from privfl.training import (
    Failed,
    FedNova,
    FedProx,
    LocalSGD,
    Scaffold,
    Sequential,
    Task,
    Vmapped,
    Workload,
    cross_entropy,
    executors,
)
from privfl.training.mappable import parts
from privfl.training.vmapped import mapped_gradients
from tests.training.test_executors import Noisy, other_loss


def drawn(shape, classes, n=96, seed=0, tokens=False):
    g = torch.Generator().manual_seed(seed)
    if tokens:
        text = torch.randint(classes, (n, shape[0] + 1), generator=g)
        return Dataset(text[:, :-1].clone(), text[:, 1:].clone(), classes)
    return Dataset(
        torch.randn(n, *shape, generator=g), torch.randint(classes, (n,), generator=g), classes
    )


class Tied(nn.Module):
    """An embedding whose weights are those of the output, too."""

    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(9, 8), nn.Linear(8, 9)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(self.embedding(tokens).cumsum(1).tanh())


def gelu():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.GELU(), nn.LayerNorm(12), nn.Linear(12, 5)
    )


IMAGE, TEXT = (1, 8, 8), (7,)
NETS = {
    "cnn": (lambda: cnn((3, 12, 12), 5), drawn((3, 12, 12), 5)),
    "resnet": (lambda: resnet20((3, 8, 8), 5, width=8, groups=2), drawn((3, 8, 8), 5)),
    "gelu": (gelu, drawn(IMAGE, 5)),
    "lstm": (lambda: lstm(TEXT, 9, hidden=6, layers=2), drawn(TEXT, 9, tokens=True)),
    "transformer": (lambda: transformer(TEXT, 9, width=8, heads=2), drawn(TEXT, 9, tokens=True)),
    "adapters": (
        lambda: transformer(TEXT, 9, width=8, heads=2, lora=2),
        drawn(TEXT, 9, tokens=True),
    ),
    "tied": (Tied, drawn(TEXT, 9, tokens=True)),
}


def load_of(name, method):
    make, data = NETS[name]
    torch.manual_seed(3)
    return Workload(FlatModel(make()), cross_entropy, method, data)


def both(load, tasks, seed=0, broadcast=None):
    broadcast = broadcast or Broadcast(1, load.model.read())
    rows = []
    for kind in (Sequential, Vmapped):
        out = torch.full((len(tasks), load.model.d), 9.0)
        rows.append((out, kind(load).train(broadcast, tasks, out, Seeds(seed))))
    return rows


def cohort(sizes):
    return [Task(i, index) for i, index in enumerate(torch.arange(sum(sizes)).split(sizes))]


@pytest.mark.parametrize("name", NETS)
def test_a_network_trains_as_sequential_trains_it(name):
    method = LocalSGD(lr=0.1, plan=LocalPlan(4, epochs=2), weight_decay=0.01)
    load = load_of(name, method)
    (slow, expected), (fast, got) = both(load, cohort([12, 12, 9, 1, 7]))
    assert slow.norm(dim=1).min() > 1e-3
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5)
    assert [one.weight for one in got] == [one.weight for one in expected]
    assert [one.loss for one in got] == pytest.approx([one.loss for one in expected], rel=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        LocalSGD(lr=0.05, plan=LocalPlan(5), momentum=0.9, nesterov=True, weight_decay=0.1),
        LocalSGD(lr=0.05, plan=LocalPlan(5, steps=6), momentum=0.5, decay=0.5),
        FedProx(lr=0.1, prox=0.5, plan=LocalPlan(5, epochs=2)),
        FedNova(lr=0.1, momentum=0.5, plan=LocalPlan(5)),
        Scaffold(lr=0.1, plan=LocalPlan(5, epochs=2)),
    ],
    ids=lambda m: f"{type(m).__name__}-{m.momentum}",
)
def test_relatives_of_local_sgd_train_as_sequential_trains_them(method):
    load, tasks = load_of("cnn", method), cohort([12, 12, 9, 3])
    own = torch.linspace(-1, 1, load.model.d)
    aux = {"control": 0.1 * own} if isinstance(method, Scaffold) else {}
    if aux:
        tasks[1] = Task(1, tasks[1].index, ClientState({"control": 0.3 * own}))
    (slow, expected), (fast, got) = both(
        load, tasks, broadcast=Broadcast(1, load.model.read(), aux)
    )
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5)
    for a, b in zip(got, expected, strict=True):
        assert a.aux.keys() == b.aux.keys()
        assert all(torch.allclose(a.aux[name], b.aux[name], atol=1e-4) for name in a.aux)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    batch=st.integers(1, 16),
    steps=st.one_of(st.none(), st.integers(1, 4)),
    seed=st.integers(0, 1000),
)
def test_it_agrees_whatever_the_sizes(sizes, batch, steps, seed):
    data = drawn((6,), 3, n=max(sum(sizes), 2), seed=seed)  # of one sample nothing is tried
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.GroupNorm(2, 8), nn.Linear(8, 3))
    method = LocalSGD(lr=0.05, momentum=0.5, plan=LocalPlan(batch, epochs=2, steps=steps))
    load = Workload(FlatModel(net), cross_entropy, method, data)
    (slow, expected), (fast, got) = both(load, cohort(sizes), seed)
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5)
    assert [r.loss for r in got] == pytest.approx([r.loss for r in expected], rel=1e-3, abs=1e-5)


def test_tokens_that_the_loss_leaves_out_are_in_nobodys_mean():
    load = load_of("transformer", LocalSGD(lr=0.1, plan=LocalPlan(4)))
    load.data.y[::3, :4] = -100
    try:
        (slow, expected), (fast, got) = both(load, cohort([10, 7]))
    finally:
        load.data.y[:, :-1] = load.data.x[:, 1:]
        load.data.y[load.data.y < 0] = 0
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5)
    assert [one.loss for one in got] == pytest.approx([one.loss for one in expected], rel=1e-4)


class Centred(nn.Module):
    """Samples that see their batch's mean."""

    def forward(self, x):
        return x - x.mean(0)


class Looks(nn.Module):
    """What it computes hangs on a number, which nobody may look at while it is mapped."""

    def forward(self, x):
        return x if x.sum() > 0 else 2 * x


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3)), "random"),
        (lambda: nn.Sequential(nn.Linear(6, 4), Centred(), nn.Linear(4, 3)), "together"),
        (
            lambda: nn.Sequential(
                nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)
            ),
            "together",
        ),
        (lambda: nn.Sequential(nn.Linear(6, 4), Looks(), nn.Linear(4, 3)), "cannot be mapped"),
    ],
    ids=["dropout", "centred", "BatchNorm", "looks"],
)
def test_a_network_that_cannot_be_mapped_is_refused_and_left_as_it_was(net, says):
    model = FlatModel(net())
    before, model.grad[:] = model.read(), 3.0
    with pytest.raises(UnsupportedModel, match=says):
        Vmapped(Workload(model, cross_entropy, LocalSGD(), drawn((6,), 3)))
    assert torch.equal(model.flat, before)
    assert (model.grad == 3.0).all()


def test_what_needs_another_gradient_or_loss_is_refused():
    model, data = FlatModel(nn.Linear(6, 3)), drawn((6,), 3)
    for load, says in (
        (Workload(model, cross_entropy, LocalSGD(gradient=Noisy()), data), "gradient"),
        (Workload(model, other_loss, LocalSGD(), data), "only cross_entropy"),
        (
            Workload(model, cross_entropy, LocalSGD(), Dataset(data.x, torch.rand(96, 3), 3)),
            "soft labels",
        ),
    ):
        with pytest.raises(UnsupportedModel, match=says):
            Vmapped(load)
    batch = FlatModel(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    with pytest.raises(UnsupportedModel, match="WithStatistics"):
        Vmapped(Workload(batch, cross_entropy, LocalSGD(), data, "averaged"))


class Narrow:
    """Gradients of a device that has room for so many clients at a time."""

    def __init__(self, inner, most):
        self.inner, self.most, self.asked = inner, most, []

    def __call__(self, parameters, x, y, there):
        self.asked.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no room")
        return self.inner(parameters, x, y, there)


def test_fewer_clients_at_a_time_where_there_is_no_room_for_more():
    load, tasks = load_of("gelu", LocalSGD(lr=0.1, plan=LocalPlan(8))), cohort([8] * 7)
    broadcast = Broadcast(0, load.model.read())
    executor = Vmapped(load)
    narrow = executor.gradients = Narrow(executor.gradients, 3)
    out, plain = torch.empty(2, 7, load.model.d)
    done = executor.train(broadcast, tasks, out, Seeds(0))
    assert not any(isinstance(one, Failed) for one in done)
    assert narrow.asked == [7, 4, 2, 2, 2, 1]
    Sequential(load).train(broadcast, tasks, plain, Seeds(0))
    assert torch.allclose(out, plain, atol=2e-5)
    narrow.asked.clear()
    executor.train(broadcast, tasks, out, Seeds(0))
    assert narrow.asked == [2, 2, 2, 1]


def test_room_that_was_too_small_is_given_back_before_there_is_another():
    load, tasks = load_of("gelu", LocalSGD(lr=0.1, plan=LocalPlan(8))), cohort([8] * 7)
    executor, given = Vmapped(load), []
    narrow = executor.gradients = Narrow(executor.gradients, 3)
    room = executor._room

    def counted(group, together):
        assert not any(there() is not None for there in given)
        if together > 5:  # rows have no room either
            raise torch.OutOfMemoryError("no room")
        space = room(group, together)
        given.append(weakref.ref(space.rows))
        return space

    executor._room = counted
    out, plain = torch.empty(2, 7, load.model.d)
    broadcast = Broadcast(0, load.model.read())
    done = executor.train(broadcast, tasks, out, Seeds(0))
    assert not any(isinstance(one, Failed) for one in done)
    assert narrow.asked == [4, 2, 2, 2, 1]
    Sequential(load).train(broadcast, tasks, plain, Seeds(0))
    assert torch.allclose(out, plain, atol=2e-5)


def test_two_models_of_one_network_do_not_train_each_others_frozen_weights():
    torch.manual_seed(0)
    net, data = transformer(TEXT, 9, width=8, heads=2, lora=2), NETS["adapters"][1]
    method = LocalSGD(lr=0.1, plan=LocalPlan(4))
    first = Workload(FlatModel(net), cross_entropy, method, data)
    mapped = Vmapped(first)
    frozen = next(p for p in net.parameters() if not p.requires_grad)
    with torch.no_grad():
        frozen.data = frozen + 1  # another federation's
    FlatModel(net)
    tasks, broadcast = cohort([8, 8]), Broadcast(0, first.model.read())
    slow, fast = torch.empty(2, 2, first.model.d)
    mapped.train(broadcast, tasks, fast, Seeds(0))
    Sequential(first).train(broadcast, tasks, slow, Seeds(0))
    assert torch.allclose(fast, slow, atol=2e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "both_ways"), [(1, False), (3, False), (2, True)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("projected", [0, 3])
def test_an_lstm_written_out_is_the_fused_one(batch_first, layers, both_ways, bias, projected):
    torch.manual_seed(0)
    fused = nn.LSTM(
        4, 6, layers, bias=bias, batch_first=batch_first, bidirectional=both_ways,
        proj_size=projected,
    )  # fmt: skip
    x = torch.randn(3, 5, 4)
    ways, rows = layers * (1 + both_ways), 3 if batch_first else 5
    given = torch.randn(ways, rows, projected or 6), torch.randn(ways, rows, 6)
    alone = tuple(each[:, 0].contiguous() for each in given)
    for inputs in ((x,), (x, given), (x[0] if batch_first else x[:, 0], alone)):
        expected, ends = fused(*inputs)
        with written_out([fused]):
            got, last = fused(*inputs)
        for a, b in zip((got, *last), (expected, *ends), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert type(fused) is nn.LSTM


def test_an_lstm_that_draws_or_is_given_packed_sequences_is_refused():
    packed = nn.utils.rnn.pack_sequence([torch.zeros(2, 2), torch.zeros(1, 2)])
    for layer, x, says in (
        (nn.LSTM(2, 2, 2, dropout=0.5), torch.zeros(3, 1, 2), "random numbers"),
        (nn.LSTM(2, 2), packed, "packed"),
    ):
        with pytest.raises(UnsupportedModel, match=says), written_out([layer]):
            layer(x)
        assert type(layer) is nn.LSTM


def test_gradients_of_many_networks_are_those_of_each():
    torch.manual_seed(0)
    model = FlatModel(lstm(TEXT, 9, hidden=4))
    rows = torch.randn(3, model.d)
    text = torch.randint(9, (3, 5, 8))
    there = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    found, losses = mapped_gradients(model.module)(
        parts(model, rows), text[..., :-1], text[..., 1:], there
    )
    for k, n in enumerate((5, 3, 1)):
        model.write(rows[k])
        model.grad.zero_()
        logits = model.module(text[k, :n, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), text[k, :n, 1:].flatten())
        loss.backward()
        mine = torch.cat([found[slot.name][k].flatten() for slot in model.slots])
        assert torch.allclose(mine, model.grad, atol=1e-5)
        assert float(losses[k]) == pytest.approx(loss.item(), rel=1e-5)


def test_a_run_whose_clients_are_mapped_is_the_run_of_one_after_the_other():
    data = drawn((1, 8, 8), 4, n=80)
    torch.manual_seed(0)
    net = cnn((1, 8, 8), 4)

    def played(executor):
        clients = [data.take(range(i, 80, 4)) for i in range(4)]
        return Federation(
            copy.deepcopy(net), clients, data, rounds=2, training=LocalSGD(lr=0.1),
            executor=executor,
        ).run()  # fmt: skip

    one, other = played("vmapped"), played("sequential")
    assert one.state.executor.startswith("vmapped")
    assert torch.allclose(one.state.parameters, other.state.parameters, atol=2e-5)


def test_auto_never_maps_on_a_cpu_and_the_name_says_itself_again():
    load = load_of("cnn", LocalSGD(plan=LocalPlan(4)))
    clients = {task.client: task.index for task in cohort([8, 8])}
    chosen, why = executors(load, clients)
    assert not isinstance(chosen, Vmapped)
    assert "vmapped" not in why
    asked, why = executors(load, clients, "vmapped")
    assert isinstance(asked, Vmapped)
    assert isinstance(executors(load, clients, why)[0], Vmapped)
