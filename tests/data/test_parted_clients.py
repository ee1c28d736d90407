"""A federation of clients that part a data set between them holds its samples where they lie."""

import copy
import pickle
from dataclasses import replace

import torch

from privfl.core import Dataset
from privfl.federation.clients import joined

PARTS = {3: [4, 0], 5: [1], 8: [3, 2, 5]}


def whole():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, 3, generator=rng)
    return Dataset(x, torch.tensor([0, 1, 2, 0, 1, 2]), 3, {"who": torch.arange(6)})


def takes(data, parts=None):
    return {client: data.take(part) for client, part in (parts or PARTS).items()}


def copied(held):
    """The same clients, of whom nobody knows where their samples were taken from."""
    return {client: copy.deepcopy(data) for client, data in held.items()}


def same_clients(one, other):
    """Whether clients have the same samples, in the same order."""
    (data, places), (there, theirs) = one, other
    return places.keys() == theirs.keys() and all(
        torch.equal(data.x[places[c]], there.x[theirs[c]])
        and torch.equal(data.y[places[c]], there.y[theirs[c]])
        and torch.equal(data.attributes["who"][places[c]], there.attributes["who"][theirs[c]])
        for c in places
    )


def test_clients_that_part_a_data_set_are_joined_without_a_copy():
    data = whole()
    held = takes(data)
    together = joined(held)
    assert together[0] is data
    assert {client: at.tolist() for client, at in together[1].items()} == PARTS
    apart = joined(copied(held))
    assert apart[0].x.data_ptr() != data.x.data_ptr()
    assert same_clients(together, apart)


def test_whatever_else_clients_hold_is_copied_as_it_is():
    data, other = whole(), whole()
    changed = takes(data)
    changed[5].x[0, 0, 0] += 1  # a client's own samples, after they were taken
    relabelled = takes(data)
    relabelled[8].y[2] = 0
    elsewhere = {**takes(data), 8: other.take(PARTS[8])}
    replaced = {**takes(data), 5: replace(takes(data)[5], x=torch.ones(1, 2, 3))}
    for held in (
        changed,
        relabelled,
        elsewhere,
        replaced,
        takes(data, {0: [0, 1], 1: [2, 3, 4]}),  # nobody has the last one
        takes(data, {0: [0, 1, 2], 1: [2, 3, 4]}),
        takes(data, {0: [0, 1, 2], 1: [2, 3, 4, 5]}),
        takes(data, {0: [0, 1, 2, 3, 4], 1: [-1]}),
    ):
        together = joined(held)
        assert together[0] is not data
        assert same_clients(together, joined(copied(held)))


def test_a_change_of_the_data_set_before_they_are_joined_is_no_change_of_its_clients():
    data = whole()
    held = takes(data)
    before = copied(held)
    data.x[0] += 1
    assert same_clients(joined(held), joined(before))


def test_where_samples_were_taken_from_is_forgotten_with_it_and_in_copies():
    data = whole()
    part = data.take([2, 0])
    assert part.origin is not None
    assert part.origin[0] is data
    for other in (pickle.loads(pickle.dumps(part)), copy.deepcopy(part), replace(part), data):
        assert other.origin is None
    del data, other
    assert part.origin is None
