"""Lies of the two servers and of the dealer, told by real parties: each adds to its own shares of
what one row is multiplied with, or deals other words.
"""

from __future__ import annotations

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
from privfl.hybrid.two_server.dealer import Dealer
from privfl.hybrid.two_server.oblivious_selection import ObliviousSum
from privfl.hybrid.two_server.parameters import DEALT, TwoServerParameters
from privfl.hybrid.two_server.preprocessing import AND_ROWS, ONE, Demand, derived_words
from privfl.hybrid.two_server.ring_codec import signed
from privfl.hybrid.two_server.sealing import SEED_SIZE, seal_dealt, unseal_dealt
from privfl.hybrid.two_server.server import FirstServer
from privfl.hybrid.two_server.signs import Hamming
from privfl.hybrid.two_server.tampering import AddTo, Took, after, before, server_of, tampered


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
        if machine is not None and "sum" in machine.public:
            total = signed(machine.public["sum"], now.ring)[: now.plan.d]
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
        server.recipe = tampered(server.recipe, lambda steps: before(steps, ObliviousSum, power))
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
        it seem long. A hidden weight is a bit turned into a number by a dealt word. The first bit
        of some rows of signs moves their distances, each down half of the time.
        """
        now, n, recipe = self.honest.now, self.n, self.honest.recipe
        demand = recipe.demand(now, n)
        end = 8 * (demand.dealt - demand.vector)
        first = end - 8 * demand.inner
        near = [(first + 8 * at, 8, now.longest**2) for at in (1, n)] if now.gram else []
        if recipe.hidden:
            place = demand.bits - n if now.gram else 0
            return [*near, (8 * (AND_ROWS * demand.signs + place + self._row(demand)), 8, 1 << 8)]
        if now.signs:
            rows = range(min(n, 5))
            return [(8 * demand.dealt + 4 * now.plan.d * i, 4, 1 << (7 + 5 * i)) for i in rows]
        return near or [(end - 8, 8, 1 << (now.ring - 2))]

    def _row(self, demand: Demand) -> int:
        """A row whose dealt bit is what its choice will be, so that what is added stays positive:
        the two near ones are chosen under Krum, all under other rules.
        """
        now, n = self.honest.now, self.n
        one, two = (
            derived_words(self.seeds[who], "bits", count, now.library)[: demand.bits]
            for who, count in (("server", 2 * demand.bits), ("server/1", demand.bits))
        )
        dealt = ((one ^ two) & ONE)[demand.bits - n if now.gram else 0 :][:n]
        chosen = np.array([not now.gram or i in (0, 1) for i in range(n)])
        return int((dealt == chosen).argmax())


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
