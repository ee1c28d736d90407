"""What a coalition can compute from its mail, its keys and what it added itself, really computed:
who knows the sums before and after a client knows what it added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

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
from privfl.crypto.chain.parameters import (
    FORMAT,
    LINK,
    ORDER,
    SEED,
    bound_to,
    neighbours,
    read_order,
    seed_bound_to,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import Backend, Words, fields, mask, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import RINGS, lift, word
from privfl.crypto.sharing.view import rows_of


@dataclass(frozen=True, slots=True, repr=False)
class OwnSums:
    """What a coalition has of its own: keys by party, the server's seeds by round, and by round and
    client its place and what it added.
    """

    keys: Mapping[PartyId, PartyKeys]
    seeds: Mapping[bytes, bytes]
    added: Mapping[bytes, Mapping[ClientId, tuple[int, Words]]]


@dataclass(frozen=True, slots=True)
class _Round:
    """What the letters of one round say alike of it."""

    tag: bytes
    ring: int
    facts: bytes
    order: frozenset[int]

    @property
    def plan(self) -> RoundPlan:
        return fields.read_facts(memoryview(self.facts))[0]


@dataclass(slots=True)
class _Known:
    """The sums that a coalition knows after each place of the chain; None is before the first."""

    sums: dict[int | None, Words] = field(default_factory=dict)
    clients: dict[int, ClientId] = field(default_factory=dict)

    def closed(self, order: frozenset[int], added: Mapping[int, Words]) -> None:
        """Add what follows from what the coalition added itself."""
        for place in sorted(order):
            before = neighbours(order, place)[0]
            if place in added and before in self.sums:
                self.sums.setdefault(place, self.sums[before] + added[place])
        for place in sorted(order, reverse=True):
            before = neighbours(order, place)[0]
            if place in added and place in self.sums:
                self.sums.setdefault(before, self.sums[place] - added[place])


def decode(
    code: FixedPoint, received: Received, own: OwnSums, library: Backend
) -> Rows | Total | None:
    """What a coalition can compute: the row of every client before and after which it knows the
    sum; the total where it knows the first client's seed and the last one's sum.

    The round is what most letters say that it is; a letter of another round, or that is none, is
    passed over.
    """
    said: Counter[_Round] = Counter()
    letters: list[tuple[_Round, PartyId, PartyId, int, memoryview]] = []
    for to, mails in received.items():
        for who, body in ((who, body) for mail in mails for who, body in mail.items()):
            try:
                now, position, boxes = _link(code, body)
            except Malformed:
                continue
            said[now] += 1
            letters.append((now, to, who, position, boxes))
    if not said:
        return None
    now = said.most_common(1)[0][0]
    known, plan = _Known(), now.plan
    size = code.length(plan) * now.ring // 8
    bits = fields.bit_set(now.order, plan.n)
    for its, to, who, position, boxes in letters:
        client = client_of(who)
        if its != now or client is None or to not in own.keys or position not in now.order:
            continue
        try:
            packed = open_one(boxes, size, own.keys[to], bound_to(now.tag, bits, position, to))
            words = fields.unpack(memoryview(packed), now.ring, code.length(plan))
        except Malformed:
            continue
        known.sums.setdefault(position, words)
        known.clients.setdefault(position, client)
    _mask_of(code, now, received, own, known, library)
    added = own.added.get(now.tag, {})
    known.closed(now.order, dict(added.values()))
    return _opened(code, now, known, frozenset(place for place, _ in added.values()))


def _link(code: FixedPoint, body: Buffer) -> tuple[_Round, int, memoryview]:
    """A letter's round, its sender's place, and the boxes in it.

    Raises:
        Malformed: it is no link of any chain.
    """
    kind, ring, position, tag, content = FORMAT.read(body)
    if kind != LINK or ring not in RINGS:
        raise Malformed("no link")
    plan, rest = fields.read_facts(content)
    order, boxes = fields.read_bit_set(rest, plan.n)
    try:
        code.scale(plan)
    except ConfigError as wrong:
        raise Malformed(str(wrong)) from None
    facts = bytes(content[: len(content) - len(rest)])
    return _Round(tag, ring, facts, order), position, boxes


def _mask_of(
    code: FixedPoint,
    now: _Round,
    received: Received,
    own: OwnSums,
    known: _Known,
    library: Backend,
) -> None:
    """Note the sum before the first client: the seed is the server's, and the first one's."""
    seed, bits = own.seeds.get(now.tag), fields.bit_set(now.order, now.plan.n)
    for who, keys in own.keys.items():
        for body in (mail["server"] for mail in received.get(who, ()) if "server" in mail):
            try:
                kind, _, _, _, content = FORMAT.read(body, now.tag)
                if seed is None and kind == ORDER:
                    order, _, boxes = read_order(content, now.plan.n)
                    if order == now.order:
                        seed = open_one(boxes, SEED, keys, seed_bound_to(now.tag, bits, who))
            except Malformed:
                continue
    if seed is not None:
        known.sums[None] = np.zeros(code.length(now.plan), dtype=word(now.ring))
        mask(known.sums[None], [(seed, 1)], library)


def _opened(
    code: FixedPoint, now: _Round, known: _Known, own: frozenset[int]
) -> Rows | Total | None:
    plan, sums = now.plan, known.sums
    singles: dict[ClientId, Total] = {}
    for place in sorted(now.order - own):
        before = neighbours(now.order, place)[0]
        if place in sums and before in sums and place in known.clients:
            row = lift(sums[place] - sums[before], now.ring)
            singles[known.clients[place]] = code.decode(row, plan, 1)
    last = max(now.order)
    if singles or None not in sums or last not in sums:
        return rows_of(singles)
    return code.decode(lift(sums[last] - sums[None], now.ring), plan, len(now.order))
