"""How few honest clients of a sparse active round a lying server can have sum among themselves."""

import math
import random
from functools import partial

import numpy as np
import torch

from privfl.audit.protocol.islands import IslandServer
from privfl.core import Bounded, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import wire


class Spoke:
    """A party whose first words were heard before the round."""

    def __init__(self, party):
        self.party, self.first = party, party.step({})

    def step(self, mail):
        return self.party.step(mail) if mail else self.first


def together(drawn, t, size, tries=12_000):
    """So many clients of whom each drew t - 1 others of them, or None: simulated annealing over
    whom the server asks.
    """
    n, rng = len(drawn), random.Random(0)
    holds = np.zeros((n, n), dtype=int)
    for client, others in drawn.items():
        holds[client, list(others)] = 1
    inside = np.zeros(n, dtype=bool)
    inside[rng.sample(range(n), size)] = True
    here = holds[:, inside].sum(1)
    short = np.maximum(0, t - 1 - here[inside]).sum()
    for tried in range(tries):
        if not short:
            return [int(c) for c in np.flatnonzero(inside)]
        out, new = rng.choice(np.flatnonzero(inside)), rng.choice(np.flatnonzero(~inside))
        then = here - holds[:, out] + holds[:, new]
        inside[[out, new]] = False, True
        now = np.maximum(0, t - 1 - then[inside]).sum()
        if now <= short or rng.random() < math.exp((short - now) / (1.05 - tried / tries)):
            here, short = then, now
        else:
            inside[[out, new]] = True, False
    return None


def test_a_server_that_asks_only_clients_who_drew_each_other_sums_no_fewer_than_the_quorum():
    """It pads the sets that it tells with names that it never asked."""
    n, channel = 40, SecAgg(mode="active", graph=20, corrupt=0.0)
    plan = RoundPlan(0, tuple(range(n)), d=4, l2=1.0, session=b"together")
    everybody, now = Enrolled.fresh(channel, plan.cohort), channel.parameters(plan)
    parties = {
        client_party(c): Spoke(m.enter(plan, Bounded(c, torch.zeros(4), 1.0)))
        for c, m in everybody.clients.items()
    }
    drawn = {
        c: fields.read_some(
            wire.read(parties[client_party(c)].first["server"])[3][32 + 64 :], now.degree.k, n
        )[0]
        for c in plan.cohort
    }
    few = together(drawn, now.degree.t, math.ceil(n * now.degree.t / now.degree.shares) - 1)
    assert few is not None
    server = IslandServer.of(partial(everybody.server.enter, plan), [few], dict)
    drive(server, {client_party(c): parties[client_party(c)] for c in few})
    (opened,) = server.opened
    assert len(opened.survivors) == len(few)
    assert len(few) >= channel.fewest(n)
