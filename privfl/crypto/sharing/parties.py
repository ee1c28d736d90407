"""The parties of additive sharing: clients that split, servers that add, and the one that learns
the sum.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from privfl.core import (
    Buffer,
    ClientId,
    KeepsSecrets,
    Mail,
    Opened,
    PartyId,
    Received,
    RoundPlan,
    Rows,
    Total,
    client_of,
    client_party,
)
from privfl.crypto import cohort
from privfl.crypto.abort import StageAbort
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import (
    Backend,
    BackendName,
    Words,
    backend,
    fields,
    mask,
    open_box,
    seal_box,
)
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.sealed_box import OVERHEAD
from privfl.crypto.ring import lift, word
from privfl.crypto.sharing.additive import SEED, split

_HEADER = struct.Struct("<4sBBHI16s")
"""Magic and version, kind, bits of the ring, nothing, the client's place in the cohort, the round's
tag.
"""
_MAGIC = b"PAS\x01"
_VECTOR, _SEEDS, _HELD, _SURVIVORS, SUM = range(5)


@dataclass(frozen=True, slots=True)
class SharingParameters:
    """A round's public parameters; ``tag`` stands for all of them and is in every message."""

    tag: bytes
    plan: RoundPlan
    code: FixedPoint
    ring: int
    quorum: int
    others: tuple[PartyId, ...]
    library_name: BackendName

    @property
    def length(self) -> int:
        """How many ring elements a contribution has."""
        return self.code.length(self.plan)

    def write(self, kind: int, position: int, *parts: Buffer) -> bytes:
        """A whole message."""
        return b"".join((_HEADER.pack(_MAGIC, kind, self.ring, 0, position, self.tag), *parts))

    def read(self, body: Buffer, kind: int) -> tuple[int, memoryview]:
        """Position and content of a message of this kind.

        Raises:
            Malformed: it is none, or another round's.
        """
        found, position, tag, content = _read(body)
        if tag != self.tag:
            raise Malformed(
                "it belongs to another round, or its sender runs it with other parameters"
            )
        if found != kind:
            raise Malformed("it is out of order")
        return position, content

    def sender(self, who: PartyId, body: Buffer, kind: int) -> tuple[int, memoryview]:
        """Position and content of a client's message.

        Raises:
            Malformed: as `read`, or it claims another's place.
        """
        client = cohort.member_of(self.plan, who)
        position, content = self.read(body, kind)
        cohort.own_place(self.plan, client, position)
        return position, content

    def name(self, position: int) -> PartyId:
        """The party at a place of the cohort."""
        return client_party(self.plan.cohort[position])

    def enough(self, stage: str, left: Collection[int]) -> None:
        """Refuse to go on with fewer contributions than the quorum.

        Raises:
            StageAbort: fewer are left.
        """
        cohort.enough(self.plan, self.quorum, stage, left)


def _read(body: Buffer) -> tuple[int, int, bytes, memoryview]:
    if len(body) < _HEADER.size:
        raise Malformed(f"{len(body)} bytes are no message")
    magic, kind, _, nothing, position, tag = _HEADER.unpack_from(body)
    if magic != _MAGIC or nothing:
        raise Malformed("not an additive sharing message of this version")
    return kind, position, tag, memoryview(body)[_HEADER.size :]


@dataclass(repr=False)
class SharingClientParty(KeepsSecrets):
    """A client in one round: it speaks once."""

    round: SharingParameters
    who: ClientId
    position: int
    boxes: Mapping[PartyId, tuple[bytes, ...]]
    vector: Words | None
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """The first server's share, and everybody else's seed, sealed."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.who))
        if self.vector is None:
            return {}
        vector, seeds = split(self.vector, len(self.boxes) + 1)
        self.vector = None
        now, library = self.round, backend(self.round.library_name)
        out: dict[PartyId, Buffer] = {
            "server": now.write(
                _VECTOR, self.position, fields.facts(now.plan), fields.pack(vector, now.ring)
            )
        }
        for (who, boxes), seed in zip(self.boxes.items(), seeds, strict=True):
            sealed_boxes = (
                seal_box(box, seed, _bound_to(now.tag, self.position, who), library)
                for box in boxes
            )
            out[who] = now.write(_SEEDS, self.position, *sealed_boxes)
        return out


def _bound_to(tag: bytes, position: int, server: PartyId) -> bytes:
    return tag + position.to_bytes(4, "little") + server.encode()


def _open_seed(content: memoryview, secret: bytes, context: bytes, library: Backend) -> bytes:
    """The seed from the one of the sealed_boxes that this key opens.

    Raises:
        Malformed: none does.
    """
    size = OVERHEAD + SEED
    for start in range(0, len(content) - size + 1, size):
        seed = open_box(secret, bytes(content[start : start + size]), context, library)
        if seed is not None:
            return seed
    raise Malformed("no sealed_box that this server can open")


@dataclass(repr=False)
class HelperParty(KeepsSecrets):
    """Another server in one round: it says whom it heard, and adds up once, for a set that the
    quorum is in.
    """

    round: SharingParameters
    name: PartyId
    secret: bytes
    seeds: dict[int, bytes] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    told: bool = False
    done: bool = False

    def step(self, mail: Mail) -> Mail:
        """Hear the clients, then the first server."""
        now = self.round
        heard = {who: body for who, body in mail.items() if client_of(who) is not None}
        if heard and not self.told:
            for who, body in heard.items():
                self._hear(who, body)
            self.told = True
            reasons = "\n".join(f"{who}\t{why}" for who, why in self.excluded.items()).encode()
            return {"server": now.write(_HELD, 0, fields.bit_set(self.seeds, now.plan.n), reasons)}
        if "server" in mail and self.told and not self.done:
            return {"server": self._sum(mail["server"])}
        return {}

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, content = self.round.sender(who, body, _SEEDS)
            context = _bound_to(self.round.tag, position, self.name)
            self.seeds[position] = _open_seed(
                content, self.secret, context, backend(self.round.library_name)
            )
        except Malformed as malformed:
            self.excluded[who] = f"stage share: {malformed}"

    def _sum(self, body: Buffer) -> bytes:
        now = self.round
        try:
            _, content = now.read(body, _SURVIVORS)
            survivors, rest = fields.read_bit_set(content, now.plan.n)
            fields.ends(rest)
        except Malformed as malformed:
            raise StageAbort(
                "sum", f"the server's message cannot be used: {malformed}", "server"
            ) from None
        if not survivors <= self.seeds.keys():
            raise StageAbort(
                "sum", "the server lists clients that never reached this one", "server"
            )
        now.enough("sum", survivors)
        total: Words = np.zeros(now.length, dtype=word(now.ring))
        mask(total, [(self.seeds[i], 1) for i in sorted(survivors)], backend(now.library_name))
        self.done, self.seeds = True, {}
        return now.write(SUM, 0, fields.pack(total, now.ring))


@dataclass(repr=False)
class SharingServerParty(KeepsSecrets):
    """The first server in one round."""

    round: SharingParameters
    vectors: dict[int, Words] = field(default_factory=dict)
    held: dict[PartyId, frozenset[int]] = field(default_factory=dict)
    survivors: frozenset[int] = frozenset()
    asked: bool = False
    sums: dict[PartyId, Words] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    result: Opened[Total] | None = None

    def step(self, mail: Mail) -> Mail:
        """Hear the clients, agree with the servers on whom to sum, and add the sums up."""
        now = self.round
        for who, body in mail.items():
            if who not in now.others:
                self._hear(who, body)
        reports = {who: body for who, body in mail.items() if who in now.others}
        if not reports or self.result is not None:
            return {}
        if not self.asked:
            return self._ask(reports)
        return self._open(reports)

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, content = self.round.sender(who, body, _VECTOR)
            if position in self.vectors or self.asked:
                return
            packed = fields.after_facts(content, fields.facts(self.round.plan))
            self.vectors[position] = fields.unpack(packed, self.round.ring, self.round.length)
        except Malformed as malformed:
            self.excluded.setdefault(who, f"stage share: {malformed}")

    def _ask(self, reports: Mapping[PartyId, Buffer]) -> Mail:
        now = self.round
        self._all(reports, "agree")
        left = set(self.vectors)
        for who, body in reports.items():
            try:
                _, content = now.read(body, _HELD)
                held, reasons = fields.read_bit_set(content, now.plan.n)
                lines = [line.partition("\t") for line in bytes(reasons).decode().splitlines()]
            except (Malformed, UnicodeDecodeError) as malformed:
                raise StageAbort(
                    "agree", f"the message of {who} cannot be used: {malformed}", who
                ) from None
            for client, _, why in lines:
                self.excluded.setdefault(client, f"{why} ({who})")
            left &= held
        now.enough("agree", left)
        self.survivors, self.asked = frozenset(left), True
        message = now.write(_SURVIVORS, 0, fields.bit_set(left, now.plan.n))
        return dict.fromkeys(now.others, message)

    def _all(self, reports: Mapping[PartyId, Buffer], stage: str) -> None:
        missing = [who for who in self.round.others if who not in reports]
        if missing:
            raise StageAbort(
                stage,
                f"{', '.join(missing)} said nothing, and without every server there is no sum",
                missing[0],
                missing,
            )

    def _open(self, reports: Mapping[PartyId, Buffer]) -> Mail:
        now = self.round
        self._all(reports, "sum")
        total: Words = np.zeros(now.length, dtype=word(now.ring))
        for who, body in reports.items():
            try:
                _, content = now.read(body, SUM)
                np.add(total, fields.unpack(content, now.ring, now.length), out=total)
            except Malformed as malformed:
                raise StageAbort(
                    "sum", f"the sum of {who} cannot be used: {malformed}", who
                ) from None
        for i in self.survivors:
            np.add(total, self.vectors[i], out=total)
        opened = now.code.decode(lift(total, now.ring), now.plan, len(self.survivors))
        clients = tuple(client for i, client in enumerate(now.plan.cohort) if i in self.survivors)
        self.result = Opened(opened, clients, excluded=dict(self.excluded))
        return {}


def decode(
    code: FixedPoint,
    others: tuple[PartyId, ...],
    received: Received,
    secrets: Mapping[PartyId, bytes],
    library: Backend,
) -> Rows | Total | None:
    """What a coalition can compute: rows from the first server's vectors and all other servers'
    seeds, the total from its mail alone.
    """
    vectors: dict[int, tuple[ClientId, Words]] = {}
    sums: dict[PartyId, Words] = {}
    held: list[frozenset[int]] = []
    plan, ring, tag = None, 32, b""
    for mail in received.get("server", ()):
        for who, body in mail.items():
            try:
                kind, position, its_tag, content = _read(body)
                client = client_of(who)
                if kind == _VECTOR and client is not None:
                    plan, packed = fields.read_facts(content)
                    ring, tag = _HEADER.unpack_from(body)[2], its_tag
                    vectors.setdefault(
                        position, (client, fields.unpack(packed, ring, code.length(plan)))
                    )
                elif plan is not None and kind == _HELD:
                    held.append(fields.read_bit_set(content, plan.n)[0])
                elif plan is not None and kind == SUM and who in others:
                    sums[who] = fields.unpack(content, ring, code.length(plan))
            except Malformed:
                continue
    if plan is None:
        return None
    rows = _rows(code, plan, ring, tag, vectors, others, received, secrets, library)
    if rows is not None:
        return rows
    left = frozenset(vectors).intersection(*held)
    if len(sums) < len(others) or not left:
        return None
    total: Words = np.zeros(code.length(plan), dtype=word(ring))
    for share in [*sums.values(), *(vectors[i][1] for i in left)]:
        np.add(total, share, out=total)
    return code.decode(lift(total, ring), plan, len(left))


def _rows(
    code: FixedPoint,
    plan: RoundPlan,
    ring: int,
    tag: bytes,
    vectors: Mapping[int, tuple[ClientId, Words]],
    others: tuple[PartyId, ...],
    received: Received,
    secrets: Mapping[PartyId, bytes],
    library: Backend,
) -> Rows | None:
    if not set(others) <= secrets.keys():
        return None
    seeds: dict[int, list[bytes]] = {i: [] for i in vectors}
    for server in others:
        for mail in received.get(server, ()):
            for body in mail.values():
                try:
                    kind, position, its_tag, content = _read(body)
                    if kind == _SEEDS and its_tag == tag and position in seeds:
                        seeds[position].append(
                            _open_seed(
                                content, secrets[server], _bound_to(tag, position, server), library
                            )
                        )
                except Malformed:
                    continue
    values, weights, ids = [], [], []
    for i in sorted(i for i, found in seeds.items() if len(found) == len(others)):
        vector = np.array(vectors[i][1], dtype=word(ring))
        mask(vector, [(seed, 1) for seed in seeds[i]], library)
        single = code.decode(lift(vector, ring), plan, 1)
        values.append(single.value / single.weight if single.weight else single.value)
        weights.append(single.weight)
        ids.append(vectors[i][0])
    return Rows(torch.stack(values), torch.tensor(weights), tuple(ids)) if values else None
