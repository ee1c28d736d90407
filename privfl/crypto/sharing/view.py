"""What a coalition can compute from a round's wire and its own keys, really computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import (
    Buffer,
    ClientId,
    ConfigError,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    Total,
    client_of,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import Backend, Words, fields, mask, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import RINGS, lift, word
from privfl.crypto.sharing.additive import SEED
from privfl.crypto.sharing.parameters import FORMAT, HELD, SEEDS, SUM, VECTOR, bound_to


@dataclass(frozen=True, slots=True)
class _Round:
    """What the vectors of one round say alike of it: whose messages say otherwise is of another
    round, or lies.
    """

    tag: bytes
    ring: int
    facts: bytes

    @property
    def plan(self) -> RoundPlan:
        return fields.read_facts(memoryview(self.facts))[0]


def decode(
    code: FixedPoint,
    others: tuple[PartyId, ...],
    received: Received,
    keys: Mapping[PartyId, PartyKeys],
    library: Backend,
) -> Rows | Total | None:
    """What a coalition can compute: rows from the first server's vectors and all other servers'
    seeds, the total from its mail alone.

    The round is what most clients say that it is; a message of another round, or that is none, is
    passed over.
    """
    said: Counter[_Round] = Counter()
    sent: dict[_Round, dict[ClientId, tuple[int, Words]]] = {}
    for who, body in mail_of(received, "server"):
        client = client_of(who)
        try:
            if client is not None:
                now, position, words = _vector(code, body)
                said[now] += 1
                sent.setdefault(now, {}).setdefault(client, (position, words))
        except Malformed:
            continue
    if not said:
        return None
    now = said.most_common(1)[0][0]
    rows = _rows(code, now, sent[now], others, received, keys, library)
    return rows or _total(code, now, sent[now], others, received)


def mail_of(received: Received, party: PartyId) -> Iterator[tuple[PartyId, Buffer]]:
    """Every letter that a party was handed, and who sent it."""
    for mail in received.get(party, ()):
        yield from mail.items()


def _vector(code: FixedPoint, body: Buffer) -> tuple[_Round, int, Words]:
    """A client's round, place and vector.

    Raises:
        Malformed: it is no vector of any round.
    """
    kind, ring, position, tag, content = FORMAT.read(body)
    if kind != VECTOR or ring not in RINGS:
        raise Malformed("no vector")
    plan, packed = fields.read_facts(content)
    if position >= plan.n:
        raise Malformed("outside of the cohort")
    try:
        code.scale(plan)
    except ConfigError as wrong:
        raise Malformed(str(wrong)) from None
    facts = bytes(content[: len(content) - len(packed)])
    return _Round(tag, ring, facts), position, fields.unpack(packed, ring, code.length(plan))


def _total(
    code: FixedPoint,
    now: _Round,
    vectors: Mapping[ClientId, tuple[int, Words]],
    others: tuple[PartyId, ...],
    received: Received,
) -> Total | None:
    plan = now.plan
    sums: dict[PartyId, Words] = {}
    held: dict[PartyId, frozenset[int]] = {}
    for who, body in mail_of(received, "server"):
        try:
            kind, _, _, _, content = FORMAT.read(body, now.tag)
            if who in others and kind == HELD:
                held.setdefault(who, fields.read_bit_set(content, plan.n)[0])
            elif who in others and kind == SUM:
                sums.setdefault(who, fields.unpack(content, now.ring, code.length(plan)))
        except Malformed:
            continue
    places: dict[int, Words] = {}
    for position, vector in vectors.values():
        places.setdefault(position, vector)
    left = frozenset(places).intersection(*held.values())
    if len(sums) < len(others) or len(held) < len(others) or not left:
        return None
    total: Words = np.zeros(code.length(plan), dtype=word(now.ring))
    for share in [*sums.values(), *(places[i] for i in sorted(left))]:
        np.add(total, share, out=total)
    return code.decode(lift(total, now.ring), plan, len(left))


def _rows(
    code: FixedPoint,
    now: _Round,
    vectors: Mapping[ClientId, tuple[int, Words]],
    others: tuple[PartyId, ...],
    received: Received,
    keys: Mapping[PartyId, PartyKeys],
    library: Backend,
) -> Rows | None:
    if not set(others) <= keys.keys():
        return None
    plan = now.plan
    seeds: dict[ClientId, dict[PartyId, bytes]] = {client: {} for client in vectors}
    for server in others:
        for who, body in mail_of(received, server):
            client = client_of(who)
            if client is None or client not in vectors:
                continue
            try:
                kind, _, position, _, content = FORMAT.read(body, now.tag)
                if kind == SEEDS and position == vectors[client][0]:
                    context = bound_to(now.tag, position, server)
                    seed = open_one(content, SEED, keys[server], context)
                    seeds[client].setdefault(server, seed)
            except Malformed:
                continue
    singles: dict[ClientId, Total] = {}
    for client, (_, words) in sorted(vectors.items(), key=lambda item: item[1][0]):
        if len(seeds[client]) < len(others):
            continue
        vector = np.array(words, dtype=word(now.ring))
        mask(vector, [(seed, 1) for seed in seeds[client].values()], library)
        singles[client] = code.decode(lift(vector, now.ring), plan, 1)
    return rows_of(singles)


def rows_of(singles: Mapping[ClientId, Total]) -> Rows | None:
    """The rows of sums of one client each; None of none."""
    if not singles:
        return None
    values = [one.value / one.weight if one.weight else one.value for one in singles.values()]
    weights = torch.tensor([one.weight for one in singles.values()])
    return Rows(torch.stack(values), weights, tuple(singles))
