"""Samples of people who have several: which of them take part, so that nobody has more than a
bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from privfl.core import ClientId, UserBounds


def within_bounds(
    clients: Mapping[ClientId, Tensor],
    users: Int[Tensor, " n"],
    bounds: UserBounds,
    seed: int = 0,
) -> dict[ClientId, Tensor]:
    """Each client's positions [n_i] of which at most so many are one user's, at at most so many
    clients, in their order; the rest is dropped. ``users`` says whose each sample is.

    Stability: one user more, less or with other samples changes which samples of that user are
    kept, and of nobody else, so that neighbours in what is given are neighbours in what is kept,
    with constant 1. Proof: whether a sample of user u is kept is a function of the seed, of u, of
    the numbers of the clients at which u is, and of its rank among u's own samples (client by
    client, in their order); none of these changes with another user's samples. Choices that fill a
    quota of samples or clients that several users share have no such constant, and neither has a
    choice by position in the whole data set, which moves when somebody leaves.

    Which of a user's clients and samples are kept is drawn by a hash, without regard to labels. The
    choice knows at which clients a user is: where clients do not trust anybody with that, data must
    be dealt out so that each user is at one client.

    >>> clients = {0: torch.tensor([0, 1, 2]), 1: torch.tensor([3, 4])}
    >>> kept = within_bounds(clients, torch.tensor([7, 7, 9, 7, 9]), UserBounds("who", 1))
    >>> sum(len(index) for index in kept.values())
    2
    """
    held: dict[int, dict[ClientId, list[int]]] = {}
    for client, index in clients.items():
        for place, user in enumerate(users[index.cpu()].tolist()):
            held.setdefault(user, {}).setdefault(client, []).append(place)
    kept: dict[ClientId, list[int]] = {client: [] for client in clients}
    for user, at in held.items():
        chosen = sorted(at, key=lambda client: _drawn(seed, user, "client", client))
        mine = [
            (client, place)
            for client in sorted(chosen[: bounds.max_clients_per_user])
            for place in at[client]
        ]
        order = sorted(range(len(mine)), key=lambda rank: _drawn(seed, user, "sample", rank))
        for rank in order[: bounds.max_records_per_user]:
            client, place = mine[rank]
            kept[client].append(place)
    return {
        client: index[torch.tensor(sorted(kept[client]), dtype=torch.int64)]
        for client, index in clients.items()
    }


def _drawn(seed: int, user: int, what: str, which: int) -> bytes:
    """A number that hangs on nothing else."""
    return hashlib.blake2b(f"{seed}/{user}/{what}/{which}".encode(), digest_size=16).digest()
