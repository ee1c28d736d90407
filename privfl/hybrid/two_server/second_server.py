"""The second server in one round: it holds the masks' seeds and learns no result."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from privfl.core import Buffer, KeepsSecrets, Mail, PartyId, PartyKeys, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.preprocessing import Preprocessing, second_preprocessing
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives import fields, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import (
    frames_letter,
    hear_seeds,
    read_frames,
    tell_held,
    unusable,
)
from privfl.hybrid.two_server.bits import BitSeeds, Flips, received_flips
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.parameters import (
    DEAL,
    DEALT,
    MASKED,
    MORE,
    PIECE,
    SERVERS,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.row_letters import Crossing
from privfl.hybrid.two_server.rows import SeedRows, Survey
from privfl.hybrid.two_server.sealing import (
    NOBODY,
    SEED_SIZE,
    UNKNOWN,
    coin_of,
    open_masked,
    read_direction,
    unseal_dealt,
)


@dataclass(repr=False)
class SecondServer(KeepsSecrets):
    """The server that holds the masks' seeds and learns nothing but what both servers must know."""

    now: TwoServerParameters
    recipe: Recipe
    identity: PartyKeys
    dealer: tuple[bytes, ...]
    seeds: dict[int, bytes] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    half: bytes | None = None
    asked: bool = False
    key: bytes = b""
    sent: int = 0
    own: bytes = b""
    positions: tuple[int, ...] = ()
    unknown: bool = False
    shares: dict[Shared, U64] = field(default_factory=dict)
    direction: Direction | None = None
    opened: bytes = b""
    waiting: list[bytes] = field(default_factory=list)
    crossing: Crossing | None = None
    pieces: int = 0
    letter: bytes = b""
    machine: Machine | None = None

    def step(self, mail: Mail) -> Mail:
        """Hear the clients once, then the first server and the dealer."""
        heard = {who: body for who, body in mail.items() if client_of(who) is not None}
        if heard and self.half is None:
            return self._hold(heard)
        out: dict[PartyId, Buffer] = {}
        if "server" in mail and self.half is not None:
            out |= self._from_server(mail["server"])
        if "dealer" in mail and self.asked and self.machine is None:
            self.letter = bytes(mail["dealer"])
            out |= {} if self.crossing is not None else self._begin(self.letter)
        return out

    def _hold(self, heard: Mapping[PartyId, Buffer]) -> Mail:
        now = self.now
        self.seeds |= hear_seeds(now, heard, self.identity, SEED_SIZE, self.excluded)
        self.half = secrets.token_bytes(SEED_SIZE)
        return tell_held(now, self.seeds, self.half, self.excluded, self._dealing())

    def _dealing(self) -> int:
        """Which dealing it took, where the dealer dealt ahead."""
        return 0

    def _from_server(self, body: Buffer) -> Mail:
        now = self.now
        try:
            if not self.asked:
                return self._survey(*now.read(body, MASKED))
        except Malformed as malformed:
            raise unusable("compute", "server", malformed) from None
        if now.repeats(body, MASKED) or now.asked_before(body, PIECE, self.pieces):
            return {}
        if self.crossing is not None:
            return self._piece(self.crossing, body)
        content = read_frames(now, self.key, "server", body)
        if self.machine is None:
            self.waiting.append(content)
            return {}
        return self._advance(content)

    def _survey(self, keys: int, content: memoryview) -> Mail:
        now = self.now
        members, self.key, head, masked = open_masked(now, self.identity, keys, content)
        if not members <= self.seeds.keys():
            why = "the server lists clients that never reached this one"
            raise StageAbort("agree", why, letter_of="server")
        now.enough("agree", members)
        told, self.direction = checked_direction(now, self.recipe, head)
        n = len(members)
        self.positions, self.unknown, self.asked = tuple(sorted(members)), told == UNKNOWN, True
        self.opened = bytes(masked) if self.recipe.traits.hidden else b""
        out: dict[PartyId, Buffer] = {}
        seeds = [self.seeds[i] for i in self.positions]
        if not now.signs:
            values = None if self.direction is None else self.direction.values
            survey = Survey(now, n, coin_of(now, head[:SEED_SIZE], self.half or b""), values)
            self.crossing = Crossing(now, SeedRows(seeds), survey, self.key)
            out |= self._cross(self.crossing, masked)
        return {**out, **self._ask_dealer(members, seeds)}

    def _ask_dealer(self, members: Collection[int], seeds: list[bytes]) -> Mail:
        """What it says once it knows who takes part: its seeds, to the dealer."""
        now, self.own = self.now, secrets.token_bytes(SEED_SIZE)
        sealed_boxes = seal_to(
            self.dealer, b"".join((self.own, *seeds)), now.bound_to("deal", "server/1"), now.library
        )
        listed = fields.bit_set(members, now.plan.n)
        return {"dealer": now.write(DEAL, 1, listed, sealed_boxes)}

    def _cross(self, crossing: Crossing, masked: memoryview) -> Mail:
        """Take a letter of masked rows; ask for the next one, if there is any."""
        crossing.take(masked)
        if crossing.left:
            return {"server": self.now.write(MORE, self.pieces + 1)}
        self.shares, self.crossing = crossing.survey.shares(), None
        return {}

    def _piece(self, crossing: Crossing, body: Buffer) -> Mail:
        try:
            number, masked = self.now.read(body, PIECE)
            if number != self.pieces + 1:
                raise Malformed("it is another piece than the next")
            self.pieces += 1
            if self.recipe.traits.hidden:
                self.opened += masked
            out = self._cross(crossing, masked)
        except Malformed as malformed:
            raise unusable("compute", "server", malformed) from None
        return out if self.crossing is not None or not self.letter else self._begin(self.letter)

    def _begin(self, body: Buffer) -> Mail:
        now, n, recipe = self.now, len(self.positions), self.recipe
        demand, flips = recipe.demand(now, n), None
        try:
            _, content = now.read(body, DEALT)
            words = memoryview(unseal_dealt(now, self.own, bytes(content)))
            bulk = words[8 * demand.dealt :]
            if now.signs:
                flips = received_flips(now, self.own, bulk, n, recipe.traits.hidden)
            elif bulk:
                raise Malformed(f"{len(bulk)} bytes too many")
            preprocessing = second_preprocessing(
                self.own, words[: 8 * demand.dealt], demand, now.library
            )
        except Malformed as malformed:
            raise unusable("deal", "dealer", malformed) from None
        return self._compute(preprocessing, flips)

    def _compute(
        self, preprocessing: Preprocessing, flips: Flips | None = None, *, ahead: bool = False
    ) -> Mail:
        """Begin to compute, with its part of what was dealt."""
        now, seeds = self.now, [self.seeds[i] for i in self.positions]
        machine = Machine(
            first=False,
            names=SERVERS,
            ring=now.ring,
            tag=now.tag,
            now=now,
            positions=self.positions,
            program=self.recipe.program(now, self.unknown),
            rows=SeedRows(seeds),
            preprocessing=preprocessing,
            direction=self.direction,
            opened=self.opened,
            key=self.key,
            seed=self.own,
            ahead=ahead,
        )
        if now.signs:
            machine.bits, machine.flips = BitSeeds(seeds), flips
        else:
            machine.surveyed(self.shares)
        self.machine, self.seeds, self.shares, self.opened = machine, {}, {}, b""
        return self._advance(b"".join(self.waiting))

    def _advance(self, content: Buffer) -> Mail:
        frames = [] if self.machine is None else self.machine.advance(content)
        if not frames:
            return {}
        self.sent += 1
        return {"server": frames_letter(self.now, self.key, "server/1", self.sent, frames)}


def checked_direction(
    now: TwoServerParameters, recipe: Recipe, head: bytes
) -> tuple[int, Direction | None]:
    """What the first server says of the direction.

    Raises:
        Malformed: it is none, or this rule has none.
        StageAbort: it would tell a coordinate of every client, or products with it could leave the
            ring.
    """
    told, direction = read_direction(head, now.plan.d)
    if told != NOBODY and not recipe.traits.directed:
        raise Malformed("a direction for a rule that has none")
    if told == UNKNOWN and not recipe.traits.late:
        why = (
            "the server says that it knows no reference yet, and this rule's is known in any round"
        )
        raise StageAbort("agree", why, letter_of="server")
    if direction is None or now.signs:
        return told, direction
    if np.linalg.norm(direction.values.astype(np.float64)) > now.steep:
        why = (
            "the server's reference is longer than any, and products with it would be of its"
            " remainders"
        )
        raise StageAbort("agree", why, letter_of="server")
    if np.count_nonzero(direction.values) < 2:
        why = (
            "the server's reference has a single coordinate, and comparing with it would tell"
            " that coordinate of every client"
        )
        raise StageAbort("agree", why, letter_of="server")
    return told, direction
