"""Lies of one server that need no client: what it opens is what it likes, and rows or seeds are not
what clients sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from privfl.core import Cast, KeepsSecrets, Liars, Mail, Party, RoundPlan, client_of
from privfl.crypto.mpc.operations import Open
from privfl.crypto.mpc.words import U64, pack, unpack
from privfl.crypto.primitives import fields, seal_to
from privfl.hybrid.two_server.checks import CHECKED, Ranges, Refuse
from privfl.hybrid.two_server.forged import Forge, ForgesFrames
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import DEAL, TwoServerParameters
from privfl.hybrid.two_server.public_sum import PublicSum
from privfl.hybrid.two_server.sealing import SEED_SIZE
from privfl.hybrid.two_server.second_server import SecondServer
from privfl.hybrid.two_server.server import FirstServer
from privfl.hybrid.two_server.tampering import after, careless, server_of, tampered

Target = Callable[[Machine, U64], U64]
"""What a register is to open as, from the own machine and from what it would honestly open as."""


def forges(forge: Forge) -> Liars:
    """One server as `ForgesFrames`; clients that collude with it follow the protocol."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {
            who: party if client_of(who) is not None else ForgesFrames(server_of(party), forge)
            for who, party in honest.items()
        }

    return Liars(enter=enter)


def opens(what: str, target: Target) -> Liars:
    """A rushing server: it hears the other's share of a register, and sends what makes the register
    open as it likes.
    """

    def forge(
        step: Step, machine: Machine, mine: bytes, theirs: bytes | None
    ) -> tuple[bytes, bytes | None]:
        if not isinstance(step, Open) or step.what.name != what or theirs is None:
            return mine, theirs
        ring = machine.now.ring
        size = len(mine) // (ring // 8)
        own, other = unpack(mine, ring, size), unpack(theirs, ring, size)
        wanted = target(machine, own + other)
        return pack(wanted - other, ring), pack(wanted - own, ring)

    return forges(forge)


def chooses(places: Collection[int]) -> Liars:
    """A rushing server that opens a selection of its own: these places of the cohort."""

    def target(machine: Machine, honest: U64) -> U64:
        picked = [machine.positions[i] in places for i in machine.valid]
        return np.array(picked, dtype=np.uint64)

    return opens("chosen", target)


def chooses_others(count: int) -> Liars:
    """A rushing server that opens a selection of its own of so many rows: those first that the rule
    did not choose.
    """

    def target(machine: Machine, honest: U64) -> U64:
        chosen = honest & np.uint64((1 << machine.now.ring) - 1)
        picked = np.zeros(len(machine.valid), dtype=np.uint64)
        picked[np.argsort(chosen[: len(picked)], kind="stable")[:count]] = 1
        return picked

    return opens("chosen", target)


def chooses_with_friends(count: int) -> Liars:
    """A rushing server that opens a selection of its own of so many rows: those of clients that
    collude with it, which it takes from the sum, then those that the rule did not choose.
    """
    friends: set[int] = set()

    def target(machine: Machine, honest: U64) -> U64:
        chosen = honest & np.uint64((1 << machine.now.ring) - 1)
        others = np.array([machine.positions[i] not in friends for i in machine.valid])
        picked = np.zeros(len(others), dtype=np.uint64)
        picked[np.argsort(others + chosen[: len(others)] * others, kind="stable")[:count]] = 1
        return picked

    lying = opens("chosen", target)

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        clients = {c for c in map(client_of, honest) if c is not None}
        friends.update(plan.cohort.index(c) for c in clients)
        return lying.enter(plan, honest)

    return Liars(enter=enter)


def forges_scores(dots: Sequence[int], norms: Sequence[int]) -> Liars:
    """A rushing server that opens products and squared norms of its own, row by row."""

    def target(machine: Machine, honest: U64) -> U64:
        told = np.array([*dots, *norms], dtype=object) % (1 << 64)
        return told.astype(np.uint64)

    return opens("scores", target)


def forges_trust() -> Liars:
    """A rushing server that opens scores by which the victim has all of the trust and another row
    next to nothing, so that both can be read from their sum.
    """

    def target(machine: Machine, honest: U64) -> U64:
        now, v = machine.now, len(machine.valid)
        square = 0 if machine.direction is None else machine.direction.square
        norm = now.longest**2
        most = math.isqrt(norm * square)
        dots = [-1] * (v - 2) + [most // now.fine + 1, most]
        told = np.array([*dots, *[norm] * v], dtype=object) % (1 << 64)
        return told.astype(np.uint64)

    return opens("scores", target)


@dataclass(frozen=True, slots=True)
class ShiftMargins:
    """A step after `Ranges`: all margins of one row are shifted by as much as no margin has."""

    position: int

    def act(self, machine: Machine) -> None:
        """Shift the own share."""
        place = machine.positions.index(self.position)
        machine.shares[CHECKED][:, place] -= np.uint64(1 << (machine.now.ring - 2))


def shifts_margins() -> Liars:
    """A server by which the first client fails its norm check."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        shift = ShiftMargins(0)
        for party in honest.values():
            server = server_of(party)
            server.recipe = tampered(server.recipe, lambda steps: after(steps, Ranges, shift))
        return honest

    return Liars(enter=enter)


@dataclass(repr=False)
class SpoilsRows(KeepsSecrets):
    """A first server that adds to entries of the masked rows that clients sent it."""

    honest: FirstServer
    amounts: dict[int, tuple[int, int]]

    def step(self, mail: Mail) -> Mail:
        """What the honest server makes of the changed rows."""
        now, honest = self.honest.now, self.honest
        out = honest.step({who: body for who, body in mail.items() if who != "server/1"})
        if honest.bodies and honest.machine is None:
            for place, (entry, amount) in self.amounts.items():
                if place in honest.bodies:
                    honest.bodies[place] = _moved(
                        now, honest.bodies[place].tobytes(), entry, amount
                    )
            self.amounts = {}
        rest = {who: body for who, body in mail.items() if who == "server/1"}
        return {**out, **honest.step(rest)} if rest else out


def _moved(
    now: TwoServerParameters, body: bytes, entry: int, amount: int
) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    words = unpack(body, now.ring, now.length)
    words[entry : entry + 1] += np.uint64(amount % (1 << 64))
    return np.frombuffer(pack(words, now.ring), dtype=np.uint8)


def _sums_anything(steps: Sequence[Step]) -> Sequence[Step]:
    return [
        PublicSum(0) if isinstance(step, PublicSum) else step for step in careless(steps, Refuse)
    ]


def spoils_rows(amounts: dict[int, tuple[int, int]]) -> Liars:
    """The first server as `SpoilsRows`: by place which entry, and what is added to it."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        made: dict[str, Party] = {}
        for who, party in honest.items():
            server = server_of(party)
            server.recipe = tampered(server.recipe, _sums_anything)
            made[who] = (
                SpoilsRows(server, dict(amounts)) if isinstance(server, FirstServer) else party
            )
        return made

    return Liars(enter=enter)


@dataclass(repr=False)
class NamesWrongSeeds(KeepsSecrets):
    """A second server that tells the dealer other seeds than some clients sent."""

    honest: SecondServer
    places: Collection[int]

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, with another letter to the dealer."""
        honest, now = self.honest, self.honest.now
        seeds = dict(honest.seeds)
        out = dict(honest.step(mail))
        if "dealer" in out:
            named = b"".join(
                bytes(SEED_SIZE) if place in self.places else seeds[place]
                for place in honest.positions
            )
            sealed = seal_to(
                honest.dealer, honest.own + named, now.bound_to("deal", "server/1"), now.library
            )
            members = fields.bit_set(honest.positions, now.plan.n)
            out["dealer"] = now.write(DEAL, 1, members, sealed)
        return out


def names_wrong_seeds(places: Collection[int]) -> Liars:
    """The second server as `NamesWrongSeeds`."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        made: dict[str, Party] = {}
        for who, party in honest.items():
            server = server_of(party)
            made[who] = (
                NamesWrongSeeds(server, places) if isinstance(server, SecondServer) else party
            )
        return made

    return Liars(enter=enter)
