"""Which samples of people who have too many are kept: a choice that looks at nobody else."""

import numpy as np
import pytest
import torch

from privfl.core import UserBounds
from privfl.data import within_bounds


def dealt(rng, records=400, persons=30, clients=5):
    ids = torch.from_numpy(rng.integers(0, persons, records))
    owner = torch.from_numpy(rng.integers(0, clients, records))
    return ids, {c: torch.nonzero(owner == c).flatten() for c in range(clients)}


@pytest.mark.parametrize("bounds", [(4, 1), (6, 2), (None, 1), (1, 5)])
def test_what_is_kept_of_others_does_not_change_with_a_user(bounds):
    rng, bounds = np.random.default_rng(1), UserBounds("who", *bounds)
    ids, clients = dealt(rng)
    kept = within_bounds(clients, ids, bounds, seed=3)
    for gone in (0, 7, 29):
        without = {c: index[ids[index] != gone] for c, index in clients.items()}
        other = within_bounds(without, ids, bounds, seed=3)
        for client, index in kept.items():
            assert index[ids[index] != gone].tolist() == other[client].tolist()
    # nor where the data lie elsewhere, as they do once somebody has left the whole data set
    stays = torch.nonzero(ids != 7).flatten()
    place = {int(old): new for new, old in enumerate(stays)}
    packed = {
        c: torch.tensor([place[int(i)] for i in index if int(i) in place])
        for c, index in clients.items()
    }
    moved = within_bounds(packed, ids[stays], bounds, seed=3)
    for client, index in kept.items():
        assert stays[moved[client]].tolist() == index[ids[index] != 7].tolist()


def test_nobody_has_more_than_the_bounds_and_nobody_within_them_loses_anything():
    ids, clients = dealt(np.random.default_rng(2))
    bounds = UserBounds("who", max_records_per_user=5, max_clients_per_user=2)
    kept = within_bounds(clients, ids, bounds)
    for user in range(30):
        at = {c: int((ids[index] == user).sum()) for c, index in kept.items()}
        assert sum(at.values()) <= 5
        assert sum(count > 0 for count in at.values()) <= 2
    loose = UserBounds("who", max_records_per_user=400, max_clients_per_user=5)
    same = within_bounds(clients, ids, loose)
    assert all(same[c].tolist() == index.tolist() for c, index in clients.items())
