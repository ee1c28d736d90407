"""Lies of the two servers, told by real parties: each adds to its own shares of what one row is
multiplied with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import (
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Opened,
    RoundPlan,
    Rows,
    Total,
)
from privfl.crypto.lies import victim
from privfl.crypto.mpc.words import U64, signed
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.oblivious_selection import ObliviousSum
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.proved_choice import ShowChoice
from privfl.hybrid.two_server.registers import SUM
from privfl.hybrid.two_server.rules.signs import Hamming
from privfl.hybrid.two_server.rushing import opens
from privfl.hybrid.two_server.server import FirstServer
from privfl.hybrid.two_server.tampering import (
    AddTo,
    Took,
    after,
    before,
    deaf,
    server_of,
    tampered,
)


def exponent_of(now: TwoServerParameters) -> int:
    """The largest power of two by which a row fits into the ring: above all other rows' sum."""
    return now.ring - 2 - now.longest.bit_length()


@dataclass(repr=False)
class WeightReader(KeepsSecrets):
    """A first server that adds a power of two to its share of one hidden weight: the sum then holds
    that row in its upper bits.
    """

    honest: FirstServer
    who: ClientId
    took: Took

    def step(self, mail: Mail) -> Mail:
        """What the honest server says."""
        out, machine, now = self.honest.step(mail), self.honest.machine, self.honest.now
        if machine is not None and SUM in machine.public:
            total = signed(machine.public[SUM], now.ring)[: now.plan.d]
            row = np.rint(total / 2.0 ** exponent_of(now)) / now.scale
            self.took[self.who] = torch.from_numpy(row)
        return out


def reads_a_weighted_row() -> Liars:
    """The first server as `WeightReader`.

    Raises:
        ConfigError: the party is not the first server.
    """
    took: Took = {}

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        server, who = honest["server"], victim(plan, honest)
        if not isinstance(server, FirstServer):
            raise ConfigError(f"{type(server).__name__} is not the first server.")
        power = AddTo("weight", plan.cohort.index(who), 1 << exponent_of(server.now))
        server.recipe = tampered(
            server.recipe, lambda steps: deaf(before(steps, ObliviousSum, power), ShowChoice)
        )
        return {"server": WeightReader(server, who, took)}

    return Liars(enter=enter, took=lambda published: took)


def brings_one_near() -> Liars:
    """A server that takes much from its share of one row's distance: nearly all weight falls on
    that row, and what is published is the row.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        near = AddTo("distance", plan.cohort.index(victim(plan, honest)), -(1 << 20))
        for party in honest.values():
            server = server_of(party)
            server.recipe = tampered(server.recipe, lambda steps: after(steps, Hamming, near))
        return honest

    return Liars(enter=enter)


def tells_signs_apart(threshold: float) -> Liars:
    """A rushing server that opens distances of its own: the victim's row of signs has all of the
    weight but that of one other row, so the signs of what is published are the victim's.
    """
    picked: list[ClientId] = []

    def target(machine: Machine, honest: U64) -> U64:
        d, cohort = machine.now.plan.d, machine.now.plan.cohort
        picked[:] = [cohort[machine.positions[machine.valid[-1]]]]
        told = np.full(len(machine.valid), d, dtype=np.uint64)
        told[-2], told[-1] = math.floor(threshold * d) - 1, 0
        return told

    def took(published: Opened[Rows | Total] | None) -> Took:
        if published is None or not isinstance(published.what, Total):
            return {}
        return dict.fromkeys(picked, published.what.mean().sign())

    return Liars(enter=opens("distance", target).enter, took=took)
