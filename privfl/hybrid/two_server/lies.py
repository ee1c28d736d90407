"""Lies of the two servers and of the dealer, told by real parties: each adds to its own shares of
what becomes a weight, or decides what is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from privfl.core import (
    Buffer,
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Opened,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    Total,
    Vector,
)
from privfl.crypto.lies import victim
from privfl.crypto.primitives import fields as wire
from privfl.hybrid.two_server.checks import Ranges
from privfl.hybrid.two_server.dealer import Dealer
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import ObliviousSum
from privfl.hybrid.two_server.preprocessing import AND_ROWS, ONE, Demand, derived_words
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.ring_codec import signed
from privfl.hybrid.two_server.rounds import DEALT, HELD, MASKED, TwoServerParameters
from privfl.hybrid.two_server.rows import projected
from privfl.hybrid.two_server.sealing import (
    SEED_SIZE,
    coin_of,
    open_masked,
    seal_dealt,
    unseal_dealt,
)
from privfl.hybrid.two_server.servers import FirstServer, SecondServer
from privfl.hybrid.two_server.signs import Hamming

Took = dict[ClientId, Vector]
Server = FirstServer | SecondServer
Tamper = Callable[[Sequence[Step]], Sequence[Step]]
_STEPS = 3000


@dataclass(frozen=True, slots=True)
class TamperedRecipe(Recipe):
    """A recipe whose holder runs other steps than it says."""

    tamper: Tamper = tuple

    def program(self, now: TwoServerParameters, everyone: bool) -> tuple[Step, ...]:
        """The honest steps, tampered with."""
        return tuple(self.tamper(Recipe.program(self, now, everyone)))


def tampered(recipe: Recipe, tamper: Tamper) -> TamperedRecipe:
    """The same recipe with other steps."""
    return TamperedRecipe(
        recipe.kind,
        recipe.reveal,
        recipe.least,
        recipe.weighted,
        recipe.f,
        recipe.m,
        recipe.threshold,
        recipe.fixed,
        recipe.noisy,
        recipe.noise,
        recipe.source,
        tamper,
    )


def server_of(party: Party) -> Server:
    """One of the two servers.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(party, FirstServer | SecondServer):
        raise ConfigError(f"{type(party).__name__} is no server of two.")
    return party


# ---- margins: what the checks of one client say, at thresholds of the liar's choice


@dataclass(repr=False)
class ShiftMargins(KeepsSecrets):
    """A step after `Ranges`: the own share of one row's margins is shifted, so that each opened bit
    says on which side of a threshold one projection of the row lies.
    """

    at: int
    thresholds: np.ndarray

    def act(self, machine: Machine) -> None:
        """Shift them."""
        now, n = machine.now, machine.n
        offsets = np.stack([-now.reach - self.thresholds[0], self.thresholds[1] - now.reach])
        for half, offset in enumerate(offsets.astype(np.int64).view(np.uint64)):
            start = half * now.rows * n + self.at
            machine.shares["checked"][start : start + now.rows * n : n] += offset


@dataclass(repr=False)
class MarginReader(KeepsSecrets):
    """A server that reads a row off its norm check: two bits for each of its projections, which the
    joint coins make known.
    """

    honest: Server
    who: ClientId
    took: Took
    coin: bytes = b""
    thresholds: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, with its steps tampered with."""
        honest, now = self.honest, self.honest.now
        other = "server/1" if isinstance(honest, FirstServer) else "server"
        if not self.coin and other in mail:
            self._prepare(mail[other])
        out = honest.step(mail)
        machine = honest.machine
        if machine is not None and "failed" in machine.public and self.who not in self.took:
            place = machine.positions.index(now.plan.cohort.index(self.who))
            bits = machine.public["failed"].reshape(-1, machine.n)[:, place]
            below = np.stack([bits[: now.rows], bits[now.rows : 2 * now.rows]]).astype(bool)
            coins = projected(now, machine.n, self.coin).numpy().astype(np.float64)
            found = between(coins, self.thresholds, below, now.longest)
            self.took[self.who] = torch.from_numpy(found / now.scale)
        return out

    def _prepare(self, body: Buffer) -> None:
        honest, now = self.honest, self.honest.now
        if isinstance(honest, FirstServer):
            held, rest = wire.read_bit_set(now.read(body, HELD)[1], now.plan.n)
            members = held & honest.bodies.keys()
            self.coin = coin_of(now, honest.half, bytes(rest[:SEED_SIZE]))
        else:
            keys, content = now.read(body, MASKED)
            members, _, head, _ = open_masked(now, honest.identity, keys, content)
            self.coin = coin_of(now, head[:SEED_SIZE], honest.half or b"")
        draw = np.random.default_rng(0)
        self.thresholds = np.rint(draw.normal(0, 0.4, (2, now.rows)) * now.longest)
        at = sorted(members).index(now.plan.cohort.index(self.who))
        shift = ShiftMargins(at, self.thresholds)
        honest.recipe = tampered(honest.recipe, lambda steps: _after(steps, Ranges, shift))


def _after(steps: Sequence[Step], kind: type, inserted: Step) -> list[Step]:
    """These steps with one more after each of a kind."""
    out: list[Step] = []
    for step in steps:
        out += [step, inserted] if isinstance(step, kind) else [step]
    return out


def between(
    coins: np.ndarray, thresholds: np.ndarray, past: np.ndarray, longest: float
) -> np.ndarray:
    """A vector [d] of norm at most ``longest`` whose projections lie where the bits say: the first
    row of ``past`` tells that one is below its threshold, the second that it is above.

    The mean of all such vectors, sampled by hit-and-run (Smith 1984) from one that is found by
    projections onto violated half-spaces (Agmon 1954).
    """
    sides = np.concatenate([np.where(past[0], 1.0, -1.0), np.where(past[1], -1.0, 1.0)])
    planes = np.concatenate([coins, coins]) * sides[:, None]
    limits = np.concatenate([thresholds[0], thresholds[1]]) * sides
    norms = np.maximum((planes**2).sum(axis=1), 1.0)
    draw, total = np.random.default_rng(1), np.zeros(coins.shape[1])
    x = total.copy()
    for _ in range(_STEPS // 4):
        over = (planes @ x - limits) / np.sqrt(norms)
        worst = int(over.argmax())
        if over[worst] <= 0:
            break
        x -= planes[worst] * (1.1 * over[worst] / np.sqrt(norms[worst]))
        x *= min(1.0, longest / max(float(np.linalg.norm(x)), 1e-9))
    for _ in range(_STEPS):
        way = draw.normal(size=len(x))
        way /= np.linalg.norm(way)
        slopes, rooms = planes @ way, limits - planes @ x
        along, turn = float(x @ way), longest**2 - float(x @ x)
        reach = np.sqrt(max(along**2 + turn, 0.0))
        ahead, behind = slopes > 1e-9, slopes < -1e-9
        high = min((rooms[ahead] / slopes[ahead]).min(initial=np.inf), reach - along)
        low = max((rooms[behind] / slopes[behind]).max(initial=-np.inf), -reach - along)
        x = x + way * draw.uniform(low, high) if low < high else x
        total += x
    return total / _STEPS


def reads_margins() -> Liars:
    """One server as `MarginReader`."""
    took: Took = {}

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        who = victim(plan, honest)
        return {w: MarginReader(server_of(party), who, took) for w, party in honest.items()}

    return Liars(enter=enter, took=lambda published: took)


# ---- weights and distances: what one row is multiplied with


@dataclass(frozen=True, slots=True)
class AddTo:
    """A step that adds to the own share of one entry of a register."""

    what: str
    position: int
    amount: int

    def act(self, machine: Machine) -> None:
        """Add it."""
        place = machine.positions.index(self.position)
        register = machine.shares[self.what].copy()
        register[place : place + 1] += np.uint64(self.amount % (1 << 64))
        machine.shares[self.what] = register


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
        server.recipe = tampered(server.recipe, lambda steps: _before(steps, ObliviousSum, power))
        return {"server": WeightReader(server, who, took)}

    return Liars(enter=enter, took=lambda published: took)


def _before(steps: Sequence[Step], kind: type, inserted: Step) -> list[Step]:
    """These steps with one more before each of a kind."""
    out: list[Step] = []
    for step in steps:
        out += [inserted, step] if isinstance(step, kind) else [step]
    return out


def brings_one_near() -> Liars:
    """A server that takes much from its share of one row's distance: nearly all weight falls on
    that row, and what is published is the row.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        near = AddTo("distance", plan.cohort.index(victim(plan, honest)), -(1 << 20))
        for party in honest.values():
            server = server_of(party)
            server.recipe = tampered(server.recipe, lambda steps: _after(steps, Hamming, near))
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
