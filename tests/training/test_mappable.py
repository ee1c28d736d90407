"""What is asked of a network before it is mapped over clients: each refusal keeps wrong results
away, and what is not refused trains as one client after the other.
"""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from privfl.core import Broadcast, Dataset, FlatModel, LocalPlan, Seeds, UnsupportedModel
from privfl.training import Failed, LocalSGD, Sequential, Task, Vmapped, Workload, cross_entropy

PLAN = LocalPlan(4, epochs=2)


def drawn(n=40):
    g = torch.Generator().manual_seed(0)
    return Dataset(torch.randn(n, 6, generator=g), torch.randint(3, (n,), generator=g), 3)


def with_first(x=None, y=None):
    """The same samples but for the first three."""
    data = drawn()
    if x is not None:
        data.x[:3] = x
    if y is not None:
        data.y[:3] = y
    return data


def words(most):
    g = torch.Generator().manual_seed(0)
    return Dataset(torch.randint(most, (40, 6), generator=g), torch.arange(40) % 3, 3)


def load_of(net, data=None, plan=PLAN):
    torch.manual_seed(0)
    method = LocalSGD(lr=0.1, plan=plan)
    return Workload(FlatModel(net()), cross_entropy, method, drawn() if data is None else data)


def refused(load):
    with pytest.raises(UnsupportedModel) as why:
        Vmapped(load)
    return str(why.value)


def both(load, sizes=(12, 9, 4, 1, 7)):
    """Rows and what failed, of one after the other and mapped; ``load`` is mapped first."""
    tasks = [Task(i, index) for i, index in enumerate(torch.arange(sum(sizes)).split(list(sizes)))]
    sent, rows = Broadcast(1, load.model.read()), []
    for executor in (Vmapped(load), Sequential(load)):
        out = torch.full((len(tasks), load.model.d), 9.0)
        done = executor.train(sent, tasks, out, Seeds(0))
        rows.append((out, [one.client for one in done if isinstance(one, Failed)]))
    return rows


def mlp(*between):
    return nn.Sequential(nn.Linear(6, 4), *between, nn.Linear(4, 3))


class Centred(nn.Module):
    """Samples that see their batch's mean, where it has so many samples."""

    def __init__(self, at_least=1):
        super().__init__()
        self.at_least = at_least

    def forward(self, x):
        return x - x.mean(0) if len(x) >= self.at_least else x


def of_zeros():
    net = mlp(nn.Sigmoid(), Centred())
    for p in net.parameters():
        nn.init.zeros_(p)
    return net


@pytest.mark.parametrize(
    ("net", "data"),
    [
        (lambda: mlp(Centred()), with_first(x=0.0)),
        (lambda: mlp(Centred()), with_first(x=1.5)),
        (lambda: mlp(Centred(at_least=4)), drawn()),
        (of_zeros, drawn()),
    ],
    ids=["zeros first", "alike first", "of four or more", "a network of zeros"],
)
def test_samples_that_are_read_together_are_seen_whatever_comes_first(net, data):
    assert "together" in refused(load_of(net, data))


@pytest.mark.parametrize(
    "data",
    [with_first(x=torch.nan), with_first(y=-100), with_first(y=7), with_first(y=-1)],
    ids=["not a number", "no label", "label out of range", "negative label"],
)
def test_what_is_wrong_with_first_samples_is_their_owners_alone(data):
    (fast, fell), (slow, expected) = both(load_of(lambda: mlp(nn.Tanh()), data))
    assert fell == expected
    assert not slow[1:].isnan().any()
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize(
    "data",
    [Dataset(torch.zeros(9, 6), torch.zeros(9).long(), 3), drawn().take([0]), drawn().take([])],
    ids=["alike", "one", "none"],
)
def test_a_network_that_cannot_be_tried_is_refused(data):
    assert "cannot be tried" in refused(load_of(mlp, data))


def test_one_sample_is_enough_where_batches_hold_one():
    Vmapped(load_of(mlp, drawn().take([0]), LocalPlan(1)))


def clamped(kind):
    net = nn.Linear(6, 3)
    if kind == "hook":
        net.weight.register_hook(lambda slope: slope.clamp(-0.1, 0.1))
    else:
        net.weight.register_post_accumulate_grad_hook(lambda p: p.grad.clamp_(-0.1, 0.1))
    return net


@pytest.mark.parametrize("kind", ["hook", "hook after"])
def test_gradients_that_a_hook_changes_are_refused_though_small_ones_pass_it(kind):
    small = Dataset(1e-3 * drawn().x, drawn().y, 3)
    assert "hook changes the gradient of its parameter 'weight'" in refused(
        load_of(lambda: clamped(kind), small)
    )


@pytest.mark.parametrize("setting", [{"scale_grad_by_freq": True}, {"max_norm": 50.0}])
def test_embeddings_that_hang_on_the_company_are_refused(setting):
    def net():
        return nn.Sequential(nn.Embedding(500, 4, **setting), nn.Flatten(), nn.Linear(24, 3))

    assert f"layer '0' c{'ounts' if 'scale_grad_by_freq' in setting else 'hanges'}" in refused(
        load_of(net, words(500))
    )


class Writes(nn.Module):
    """It keeps something of what it computed, in one way or another."""

    def __init__(self, way):
        super().__init__()
        self.way, self.seen, self.layer = way, 0, nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.way == "count":
            self.seen += 1
            return self.layer(x) * (1 + 1e-4 * self.seen)
        if self.way == "new buffer":
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        elif self.way == "buffer":
            self.mean.mul_(0.9)
        else:
            self.last = x
        return self.layer(x - self.mean)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("count", "'seen'"),
        ("new buffer", "'mean'"),
        ("buffer", "cannot be mapped"),
        ("another", "'last'"),
    ],
)
def test_a_network_that_writes_into_itself_is_refused_and_is_as_it_was(way, says):
    load = load_of(lambda: Writes(way))
    net = load.model.module
    net.mean.fill_(0.5)
    mean, before = net.mean, dict(vars(net))
    assert says in refused(load)
    assert vars(net).keys() == before.keys()
    assert net.seen == 0
    assert net.mean is mean
    assert (mean == 0.5).all()
    net(drawn().x)  # computes as ever


def test_a_network_that_fails_with_one_sample_is_not_helped_out_by_company():
    class Squeezes(nn.Linear):
        def forward(self, x):
            return super().forward(x).squeeze()

    assert "cannot be mapped" in refused(load_of(lambda: Squeezes(6, 3)))


class Recurrent(nn.Module):
    """The last state of a recurrent layer, read in both directions by one set of weights."""

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.one = kind(1, 5, batch_first=True)
        self.other, self.last = self.one, nn.Linear(5, 3)
        self.lock = threading.Lock()  # which cannot be copied

    def forward(self, x):
        x = x.unsqueeze(2)
        self.one.flatten_parameters()
        start = x.new_zeros(self.one.num_layers, len(x), self.one.hidden_size)
        given = (start, start) if isinstance(self.one, nn.LSTM) else start
        return self.last((self.one(x, given)[0] + self.other(x.flip(1))[0])[:, -1])


def hooked():
    net = Recurrent()
    net.one.register_forward_hook(lambda layer, given, made: (made[0].clamp(max=0.05), made[1]))
    return net


class Shared(nn.Module):
    """A layer under two names, whose weights another layer has, too."""

    def __init__(self):
        super().__init__()
        self.one, self.tied, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.other = self.one
        self.tied.weight = self.one.weight

    def forward(self, x):
        return self.last(self.one(x).tanh() + self.other(x.flip(1)) + self.tied(x))


@pytest.mark.parametrize("net", [Recurrent, lambda: Recurrent(nn.GRU), hooked, Shared])
def test_layers_under_two_names_with_hooks_or_locks_train_as_alone_and_stay_themselves(net):
    data = drawn()
    data.y[15] = 7  # whose owner's block is trained one by one
    load = load_of(net, data)
    places = [dict(layer._parameters) for layer in load.model.module.modules()]
    (fast, fell), (slow, expected) = both(load)
    assert fell == expected == [1]
    assert torch.allclose(fast, slow, rtol=0, atol=2e-5, equal_nan=True)
    for layer, held in zip(load.model.module.modules(), places, strict=True):
        assert all(layer._parameters[name] is p for name, p in held.items())
        assert type(layer).__name__ != "WrittenLSTM"


class Doubled(nn.LSTM):
    """Some states are twice as large."""

    def forward(self, x, given=None):
        states, ends = super().forward(x, given)
        return torch.where(states > 0.9, 2 * states, states), ends


def normed():
    net = Recurrent()
    parametrizations.weight_norm(net.one, "weight_hh_l0")
    return net


@pytest.mark.parametrize("net", [lambda: Recurrent(Doubled), normed])
def test_recurrent_layers_of_ones_own_are_refused_in_a_sentence(net):
    said = refused(load_of(net))
    assert said.startswith("this network cannot be mapped")
