"""Lies where clients fix their rows, told by real parties: in what is announced and opened, about
rows and seeds, by clients about norms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from privfl.core import (
    Cast,
    Coalition,
    ConfigError,
    KeepsSecrets,
    Liars,
    Lie,
    Mail,
    Party,
    PartyId,
    RoundPlan,
)
from privfl.crypto import lies
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.operations import OpenToFirst
from privfl.crypto.mpc.words import pack, packed_size, unpack
from privfl.hybrid.two_server.dealer_guarantee import lies_of_dealer
from privfl.hybrid.two_server.dealer_lies import LONGER
from privfl.hybrid.two_server.fixed_checks import Announce
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.malicious.client import FixedClientParty
from privfl.hybrid.two_server.malicious.dealer import FixedDealer
from privfl.hybrid.two_server.malicious.second_server import FixedSecondServer
from privfl.hybrid.two_server.malicious.server import FixedFirstServer
from privfl.hybrid.two_server.parameters import SERVERS, Direction
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rushing import forges
from privfl.hybrid.two_server.tags import OpenTagged

Told = tuple[bytes, bytes | None]


def adds_to(kind: type | tuple[type, ...], at: int, amount: int) -> Liars:
    """A rushing server that adds to one 64-bit word of what it says in the first message of these
    steps.
    """

    def forge(step: Step, machine: Machine, mine: bytes, theirs: bytes | None) -> Told:
        if not isinstance(step, kind) or machine.unchecked is not None or not mine:
            return mine, theirs
        words = unpack(mine[: 8 * (len(mine) // 8)], 64, len(mine) // 8)
        words[at : at + 1] += np.uint64(amount % (1 << 64))
        return pack(words, 64) + mine[8 * len(words) :], theirs

    return forges(forge)


def announces_another() -> Liars:
    """A server that announces another product of the first row with the first coins."""
    return adds_to(Announce, 0, 1 << 20)


def opens_another() -> Liars:
    """A server that opens other counts, and other scores where there are any, of the first row."""
    return adds_to(OpenChecked, 0, 1)


def moves_the_sum() -> Liars:
    """A second server that adds to its share of the sum."""

    def forge(step: Step, machine: Machine, mine: bytes, theirs: bytes | None) -> Told:
        if not isinstance(step, OpenTagged | OpenToFirst) or not mine:
            return mine, theirs
        ring = 64 if isinstance(step, OpenTagged) else machine.ring
        words = unpack(mine, ring, len(mine) // (ring // 8))
        words[:1] += np.uint64(1 << (machine.ring - 3))
        return pack(words, ring), theirs

    return forges(forge)


def drops_by_norm() -> Liars:
    """A server by whose word the first client's norm is not what it dealt."""

    def forge(step: Step, machine: Machine, mine: bytes, theirs: bytes | None) -> Told:
        if not isinstance(step, Announce):
            return mine, theirs
        return _off(machine, mine), None if theirs is None else _off(machine, theirs)

    return forges(forge)


def _off(machine: Machine, said: bytes) -> bytes:
    size = packed_size(machine.ring, machine.n)
    off = unpack(said[-size:], machine.ring, machine.n)
    off[:1] += np.uint64(1)
    return said[:-size] + pack(off, machine.ring)


@dataclass(repr=False)
class ChangesFirst(KeepsSecrets):
    """A party that hears the clients, then changes what it holds of the first."""

    honest: FixedFirstServer | FixedSecondServer | FixedDealer
    change: Callable[[], bool]
    done: bool = False

    def step(self, mail: Mail) -> Mail:
        """What the honest party says."""
        out = self.honest.step(mail)
        self.done = self.done or self.change()
        return out


def changes_first() -> Liars:
    """A party that changes what the first client sent it: the first server the row, the second and
    the dealer a seed.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {who: ChangesFirst(*_change(party)) for who, party in honest.items()}

    return Liars(enter=enter)


def _change(
    party: Party,
) -> tuple[FixedFirstServer | FixedSecondServer | FixedDealer, Callable[[], bool]]:
    if isinstance(party, FixedFirstServer):
        held: dict[int, Any] = party.bodies
    elif isinstance(party, FixedSecondServer | FixedDealer):
        held = party.seeds
    else:
        raise ConfigError(f"{type(party).__name__} holds nothing of clients that fix their rows.")
    last = isinstance(party, FixedFirstServer)

    def change() -> bool:
        if 0 not in held:
            return False
        body = bytearray(held[0])
        body[-1 if last else 0] ^= 1
        held[0] = np.frombuffer(body, dtype=np.uint8) if last else bytes(body)
        return True

    return party, change


def lies_about_its_norm() -> Liars:
    """A client whose row is longer than it may be, beside the square of a shorter one's norm: not
    by so much that a projection of it could be too long.

    Raises:
        ConfigError: when the round begins, a party that is no such client.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        for party in honest.values():
            if not isinstance(party, FixedClientParty) or party.vector is None:
                raise ConfigError(f"{type(party).__name__} is no client that fixes its row.")
            party.vector[: plan.d] *= np.uint64(LONGER)
        return honest

    return Liars(enter=enter)


def hides_a_norm() -> Liars:
    """A rushing server with the first client: its row is longer than it may be, and what the
    servers open of its norm is made 0.
    """

    def forge(step: Step, machine: Machine, mine: bytes, theirs: bytes | None) -> Told:
        if not isinstance(step, Announce) or theirs is None:
            return mine, theirs
        return _evened(machine, mine, theirs), _evened(machine, theirs, mine)

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        servers = {who: party for who, party in honest.items() if who in SERVERS}
        clients = {who: party for who, party in honest.items() if who not in SERVERS}
        lengthened = lies_about_its_norm().enter(plan, clients)
        return {**lengthened, **forges(forge).enter(plan, servers)}

    return Liars(enter=enter)


def _evened(machine: Machine, said: bytes, other: bytes) -> bytes:
    size = packed_size(machine.ring, machine.n)
    own, against = (unpack(body[-size:], machine.ring, machine.n) for body in (said, other))
    own[:1] = np.uint64(0) - against[:1]
    return said[:-size] + pack(own, machine.ring)


def compares_with_another() -> Liars:
    """A first server that compares the rows with a reference of its own: every other entry
    turned around.

    Raises:
        ConfigError: when the round begins, a party that has no reference.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        for party in honest.values():
            if not isinstance(party, FixedFirstServer) or party.direction is None:
                raise ConfigError(f"{type(party).__name__} compares rows with nothing.")
            values = party.direction.values.copy()
            values[1::2] = 1 - values[1::2] if party.now.signs else -values[1::2]
            party.direction = Direction.of(values, party.direction.length)
        return honest

    return Liars(enter=enter)


def enforced_lies(recipe: Recipe) -> list[Lie[Liars]]:
    """What servers, dealer and clients can do by lying where the rule is enforced."""
    signs = recipe.rule.kind == "signs"
    told: list[Lie[Liars]] = []
    for who in SERVERS:
        opens = "opens another value than what is shared, which the dealer authenticated; the"
        told += [
            *([] if signs else _of_products(who)),
            Lie(Coalition.of(who), "abort", f"{opens} session ends", opens_another),
        ]
    told += [
        Lie(
            Coalition.of("server"),
            "choose",
            "hands on another row than a client tagged, so that the client is left out",
            changes_first,
            True,
        ),
        Lie(
            Coalition.of("server/1"),
            "choose",
            "tells the dealer of another seed, so that a client is left out",
            changes_first,
            True,
        ),
        Lie(
            Coalition.of("server/1"),
            "abort" if recipe.tagged else "shift",
            "adds to its share of the sum" + _of_a_moved_sum(recipe),
            moves_the_sum,
        ),
        Lie(
            Coalition.of("dealer"),
            "choose",
            "says that a client told it another seed, so that the client is left out",
            changes_first,
            True,
        ),
        *lies_of_dealer(recipe),
        *_beyond(recipe),
        *_of_clients(signs),
    ]
    return told


def _of_a_moved_sum(recipe: Recipe) -> str:
    """What comes of a constant that the second server adds."""
    if recipe.tagged:
        return ", which the dealer tagged"
    if recipe.noisy:
        return ", which nothing tags or bounds"
    return ", which nothing tags; what is longer than rows of such weights can be is cut to that"


def _of_products(who: PartyId) -> list[Lie[Liars]]:
    """What a server does to what comes of its pass over the rows."""
    what = "announces products of rows that are not its rows', which the dealer tagged; the session"
    dropped = "says that a client lied about its norm, so that the client is refused"
    return [
        Lie(Coalition.of(who), "abort", f"{what} ends", announces_another),
        Lie(Coalition.of(who), "choose", dropped, drops_by_norm, True),
    ]


def _of_clients(signs: bool) -> list[Lie[Liars]]:
    """What a client alone gets."""
    if signs:
        return [lies.skips_its_clip("nothing", "whatever it sends is a row of signs")]
    what = "lies about its norm, and is refused by name"
    return [
        lies.skips_its_clip("nothing", "it is refused by name", refused=True),
        Lie(Coalition.of("client/0"), "nothing", what, lies_about_its_norm, True),
    ]


def _beyond(recipe: Recipe) -> list[Lie[Liars]]:
    """What enforcing a rule does not stop: long rows of colluding clients, but where all products
    of rows are opened; another reference.
    """
    long = [
        Lie(
            Coalition.of(who, "client/0"),
            "shift",
            "makes a row pass that is longer than the norm beside it",
            hides_a_norm,
        )
        for who in SERVERS
    ]
    another = Lie(
        Coalition.of("server"),
        "choose",
        "compares the rows with a reference of its own",
        compares_with_another,
    )
    bounded = recipe.traits.gram or recipe.rule.kind == "signs"
    return long * (not bounded) + [another] * recipe.traits.directed
