"""The first server in one round: it learns the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import Buffer, KeepsSecrets, Mail, Opened, PartyId, Total, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.preprocessing import Preprocessing, first_preprocessing
from privfl.crypto.mpc.words import U64, signed, unpack
from privfl.crypto.primitives import fields, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import (
    frames_letter,
    hear_vector,
    key_and_head,
    read_frames,
    read_held,
    unusable,
)
from privfl.hybrid.two_server.bits import BitRows, Flips
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.parameters import (
    DEAL,
    DEALT,
    HELD,
    MASKED,
    MORE,
    PIECE,
    SERVERS,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.registers import DOTS, SUM
from privfl.hybrid.two_server.row_letters import Veiling
from privfl.hybrid.two_server.rows import Covers, MaskedRows, Survey, Veil
from privfl.hybrid.two_server.sealing import coin_of, unseal_dealt
from privfl.hybrid.two_server.tags import check_tags

_BLOCK = 1 << 15
"""Values at a time: what is computed of them stays in cache."""


@dataclass(repr=False)
class FirstServer(KeepsSecrets):
    """The server that learns the result: it holds the masked vectors, and no mask.

    ``half`` is its half of the joint coins' seed, ``seed`` all its other randomness, ``key`` what
    it and the second server seal with.
    """

    now: TwoServerParameters
    recipe: Recipe
    second: tuple[bytes, ...]
    dealer: tuple[bytes, ...]
    half: bytes
    seed: bytes
    key: bytes
    direction: Direction | None = None
    unknown: bool = False
    refused: str | None = None
    memory: dict[Shared, U64] = field(default_factory=dict)
    sent: int = 0
    bodies: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    veiling: Veiling | None = None
    pieces: int = 0
    machine: Machine | None = None
    result: Opened[Total] | None = None

    def anew(self) -> Self:
        """The same part with the same randomness, before it heard anything. Its own noise hides
        nothing from it, so there is none.

        In place of the direction, which is long, it has in ``memory`` what came of it.
        """
        recipe = replace(self.recipe, noise=None)
        return replace(
            self,
            recipe=recipe,
            direction=without_values(self.direction),
            bodies={},
            excluded={},
            veiling=None,
            pieces=0,
            machine=None,
            result=None,
            sent=0,
        )

    def step(self, mail: Mail) -> Mail:
        """Hear the clients, mask their vectors once more for the second server, then compute with
        it.
        """
        for who, body in mail.items():
            if client_of(who) is not None and self.machine is None:
                self._hear(who, body)
        if self.result is not None:
            return {}
        if "dealer" in mail and self.machine is not None and self.machine.tags is None:
            self.machine.tags = self._tags(self.machine, mail["dealer"])
        out = self._from_second(mail["server/1"]) if "server/1" in mail else {}
        if (
            self.machine is not None
            and self.machine.done
            and not (self.recipe.tagged and self.machine.tags is None)
        ):
            self._conclude(self.machine)
        return out

    def _from_second(self, body: Buffer) -> Mail:
        if self.machine is None:
            return self._ask(body)
        if self.now.repeats(body, HELD) or self.now.asked_before(body, MORE, self.pieces):
            return {}
        if self.veiling is not None:
            return self._more(self.veiling, body)
        content = read_frames(self.now, self.key, "server/1", body)
        frames = self.machine.advance(content)
        if not frames:
            return {}
        self.sent += 1
        return {"server/1": frames_letter(self.now, self.key, "server", self.sent, frames)}

    def _hear(self, who: PartyId, body: Buffer) -> None:
        if found := hear_vector(self.now, who, body, self.excluded):
            self.bodies.setdefault(found[0], np.frombuffer(found[1], dtype=np.uint8))

    def _ask(self, body: Buffer) -> Mail:
        now, left, theirs = self.now, *self._agreed(body)
        sealed_boxes = seal_to(self.dealer, self.seed, now.bound_to("deal", "server"), now.library)
        members = fields.bit_set(left, now.plan.n)
        return {
            "server/1": self._begin(left, theirs),
            "dealer": now.write(DEAL, 0, members, sealed_boxes),
        }

    def _agreed(self, body: Buffer) -> tuple[list[int], bytes]:
        """Whom both servers heard, and the second's half of the coin."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, "server")
        held, theirs, said = read_held(self.now, body)
        self.excluded = {**said, **self.excluded}
        left = sorted(held & self.bodies.keys())
        self.now.enough("agree", left)
        return left, theirs

    def _prepared(self, left: list[int]) -> tuple[Preprocessing, Covers, U64 | None]:
        """What the dealer's randomness is for these rows: shares, masks, and the tags of the sum
        where they are here already.
        """
        demand = self.recipe.demand(self.now, len(left))
        shares = first_preprocessing(self.seed, demand, self.now.library)
        return shares, Veil(self.seed), None

    def _begin(self, left: list[int], theirs: bytes) -> Buffer:
        """Begin to compute; the masked rows for the second server."""
        now, half, seed = self.now, self.half, self.seed
        bodies, n = [self.bodies[i] for i in left], len(left)
        preprocessing, veil, tags = self._prepared(left)
        program = self.recipe.program(now, self.unknown)
        machine = Machine(
            first=True,
            names=SERVERS,
            ring=now.ring,
            tag=now.tag,
            now=now,
            positions=tuple(left),
            program=program,
            rows=MaskedRows(bodies),
            preprocessing=preprocessing,
            veil=veil,
            direction=self.direction,
            seed=seed,
            tags=tags,
            memory=self.memory,
        )
        masked: list[bytes] = []
        self.machine, self.bodies = machine, {}
        if now.signs:
            machine.bits, machine.flips = BitRows(bodies), Flips(seed)
        else:
            values = (
                None
                if self.direction is None or not len(self.direction.values)
                else self.direction.values
            )
            survey = Survey(now, n, coin_of(now, half, theirs), values)
            self.veiling = Veiling(now, MaskedRows(bodies), veil, survey, self.key)
            masked = self._next_letter(self.veiling)
        members = fields.bit_set(left, now.plan.n)
        keys, head = key_and_head(now, self.second, self.key, half, self.direction, self.unknown)
        return now.write(MASKED, len(self.second), members, keys, *masked, head)

    def _next_letter(self, veiling: Veiling) -> list[bytes]:
        masked = veiling.next_letter()
        if not veiling.left and self.machine is not None:
            shares = veiling.survey.shares()
            self.machine.surveyed({**shares, DOTS: self.memory.setdefault(DOTS, shares[DOTS])})
            self.veiling = None
        return masked

    def _more(self, veiling: Veiling, body: Buffer) -> Mail:
        """The next piece of the masked rows, once the second server has room for it."""
        try:
            number, content = self.now.read(body, MORE)
            if number != self.pieces + 1 or content:
                raise Malformed("it asks for another piece than the next")
        except Malformed as malformed:
            raise unusable("agree", "server/1", malformed) from None
        self.pieces += 1
        piece = self.now.write(PIECE, self.pieces, *self._next_letter(veiling))
        return {"server/1": piece}

    def _tags(self, machine: Machine, body: Buffer) -> U64:
        try:
            _, content = self.now.read(body, DEALT)
            return unpack(unseal_dealt(self.now, self.seed, bytes(content)), 64, machine.n)
        except Malformed as malformed:
            raise unusable("deal", "dealer", malformed) from None

    def _conclude(self, machine: Machine) -> None:
        if self.recipe.tagged:
            check_tags(machine)
        self.result = concluded(machine, self.excluded)


def without_values(direction: Direction | None) -> Direction | None:
    """The same, for a replay that remembers what came of the values."""
    return None if direction is None else replace(direction, values=np.zeros(0, dtype=np.int64))


def concluded(machine: Machine, excluded: Mapping[PartyId, str]) -> Opened[Total]:
    """What the first server opened, at the end of its program."""
    now = machine.now
    total = signed(machine.public[SUM], now.ring)
    blocks = [total[start : start + _BLOCK] for start in range(0, len(total), _BLOCK)]
    length = math.sqrt(sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks))
    if length > machine.reach * (1 + 1e-9):  # no rows add up to it: what is beyond was added to it
        for block in blocks:
            block[:] = (block * (machine.reach / length)).astype(np.int64)
    if now.weighted:
        opened = now.code.decode(total, now.plan, machine.count)
    else:
        values = np.empty(len(total), dtype=np.float32)
        for start, block in zip(range(0, len(total), _BLOCK), blocks, strict=True):
            values[start : start + len(block)] = block * machine.unit
        opened = Total(torch.from_numpy(values), machine.weight, machine.count)
    clients = tuple(now.plan.cohort[i] for i in machine.positions)
    disclosed = {"clients": torch.tensor(clients), **machine.disclosed}
    survivors = tuple(clients[i] for i in machine.valid)
    return Opened(opened, survivors, disclosed, {**excluded, **machine.excluded})
