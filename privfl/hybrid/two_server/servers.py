"""The two servers in one round."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import Buffer, KeepsSecrets, Mail, Opened, PartyId, Total, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import fields, open_one, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import BitRows, BitSeeds, Flips, received_flips
from privfl.hybrid.two_server.machine import Machine, check_tags
from privfl.hybrid.two_server.preprocessing import first_preprocessing, second_preprocessing
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.ring_codec import U64, signed, unpack
from privfl.hybrid.two_server.rounds import (
    DEAL,
    DEALT,
    HELD,
    MASKED,
    SEED,
    VECTOR,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows, Survey, Veil, crossed, veiled
from privfl.hybrid.two_server.sealing import (
    DIRECTED,
    DIRECTION_HEAD,
    NOBODY,
    SEED_SIZE,
    UNKNOWN,
    coin_of,
    is_repeat,
    open_masked,
    open_steps,
    read_direction,
    seal_steps,
    unseal_dealt,
)


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
    memory: dict[str, U64] = field(default_factory=dict)
    sent: int = 0
    bodies: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    machine: Machine | None = None
    result: Opened[Total] | None = None

    def anew(self) -> FirstServer:
        """The same part with the same randomness, before it heard anything. Its own noise hides
        nothing from it, so there is none.

        In place of the direction, which is long, it has in ``memory`` what came of it.
        """
        short = (
            None
            if self.direction is None
            else replace(self.direction, values=np.zeros(0, dtype=np.int64))
        )
        recipe = replace(self.recipe, noise=None)
        return replace(
            self,
            recipe=recipe,
            direction=short,
            bodies={},
            excluded={},
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
        if is_repeat(self.now, body, HELD):
            return {}
        try:
            content = open_steps(self.now, self.key, b"2", body)
        except Malformed as malformed:
            raise StageAbort(
                "compute", f"the message of server/1 cannot be used: {malformed}", "server/1"
            ) from None
        frames = self.machine.advance(content)
        if not frames:
            return {}
        self.sent += 1
        return {"server/1": seal_steps(self.now, self.key, b"1", self.sent, frames)}

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, content = self.now.sender(who, body, VECTOR)
            packed = fields.after_facts(content, fields.facts(self.now.plan))
            if len(packed) != self.now.body:
                raise Malformed(
                    f"a vector of {len(packed)} bytes where {self.now.body} were asked for"
                )
            self.bodies.setdefault(position, np.frombuffer(packed, dtype=np.uint8))
        except Malformed as malformed:
            self.excluded.setdefault(who, f"stage share: {malformed}")

    def _ask(self, body: Buffer) -> Mail:
        now, half, seed = self.now, self.half, self.seed
        if self.refused is not None:
            raise StageAbort("enter", self.refused, "server")
        try:
            _, content = now.read(body, HELD)
            held, rest = fields.read_bit_set(content, now.plan.n)
            theirs, reasons = bytes(rest[:SEED_SIZE]), bytes(rest[SEED_SIZE:])
            lines = [line.partition("\t") for line in reasons.decode().splitlines()]
        except (Malformed, UnicodeDecodeError) as malformed:
            raise StageAbort(
                "agree", f"the message of server/1 cannot be used: {malformed}", "server/1"
            ) from None
        for client, _, why in lines:
            self.excluded.setdefault(client, f"{why} (server/1)")
        left = sorted(held & self.bodies.keys())
        now.enough("agree", left)
        bodies, n = [self.bodies[i] for i in left], len(left)
        preprocessing, program = (
            first_preprocessing(seed, self.recipe.demand(now, n), now.library),
            self.recipe.program(now, self.unknown),
        )
        machine = Machine(
            now,
            True,
            tuple(left),
            program,
            MaskedRows(bodies),
            preprocessing,
            veil=Veil(seed),
            direction=self.direction,
        )
        machine.seed, machine.memory = seed, self.memory
        masked: list[bytes] = []
        if now.signs:
            machine.bits, machine.flips = BitRows(bodies), Flips(seed)
        else:
            values = (
                None
                if self.direction is None or not len(self.direction.values)
                else self.direction.values
            )
            survey = Survey(now, n, coin_of(now, half, theirs), values)
            masked = list(veiled(now, MaskedRows(bodies), Veil(seed), survey, self.key))
            machine.surveyed(
                {**survey.shares(), "dots": self.memory.setdefault("dots", survey.shares()["dots"])}
            )
        self.machine, self.bodies = machine, {}
        members = fields.bit_set(left, now.plan.n)
        keys = seal_to(self.second, self.key, now.bound_to("key"), now.library)
        head = now.library.seal(self.key, bytes(12), half + self._direction(), now.bound_to("head"))
        sealed_boxes = seal_to(self.dealer, seed, now.bound_to("deal", "server"), now.library)
        return {
            "server/1": now.write(MASKED, len(self.second), members, keys, *masked, head),
            "dealer": now.write(DEAL, 0, members, sealed_boxes),
        }

    def _direction(self) -> bytes:
        if self.direction is None:
            return DIRECTION_HEAD.pack(UNKNOWN if self.unknown else NOBODY, 0.0)
        return (
            DIRECTION_HEAD.pack(DIRECTED, self.direction.length)
            + self.direction.values.astype("<i4").tobytes()
        )

    def _tags(self, machine: Machine, body: Buffer) -> U64:
        try:
            _, content = self.now.read(body, DEALT)
            return unpack(unseal_dealt(self.now, self.seed, bytes(content)), 64, machine.n)
        except Malformed as malformed:
            raise StageAbort(
                "deal", f"the message of dealer cannot be used: {malformed}", "dealer"
            ) from None

    def _conclude(self, machine: Machine) -> None:
        now = self.now
        if self.recipe.tagged:
            check_tags(machine)
        total = signed(machine.public["sum"], now.ring)
        if now.weighted:
            opened = now.code.decode(total, now.plan, machine.count)
        else:
            opened = Total(
                torch.from_numpy((total * machine.unit).astype(np.float32)),
                machine.weight,
                machine.count,
            )
        clients = tuple(now.plan.cohort[i] for i in machine.positions)
        disclosed = {"clients": torch.tensor(clients), **machine.disclosed}
        survivors = tuple(clients[i] for i in machine.valid)
        self.result = Opened(opened, survivors, disclosed, {**self.excluded, **machine.excluded})


@dataclass(repr=False)
class SecondServer(KeepsSecrets):
    """The server that holds the masks' seeds and learns nothing but what both servers must know."""

    now: TwoServerParameters
    recipe: Recipe
    secret: bytes
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
    shares: dict[str, U64] = field(default_factory=dict)
    direction: Direction | None = None
    opened: bytes = b""
    waiting: list[bytes] = field(default_factory=list)
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
            out |= self._begin(mail["dealer"])
        return out

    def _hold(self, heard: Mapping[PartyId, Buffer]) -> Mail:
        now = self.now
        for who, body in heard.items():
            try:
                position, content = now.sender(who, body, SEED)
                context = now.bound_to("seed", str(position))
                self.seeds[position] = open_one(
                    content, SEED_SIZE, self.secret, context, now.library
                )
            except Malformed as malformed:
                self.excluded[who] = f"stage share: {malformed}"
        self.half = secrets.token_bytes(SEED_SIZE)
        reasons = "\n".join(f"{who}\t{why}" for who, why in self.excluded.items()).encode()
        return {
            "server": now.write(HELD, 0, fields.bit_set(self.seeds, now.plan.n), self.half, reasons)
        }

    def _from_server(self, body: Buffer) -> Mail:
        now = self.now
        try:
            if not self.asked:
                return self._survey(*now.read(body, MASKED))
            if is_repeat(now, body, MASKED):
                return {}
            content = open_steps(now, self.key, b"1", body)
        except Malformed as malformed:
            raise StageAbort(
                "compute", f"the message of server cannot be used: {malformed}", "server"
            ) from None
        if self.machine is None:
            self.waiting.append(content)
            return {}
        return self._advance(content)

    def _survey(self, keys: int, content: memoryview) -> Mail:
        now = self.now
        members, self.key, head, masked = open_masked(now, self.secret, keys, content)
        if not members <= self.seeds.keys():
            raise StageAbort(
                "agree", "the server lists clients that never reached this one", "server"
            )
        now.enough("agree", members)
        told, self.direction = read_direction(head, now.plan.d)
        if told != NOBODY and not self.recipe.directed:
            raise Malformed("a direction for a rule that has none")
        if (
            self.direction is not None
            and not now.signs
            and np.count_nonzero(self.direction.values) < 2
        ):
            why = (
                "the server's reference has a single coordinate, and comparing with it would tell"
                " that coordinate of every client"
            )
            raise StageAbort("agree", why, "server")
        n = len(members)
        self.positions, self.unknown, self.asked = tuple(sorted(members)), told == UNKNOWN, True
        self.opened = bytes(masked) if self.recipe.hidden else b""
        seeds, self.own = [self.seeds[i] for i in self.positions], secrets.token_bytes(SEED_SIZE)
        if not now.signs:
            values = None if self.direction is None else self.direction.values
            survey = Survey(now, n, coin_of(now, head[:SEED_SIZE], self.half or b""), values)
            crossed(now, SeedRows(seeds), masked, survey, self.key)
            self.shares = survey.shares()
        sealed_boxes = seal_to(
            self.dealer, b"".join((self.own, *seeds)), now.bound_to("deal", "server/1"), now.library
        )
        return {"dealer": now.write(DEAL, 1, fields.bit_set(members, now.plan.n), sealed_boxes)}

    def _begin(self, body: Buffer) -> Mail:
        now, n, recipe = self.now, len(self.positions), self.recipe
        demand, seeds, flips = recipe.demand(now, n), [self.seeds[i] for i in self.positions], None
        try:
            _, content = now.read(body, DEALT)
            words = memoryview(unseal_dealt(now, self.own, bytes(content)))
            bulk = words[8 * demand.dealt :]
            if now.signs:
                flips = received_flips(now, self.own, bulk, n, recipe.hidden)
            elif bulk:
                raise Malformed(f"{len(bulk)} bytes too many")
            preprocessing = second_preprocessing(
                self.own, words[: 8 * demand.dealt], demand, now.library
            )
        except Malformed as malformed:
            raise StageAbort(
                "deal", f"the message of dealer cannot be used: {malformed}", "dealer"
            ) from None
        machine = Machine(
            now,
            False,
            self.positions,
            recipe.program(now, self.unknown),
            SeedRows(seeds),
            preprocessing,
            direction=self.direction,
            opened=self.opened,
            key=self.key,
            seed=self.own,
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
        return {"server": seal_steps(self.now, self.key, b"2", self.sent, frames)}
