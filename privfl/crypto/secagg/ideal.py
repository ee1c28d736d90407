"""The ideal functionality: a trusted party that sums the same integers. For large sweeps; it
protects nothing outside of a simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    KeepsSecrets,
    Mail,
    Member,
    Opened,
    PartyId,
    Received,
    RoundPlan,
    Rows,
    Silent,
    Total,
    client_of,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Words, fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import lift
from privfl.crypto.secagg import wire
from privfl.crypto.secagg.client import ring_vector
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings, parameters_of
from privfl.crypto.secagg.stage import Kind

TRUSTED: PartyId = "trusted/0"


@dataclass(repr=False)
class _Client(KeepsSecrets):
    parameters: SecAggParameters
    who: ClientId
    position: int
    facts: bytes
    vector: Words | None
    refused: str | None

    def step(self, mail: Mail) -> Mail:
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.who))
        if self.vector is None or mail:
            return {}
        vector, self.vector = self.vector, None
        message = wire.write(
            Kind.MASKED,
            self.parameters.ring,
            self.position,
            self.parameters.tag,
            self.facts,
            fields.pack(vector, self.parameters.ring),
        )
        return {TRUSTED: message}


@dataclass(repr=False)
class _Trusted(KeepsSecrets):
    parameters: SecAggParameters
    plan: RoundPlan
    total: Words
    summed: set[int] = field(default_factory=set)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    done: bool = False

    def step(self, mail: Mail) -> Mail:
        if not mail or self.done:
            return {}
        for who, body in mail.items():
            client = client_of(who)
            try:
                kind, position, _, content = wire.read(body, self.parameters.tag)
                if (
                    client is None
                    or kind is not Kind.MASKED
                    or position >= self.plan.n
                    or self.plan.cohort[position] != client
                ):
                    raise Malformed("not a contribution of the cohort")
                packed = fields.after_facts(content, fields.facts(self.plan))
                np.add(
                    self.total,
                    fields.unpack(packed, self.parameters.ring, self.parameters.length),
                    out=self.total,
                )
                self.summed.add(position)
            except Malformed as malformed:
                self.excluded[who] = f"stage masked_input: {malformed}"
        if len(self.summed) < self.parameters.quorum:
            lost = [
                client_party(client)
                for i, client in enumerate(self.plan.cohort)
                if i not in self.summed
            ]
            raise StageAbort(
                "masked_input",
                f"{len(self.summed)} clients are left, and the threshold is"
                f" {self.parameters.quorum}",
                who=lost,
            )
        self.done = True
        names = "\n".join(f"{who}\t{why}" for who, why in self.excluded.items()).encode()
        body = wire.write(
            Kind.UNMASK,
            self.parameters.ring,
            0,
            self.parameters.tag,
            fields.facts(self.plan),
            fields.bit_set(self.summed, self.plan.n),
            fields.pack(self.total, self.parameters.ring),
            names,
        )
        return {"server": body}


def _read(
    settings: SecAggSettings, body: memoryview | bytes | bytearray, plan: RoundPlan | None
) -> tuple[Total, list[int], dict[PartyId, str]]:
    _, _, _, content = wire.read(body)
    known, rest = fields.read_facts(content)
    now = parameters_of(settings, plan or known)
    summed, rest = fields.read_bit_set(rest, known.n)
    size = now.length * now.ring // 8
    total = fields.unpack(rest[:size], now.ring, now.length)
    lines = bytes(rest[size:]).decode().splitlines()
    excluded = dict(line.split("\t", 1) for line in lines)
    return (
        settings.code.decode(lift(total, now.ring), plan or known, len(summed)),
        sorted(summed),
        excluded,
    )


@dataclass
class _Server:
    settings: SecAggSettings
    plan: RoundPlan
    result: Opened[Total] | None = None

    def step(self, mail: Mail) -> Mail:
        if TRUSTED in mail:
            total, summed, excluded = _read(self.settings, mail[TRUSTED], self.plan)
            self.result = Opened(
                total, tuple(self.plan.cohort[i] for i in summed), excluded=excluded
            )
        return {}


@dataclass
class _Member:
    settings: SecAggSettings

    def set_up(self) -> Silent:
        """Nothing to say."""
        return Silent()


@dataclass
class IdealClientMember(_Member):
    """A client that tells the trusted party."""

    who: ClientId

    def enter(self, plan: RoundPlan, update: Bounded) -> _Client:
        """Its part in one round."""
        now, vector, refused = parameters_of(self.settings, plan), None, None
        try:
            vector = ring_vector(self.settings, update, plan, now)
        except BadUpdate as bad:
            refused = str(bad)
        return _Client(
            now, self.who, plan.cohort.index(self.who), fields.facts(plan), vector, refused
        )


class IdealServerMember(_Member):
    """A server that is told the sum."""

    def enter(self, plan: RoundPlan) -> _Server:
        """Its part in one round."""
        parameters_of(self.settings, plan)
        return _Server(self.settings, plan)


class TrustedMember(_Member):
    """The trusted party."""

    def enter(self, plan: RoundPlan) -> _Trusted:
        """Its part in one round."""
        now = parameters_of(self.settings, plan)
        return _Trusted(now, plan, np.zeros(now.length, dtype=now.dtype))


def decode(
    settings: SecAggSettings, received: Received, members: Mapping[PartyId, Member]
) -> Rows | Total | None:
    """The sum that the server was told. What the trusted party hears, nobody does but itself, who
    reads every update.
    """
    if TRUSTED in members:
        rows = _rows(settings, received)
        if rows is not None:
            return rows
    for mail in received.get("server", ()):
        if TRUSTED in mail:
            return _read(settings, memoryview(mail[TRUSTED]), None)[0]
    return None


def _rows(settings: SecAggSettings, received: Received) -> Rows | None:
    found: dict[ClientId, Total] = {}
    for mail in received.get(TRUSTED, ()):
        for who, body in mail.items():
            client = client_of(who)
            try:
                kind, _, _, content = wire.read(body)
                plan, packed = fields.read_facts(content)
                if kind is not Kind.MASKED or client is None:
                    continue
                ring = wire.FORMAT.read(body).ring
                vector = fields.unpack(packed, ring, settings.code.length(plan))
                found[client] = settings.code.decode(lift(vector, ring), plan, 1)
            except (Malformed, ValueError):
                continue
    if not found:
        return None
    values = torch.stack([total.mean() for total in found.values()])
    return Rows(values, torch.tensor([t.weight for t in found.values()]), tuple(found))


__all__: list[str] = [
    "TRUSTED",
    "IdealClientMember",
    "IdealServerMember",
    "TrustedMember",
    "decode",
]
