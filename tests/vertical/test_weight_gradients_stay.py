"""CAFE (Jin et al. 2021) reads the gradients of a host's weights: none are sent. What a guest has
in their place, and what it makes of it when it lies, or knows a run's seed.
"""

import torch
from torch import nn

from privfl.core import Faults, Seeds
from privfl.data import dealt_columns
from privfl.vertical import (
    GUEST,
    VerticalMLP,
    VerticalTraining,
    by_decoder,
    by_matching,
    mean_loss,
    train_vertically,
)
from privfl.vertical.message import closed, opened
from privfl.vertical.sample_inference import explained
from privfl.vertical.training import batches
from privfl.vertical.view import by_sample

NAMES = tuple("abcdefgh")
HOST = "host/0"


def table(n, hosts=None):
    coins = torch.Generator().manual_seed(0)
    x = torch.randn(n, len(NAMES), generator=coins)
    y = (x @ torch.randn(len(NAMES), generator=coins) > 0).long()
    return dealt_columns(x, NAMES, hosts or {HOST: list("abcd")}, GUEST), y


def test_a_host_sends_the_activations_of_a_batch_and_no_byte_more():
    """Every letter of every host is what one owner of all columns computes at its cut, bit for
    bit: who reads it all reads no gradient of a weight, and no weight.
    """
    hosts = {HOST: list("abcd"), "host/1": ["e"]}
    holdings, y = table(60, hosts)
    model = VerticalMLP(cut=3, hidden=4)
    training = VerticalTraining(optimizer="sgd", lr=0.5, epochs=2, batch_size=16)
    run = train_vertically(holdings, y, 2, model, training, seed=5)
    seeds = Seeds(5)
    columns = {party: held.x.shape[1] for party, held in holdings.items()}
    whole = model(columns, 2, seed=seeds.derive("vertical weights") % (1 << 32))
    modules = [*whole.bottoms.values(), whole.top]
    optimiser = training.optimiser([p for module in modules for p in module.parameters()])
    dealt = list(batches(60, training, seeds))
    assert len(run.played) == len(dealt) == 8
    for one, (_, batch) in zip(run.played, dealt, strict=True):
        parts = {party: held.x[batch.rows] for party, held in holdings.items()}
        assert one.came(GUEST) == {
            host: closed(batch, "activations", whole.bottoms[host](parts[host])) for host in hosts
        }
        assert all(one.came(host).keys() == {GUEST} for host in hosts), "hosts write to no host"
        optimiser.zero_grad()
        torch.autograd.backward([mean_loss(whole.logits(parts), y[batch.rows])])
        optimiser.step()


class Lies:
    """A guest that answers its first batch with gradients by which the host's weights become
    ``wanted``, and trains nothing: it knows the first rows of the host's, and uses of them, for
    each unit, those for which the unit is on.
    """

    def __init__(self, party, known, wanted, lr):
        self.party, self.known, self.wanted, self.lr = party, known, wanted, lr

    def step(self, mail):
        batch, rows = self.party._batch, len(self.known)
        if not self.party.step(mail):
            return {}
        places = batch.rows.argsort()[:rows]
        on = opened(batch, "activations", self.wanted.shape[1], mail[HOST])[places] > 0
        gradients = torch.zeros(len(batch.rows), self.wanted.shape[1])
        for unit in range(self.wanted.shape[1]):
            use = on[:, unit]
            towards = torch.linalg.pinv(self.known[use].T) @ self.wanted[:, unit]
            gradients[places[use], unit] = -towards / self.lr
        return {HOST: closed(batch, "gradients", gradients if batch.number == 0 else 0 * gradients)}


def test_a_guest_that_lies_writes_the_weights_that_show_it_columns():
    """It knows 40 rows of the host's, and by the gradients of these alone, under SGD, makes the
    host's layer a window: in the next epoch each activation IS a column, for all rows.
    """
    holdings, y = table(200)
    truth, known = holdings[HOST].x, torch.arange(40)
    training = VerticalTraining(optimizer="sgd", lr=0.1, epochs=2, batch_size=200)
    told = torch.cat([truth[known], torch.ones(40, 1)], dim=1)  # columns and the bias
    wanted = 1e3 * torch.cat([torch.eye(4), torch.full((1, 4), 5.0)])  # 1000 x + 5000, so on
    model = VerticalMLP(cut=4)
    lies = Faults(byzantine={GUEST: lambda party: Lies(party, told, wanted, training.lr)})
    view = train_vertically(holdings, y, 2, model, training, faults=lies).guest_view(HOST)
    rows, seen = by_sample(view.activations, view.rows, view.epochs)
    read = seen[:, 1] / 1e3 - 5
    assert explained(read[40:], truth[rows][40:]) > 0.99

    honest = train_vertically(holdings, y, 2, model, training).guest_view(HOST)
    _, seen = by_sample(honest.activations, honest.rows, honest.epochs)
    blind = by_decoder(seen.flatten(1), known, truth[known])
    assert explained(blind[40:], truth[40:]) < 0.6, "the same rows and an honest guest"


def test_who_knows_the_seed_knows_the_first_weights_and_inverts_the_first_batch():
    holdings, y = table(200)
    model = VerticalMLP(cut=24)
    training = VerticalTraining(epochs=1, batch_size=50)
    view = train_vertically(holdings, y, 2, model, training, seed=7).guest_view(HOST)
    found = []
    for seed in (7, 8):
        drawn = model({HOST: 4, GUEST: 4}, 2, seed=Seeds(seed).derive("vertical weights") % 2**32)
        bottom: nn.Module = drawn.bottoms[HOST]
        guess = by_matching(view.activations[:50], bottom, 4)
        found.append(explained(guess, holdings[HOST].x[view.rows[:50]]))
    assert found[0] > 0.95
    assert found[1] < 0.3
