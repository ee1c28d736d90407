"""Lies of the two servers and of the dealer, told by real parties: each adds to its own shares of
what one row is multiplied with, or deals other words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
    PartyId,
    RoundPlan,
    Rows,
    Total,
)
from privfl.crypto.lies import victim
from privfl.crypto.mpc.preprocessing import ONE, Demand, derived_words
from privfl.crypto.mpc.words import U64, signed
from privfl.hybrid.two_server.dealer import Dealer
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.oblivious_selection import ObliviousSum
from privfl.hybrid.two_server.parameters import DEALT, TwoServerParameters
from privfl.hybrid.two_server.proved_choice import ShowChoice
from privfl.hybrid.two_server.registers import SUM
from privfl.hybrid.two_server.rules.signs import Hamming
from privfl.hybrid.two_server.rushing import opens
from privfl.hybrid.two_server.sealing import SEED_SIZE, seal_dealt, unseal_dealt
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


def _exponent(now: TwoServerParameters) -> int:
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
            row = np.rint(total / 2.0 ** _exponent(now)) / now.scale
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
        power = AddTo("weight", plan.cohort.index(who), 1 << _exponent(server.now))
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


# ---- the dealer


@dataclass(repr=False)
class DealsFalsely(KeepsSecrets):
    """A dealer that adds to words that it deals, so that a row seems too long, or weighs much."""

    honest: Dealer
    seeds: dict[PartyId, bytes] = field(default_factory=dict)
    n: int = 0

    def step(self, mail: Mail) -> Mail:
        """What the honest dealer says, some words changed."""
        honest, now = self.honest, self.honest.now
        for who in ("server", "server/1"):
            if who in mail and who not in self.seeds:
                members, seeds = honest.read_seeds(who, mail[who])
                self.seeds[who], self.n = seeds[:SEED_SIZE], len(members)
        out = dict(honest.step(mail))
        if "server/1" in out:
            own, sealed = self.seeds["server/1"], bytes(now.read(out["server/1"], DEALT)[1])
            words = bytearray(unseal_dealt(now, own, sealed))
            for at, size, amount in self._where():
                changed = int.from_bytes(words[at : at + size], "little") + amount
                words[at : at + size] = (changed % (1 << 8 * size)).to_bytes(size, "little")
            out["server/1"] = now.write(DEALT, 0, seal_dealt(now, own, bytes(words)))
        return out

    def _where(self) -> list[tuple[int, int, int]]:
        """Which bytes, how many, and what is added to them.

        A product of two rows makes them seem near, and Krum chooses them; the norm of a row makes
        it seem long. A hidden choice is a bit turned into a number by a dealt word, hidden trust a
        product by one. The first bits of rows of signs move their
        distances.
        """
        now, n, recipe = self.honest.now, self.n, self.honest.recipe
        demand = recipe.demand(now, n)
        products = 8 * (demand.ands + demand.bits)
        inner = products + 8 * demand.triples
        near = [(inner + 8 * at, 8, now.longest**2) for at in (1, n)] if now.gram else []
        if recipe.traits.proved:
            return [*near, *self._heavy(demand, 0, 1 << 8), *self._heavy(demand, 1, -(1 << 8))]
        if recipe.traits.hidden and recipe.rule.reveal == "aggregate":
            return [(products, 8, 1 << _exponent(now))]
        if now.signs:
            return [(8 * demand.dealt + 4 * now.plan.d * i, 4, 1) for i in range(n)]
        return near or [(inner + 8 * (demand.inner - 1), 8, 1 << (now.ring - 2))]

    def _heavy(self, demand: Demand, row: int, more: int) -> list[tuple[int, int, int]]:
        """What makes a chosen row weigh 1 + ``more``, and its authentication fit, for which the
        dealer knows the keys.

        The total counts the weight once, so its share takes off ``more``; that enters the row's own
        share 2 h - 1 times, which the square's makes good, and takes off w^2 - w. A number is added
        where the dealt bit is the choice, else subtracted.
        """
        words = {
            what: (self._words("server", what, first), self._words("server/1", what, second))
            for what, first, second in (
                ("bits", 2 * demand.bits, demand.bits),
                ("keys", demand.keys, demand.keys),
                ("weights", demand.weights, demand.weights),
            )
        }
        keys = (words["keys"][0] + words["keys"][1]).tolist()
        weights = (words["weights"][0] + words["weights"][1]).tolist()
        at, n = demand.bits - self.n if self.honest.now.gram else 0, demand.weights
        dealt = int((words["bits"][0][at + row] ^ words["bits"][1][at + row]) & ONE)
        w, start = 1 + more, 8 * (demand.dealt - demand.macs)
        twice = 2 * (w - weights[row]) - 1
        macs = [
            (start + 8 * ((half * demand.keys + k) * n + row), 8, key * amount)
            for k, key in enumerate(keys)
            for half, amount in ((0, -more), (1, more * twice - (w * w - w)))
        ]
        return [(8 * (demand.ands + at + row), 8, more if dealt else -more), *macs]

    def _words(self, who: PartyId, what: str, count: int) -> U64:
        return derived_words(self.seeds[who], what, count, self.honest.now.library)


def deals_falsely() -> Liars:
    """The dealer as `DealsFalsely`; under open weights of signs it reads what is published, but for
    the entry that its own words have spoilt.

    Raises:
        ConfigError: the party is no dealer.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        dealer = honest["dealer"]
        if not isinstance(dealer, Dealer):
            raise ConfigError(f"{type(dealer).__name__} is no dealer.")
        return {"dealer": DealsFalsely(dealer)}

    def took(published: Opened[Rows | Total] | None) -> Took:
        if published is None or not isinstance(published.what, Total):
            return {}
        if not published.what.weight > 0:
            return {}
        seen = published.what.mean().clone()
        seen[0] = 0.0
        return dict.fromkeys(published.survivors, seen)

    return Liars(enter=enter, took=took)
