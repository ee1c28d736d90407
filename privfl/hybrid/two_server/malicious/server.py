"""The first server in one round in which clients fix their rows: it learns the result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KeepsSecrets, Mail, Opened, PartyId, Total, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.authentication import Ending
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives import fields, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import (
    frames_letter,
    hear_vector,
    key_and_head,
    read_frames,
    read_held,
    sizes_of,
)
from privfl.hybrid.two_server.fixed_rows import FixedRows
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.malicious.begin import LEFT_OUT, begin, begin_signs
from privfl.hybrid.two_server.malicious.letters import Laid, digests, packed_row
from privfl.hybrid.two_server.parameters import (
    DEAL,
    HELD,
    MASKED,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.registers import DOTS
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows
from privfl.hybrid.two_server.sealing import SEED_SIZE, coin_of, read_vector
from privfl.hybrid.two_server.server import concluded, without_values
from privfl.hybrid.two_server.tags import check_tags


@dataclass(repr=False)
class FixedFirstServer(KeepsSecrets):
    """The server that learns the result: it holds the fixed rows and the seeds of one mask.

    ``half`` is its half of the joint coins' seed, ``seed`` all its other randomness, ``key`` what
    it and the second server seal with. What fails a proof ends the session (``ending``).
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
    ending: Ending = field(default_factory=Ending)
    memory: dict[Shared, U64] = field(default_factory=dict)
    sent: int = 0
    bodies: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    laid: Laid | None = None
    folded: set[PartyId] = field(default_factory=set)
    given: dict[int, bytes] = field(default_factory=dict)
    rows: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    theirs: bytes = b""
    asked: tuple[int, ...] = ()
    waiting: list[bytes] = field(default_factory=list)
    machine: Machine | None = None
    result: Opened[Total] | None = None

    def anew(self) -> FixedFirstServer:
        """The same part with the same randomness, before it heard anything, as `FirstServer.anew`
        makes it.
        """
        return replace(
            self,
            recipe=replace(self.recipe, noise=None),
            direction=without_values(self.direction),
            ending=Ending(),
            bodies={},
            laid=None,
            folded=set(),
            given={},
            rows={},
            excluded={},
            asked=(),
            waiting=[],
            machine=None,
            result=None,
            sent=0,
        )

    def step(self, mail: Mail) -> Mail:
        """Hear the clients, hand on the rows that they fixed, then compute with the second server.

        Raises:
            StageAbort: somebody's message is none, or a proof failed, now or before.
        """
        with self.ending.stands():
            return self._step(mail)

    def _step(self, mail: Mail) -> Mail:
        for who, body in mail.items():
            known = self.asked or (not body and who in self.folded)
            if client_of(who) is not None and not known:
                self._hear(who, body)
        if self.result is not None:
            return {}
        out: dict[PartyId, Buffer] = {}
        if "server/1" in mail:
            out |= self._from_second(mail["server/1"])
        if "dealer" in mail and self.asked and self.machine is None:
            out |= self._begin(mail["dealer"])
        if self.machine is not None and self.machine.done:
            if self.recipe.tagged:
                check_tags(self.machine)
            self.result = concluded(self.machine, self.excluded)
        return out

    def fold(self, sender: PartyId, body: Buffer) -> Buffer | None:
        """Copy a row to its place in the letter to the second server when it is written
        (`core.streaming.Folds`), so that no two copies of all rows lie in memory.
        """
        if self.asked or sender in self.excluded:
            return None
        try:
            place, content = read_vector(self.now, sender, body)
        except Malformed:
            return None
        laid = self._laid()
        if place in self.bodies or place in laid.seeds:
            return None
        laid.lay(place, content)
        self.folded.add(sender)
        return b""

    def _laid(self) -> Laid:
        if self.laid is None:
            sizes = sizes_of(self.now, self.second, self.direction)
            self.laid = Laid(self.now.plan.n, *sizes)
        return self.laid

    def _hear(self, who: PartyId, body: Buffer) -> None:
        found = hear_vector(self.now, who, body, self.excluded)
        if found and found[0] not in self._laid().seeds:
            self.bodies.setdefault(found[0], np.frombuffer(found[1], dtype=np.uint8))

    def _from_second(self, body: Buffer) -> Mail:
        if not self.asked:
            return self._ask(body)
        if self.now.repeats(body, HELD):
            return {}
        content = read_frames(self.now, self.key, "server/1", body)
        if self.machine is None:
            self.waiting.append(content)
            return {}
        return self._advance(content)

    def _ask(self, body: Buffer) -> Mail:
        now = self.now
        if self.refused is not None:
            raise StageAbort("enter", self.refused, "server")
        held, self.theirs, said = read_held(now, body)
        self.excluded = {**said, **self.excluded}
        laid = self._laid()
        left = sorted(held & {*self.bodies, *laid.seeds})
        now.enough("agree", left)
        self.asked = tuple(left)
        members = fields.bit_set(left, now.plan.n)
        keys, head = key_and_head(
            now, self.second, self.key, self.half, self.direction, self.unknown
        )
        for i in left:
            if i in self.bodies:  # let go of one by one
                laid.lay(i, self.bodies.pop(i).data)
        self.given, self.bodies, self.laid = {i: laid.seeds[i] for i in left}, {}, None
        named = seal_to(
            self.dealer,
            self.seed + digests(now, "server", self.given),
            now.bound_to("deal", "server"),
            now.library,
        )
        front = now.write(MASKED, len(self.second), members, keys)
        letter, self.rows = laid.letter(front, left, head, now.body - SEED_SIZE)
        return {"server/1": letter, "dealer": now.write(DEAL, 0, members, named)}

    def _begin(self, body: Buffer) -> Mail:
        now, recipe = self.now, self.recipe
        if now.signs:
            packed = {i: packed_row(self.rows[i]).data for i in self.asked}
            known = (self.direction, self.memory)
            return self._go(begin_signs(now, recipe, self.seed, body, packed, True, *known))

        def rows(left: list[int]) -> tuple[FixedRows, MaskedRows]:
            fixed = MaskedRows([packed_row(self.rows[i]) for i in left])
            return FixedRows(fixed, SeedRows([self.given[i] for i in left])), fixed

        begun = begin(
            now,
            recipe,
            self.seed,
            body,
            self.asked,
            True,
            rows,
            coin_of(now, self.half, self.theirs),
            self.direction,
            self.unknown,
            self.memory.get(DOTS),
        )
        if recipe.traits.directed and begun.fixed is not None:
            self.memory.setdefault(DOTS, begun.fixed.products.last_product())
        return self._go(begun)

    def _go(self, machine: Machine) -> Mail:
        """Begin to compute."""
        self.machine = machine
        for i in set(self.asked) - set(machine.positions):
            self.excluded.setdefault(self.now.name(i), LEFT_OUT)
        self.given, self.rows = {}, {}
        return self._advance(b"".join(self.waiting))

    def _advance(self, content: Buffer) -> Mail:
        frames = [] if self.machine is None else self.machine.advance(content)
        if not frames:
            return {}
        self.sent += 1
        return {"server/1": frames_letter(self.now, self.key, "server", self.sent, frames)}
