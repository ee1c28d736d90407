"""The second server in one round in which clients fix their rows: it learns no result."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KeepsSecrets, Mail, PartyId, PartyKeys, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.authentication import Ending
from privfl.crypto.primitives import fields, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import (
    frames_letter,
    hear_seeds,
    read_frames,
    tell_held,
    unusable,
)
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.malicious.begin import begin, begin_signs
from privfl.hybrid.two_server.malicious.letters import (
    digests,
    is_tagged,
    parted_row,
    read_rows,
)
from privfl.hybrid.two_server.parameters import (
    DEAL,
    MASKED,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows
from privfl.hybrid.two_server.sealing import (
    SEED_SIZE,
    UNKNOWN,
    coin_of,
)
from privfl.hybrid.two_server.second_server import checked_direction


@dataclass(repr=False)
class FixedSecondServer(KeepsSecrets):
    """The server that holds the seeds of the other mask: it checks that every row is the one that
    its client tagged. What fails a proof ends the session (``ending``); ``fresh``: no round came
    before.
    """

    now: TwoServerParameters
    recipe: Recipe
    identity: PartyKeys
    dealer: tuple[bytes, ...]
    ending: Ending = field(default_factory=Ending)
    fresh: bool = True
    seeds: dict[int, bytes] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    half: bytes | None = None
    key: bytes = b""
    sent: int = 0
    own: bytes = b""
    coin: bytes = b""
    rows: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    unknown: bool = False
    direction: Direction | None = None
    waiting: list[bytes] = field(default_factory=list)
    machine: Machine | None = None

    def step(self, mail: Mail) -> Mail:
        """Hear the clients once, then the first server and the dealer.

        Raises:
            StageAbort: somebody's message is none, or a proof failed, now or before.
        """
        with self.ending.stands():
            return self._step(mail)

    def _step(self, mail: Mail) -> Mail:
        heard = {who: body for who, body in mail.items() if client_of(who) is not None}
        if heard and self.half is None:
            return self._hold(heard)
        out: dict[PartyId, Buffer] = {}
        if "server" in mail and self.half is not None:
            out |= self._from_server(mail["server"])
        if "dealer" in mail and self.rows and self.machine is None:
            out |= self._begin(mail["dealer"])
        return out

    def _hold(self, heard: Mapping[PartyId, Buffer]) -> Mail:
        now = self.now
        self.seeds |= hear_seeds(now, heard, self.identity, 2 * SEED_SIZE, self.excluded)
        self.half = secrets.token_bytes(SEED_SIZE)
        return tell_held(now, self.seeds, self.half, self.excluded)

    def _from_server(self, body: Buffer) -> Mail:
        now = self.now
        try:
            if not self.rows:
                return self._agree(*now.read(body, MASKED))
        except Malformed as malformed:
            raise unusable("compute", "server", malformed) from None
        if now.repeats(body, MASKED):
            return {}
        content = read_frames(now, self.key, "server", body)
        if self.machine is None:
            self.waiting.append(content)
            return {}
        return self._advance(content)

    def _agree(self, keys: int, content: memoryview) -> Mail:
        now = self.now
        members, self.key, head, rows = read_rows(now, self.identity, keys, content)
        if not set(members) <= self.seeds.keys():
            why = "the server lists clients that never reached this one"
            raise StageAbort("agree", why, letter_of="server")
        told, self.direction = checked_direction(now, self.recipe, head)
        if told == UNKNOWN and not self.fresh:
            why = "the server says that it knows no reference yet, and this is not the first round"
            raise StageAbort("agree", why, letter_of="server")
        for position, row in zip(members, rows, strict=True):
            tag, packed = parted_row(row)
            if is_tagged(now, self.seeds[position][SEED_SIZE:], position, tag, packed):
                self.rows[position] = np.frombuffer(packed, dtype=np.uint8)
        now.enough("agree", self.rows)
        self.unknown, self.own = told == UNKNOWN, secrets.token_bytes(SEED_SIZE)
        self.coin = coin_of(now, head[:SEED_SIZE], self.half or b"")
        seeds = {i: self.seeds[i][:SEED_SIZE] for i in self.rows}
        named = seal_to(
            self.dealer,
            self.own + digests(now, "server/1", seeds),
            now.bound_to("deal", "server/1"),
            now.library,
        )
        return {"dealer": now.write(DEAL, 1, fields.bit_set(self.rows, now.plan.n), named)}

    def _begin(self, body: Buffer) -> Mail:
        now, recipe = self.now, self.recipe
        if now.signs:
            packed = {i: row.data for i, row in self.rows.items()}
            begun = begin_signs(
                now, recipe, self.own, body, packed, False, self.direction, memory={}
            )
            return self._go(begun)

        def rows(left: list[int]) -> tuple[SeedRows, MaskedRows]:
            fixed = MaskedRows([self.rows[i] for i in left])
            return SeedRows([self.seeds[i][:SEED_SIZE] for i in left]), fixed

        begun = begin(
            now,
            recipe,
            self.own,
            body,
            sorted(self.rows),
            False,
            rows,
            self.coin,
            self.direction,
            self.unknown,
        )
        return self._go(begun)

    def _go(self, machine: Machine) -> Mail:
        """Begin to compute."""
        self.machine, machine.key, self.seeds = machine, self.key, {}
        # the machine has them now, and lets go of them
        self.rows = dict.fromkeys(self.rows, np.empty(0, dtype=np.uint8))
        return self._advance(b"".join(self.waiting))

    def _advance(self, content: Buffer) -> Mail:
        frames = [] if self.machine is None else self.machine.advance(content)
        if not frames:
            return {}
        self.sent += 1
        return {"server": frames_letter(self.now, self.key, "server/1", self.sent, frames)}
