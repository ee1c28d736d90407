"""A round's mail, sorted out again from what its server was handed, and the honest server's party
that it is replayed through.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from privfl.core import (
    Buffer,
    ClientId,
    KnownKeys,
    Mail,
    NotVisible,
    PartyId,
    Received,
    RoundPlan,
    client_of,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg import wire
from privfl.crypto.secagg.keys import SIGNATURE
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings, epoch
from privfl.crypto.secagg.server import SecAggServerParty
from privfl.crypto.secagg.stage import Kind

_TRIES = 8
"""How many ways are tried to say who is who, where two claim one place."""


class NoDirectory:
    """Nobody's keys: whoever looks at a wire may have no directory."""

    def keys(self, who: PartyId) -> tuple[bytes, ...]:
        """None."""
        return ()

    def boxes(self, who: PartyId) -> tuple[bytes, ...]:
        """None."""
        return ()


@dataclass(frozen=True)
class KnownAhead:
    """What who looks at a server's mail knows beside it: the directory, where one of its parties
    has one, and the keys that came ahead of their round and whose, by the round's tag and place;
    ``forgot``: tags of rounds whose keys it knew once.
    """

    directory: KnownKeys | None = None
    ahead: Mapping[bytes, Mapping[int, tuple[ClientId, bytes]]] = field(default_factory=dict)
    forgot: Collection[bytes] = ()


@dataclass(frozen=True)
class ToldOfKeys:
    """What the mail that clients of one round were handed says of whom the server took keys of:
    to whom it ``wrote`` of keys, and whose ``keys``, by place. ``clients``: whose mail was seen.
    """

    clients: frozenset[PartyId]
    wrote: frozenset[PartyId]
    keys: Mapping[int, bytes]

    @classmethod
    def of(cls, received: Received, tag: bytes, now: SecAggParameters) -> ToldOfKeys:
        """Read it off; what is malformed says nothing."""
        clients = frozenset(who for who in received if client_of(who) is not None)
        wrote: set[PartyId] = set()
        public: dict[int, bytes] = {}
        for who in sorted(clients):
            for mail in received[who]:
                try:
                    kind, _, _, content = wire.read(mail.get("server", b""), tag)
                    if kind is not Kind.KEYS:
                        continue
                    rows = fields.read_table(content, now.key_bytes, now.n)[0]
                except Malformed:
                    continue
                wrote.add(who)
                public |= {place: bytes(row) for place, row in rows.items()}
        return cls(clients, frozenset(wrote), public)


def rounds_in(
    mails: Sequence[Mail],
) -> Iterator[tuple[list[Mail], bytes, Mapping[int, ClientId]]]:
    """The rounds that a server's mail can be read as, the one with most senders first: what belongs
    to it (the server's notes to itself among it), its facts, who is where in its cohort.
    """
    senders: dict[bytes, set[PartyId]] = {}
    for mail in mails:
        for who, body in mail.items():
            tag = _tag(who, body)
            if tag is not None:
                senders.setdefault(tag, set()).add(who)
    for tag in sorted(senders, key=lambda tag: -len(senders[tag])):
        own = [{who: b for who, b in mail.items() if _tag(who, b) == tag} for mail in mails]
        facts = _facts(own)
        if facts:
            for cohort in _cohorts(own):
                yield [_noted(*both) for both in zip(own, mails, strict=True)], facts, cohort


def _noted(own: Mail, mail: Mail) -> Mail:
    return {**own, "server": mail["server"]} if "server" in mail else own


def _tag(who: PartyId, body: Buffer) -> bytes | None:
    try:
        return None if client_of(who) is None else wire.read(body)[2]
    except Malformed:
        return None


def _facts(mails: Sequence[Mail]) -> bytes:
    """What most senders of masked vectors say that the round is; nothing where there are none."""
    said: Counter[bytes] = Counter()
    for mail in mails:
        for body in mail.values():
            kind, _, _, content = wire.read(body)
            if kind is not Kind.MASKED:
                continue
            try:
                rest = fields.read_facts(content)[1]
            except Malformed:
                continue
            said[bytes(content[: len(content) - len(rest)])] += 1
    return said.most_common(1)[0][0] if said else b""


def _cohorts(mails: Sequence[Mail]) -> Iterator[dict[int, ClientId]]:
    """Who is where, as each claims most often; then with one contested place given to another."""
    claims: dict[PartyId, Counter[int]] = {}
    for mail in mails:
        for who, body in mail.items():
            claims.setdefault(who, Counter())[wire.read(body)[1]] += 1
    by_place: dict[int, list[ClientId]] = {}
    for who in sorted(claims, key=lambda who: -claims[who].total()):
        place, client = claims[who].most_common(1)[0][0], client_of(who)
        if client is not None:
            by_place.setdefault(place, []).append(client)
    first = {place: clients[0] for place, clients in by_place.items()}
    yield first
    contested = [(p, c) for p, clients in sorted(by_place.items()) for c in clients[1:]]
    for place, client in contested[: _TRIES - 1]:
        yield {**first, place: client}


def replayed(
    settings: SecAggSettings,
    now: SecAggParameters,
    plan: RoundPlan,
    facts: bytes,
    mails: Sequence[Mail],
    known: KnownAhead,
    told: ToldOfKeys,
) -> SecAggServerParty:
    """The honest server's party, before it is handed this mail.

    It checks who signed keys where the directory is known. Where it is not, and clients' mail is,
    it hears whom the server wrote of keys. Keys that came ahead of the round are those that the
    server's member kept, or that clients were told; else their owners are taken for known.

    Raises:
        NotVisible: the server's member kept them, and has forgotten them.
    """
    party = SecAggServerParty(
        now,
        plan,
        settings.code,
        known.directory or NoDirectory(),
        settings.backend,
        epoch(plan, plan.number),
        facts,
        settings.carry,
        {},
        {},
        signed=known.directory is not None,
    )
    if not party.signed and told.wrote:
        for client in plan.cohort:
            if client_party(client) in told.clients - told.wrote:
                party.excluded[client_party(client)] = "stage advertise: it was told no keys"
    if not settings.carry:
        return party
    signed = bytes(SIGNATURE if now.active else 0)
    ahead = known.ahead.get(now.tag)
    if ahead is None and now.tag in known.forgot:
        raise NotVisible(
            f"round {plan.number}: the server has forgotten the keys that came ahead of it, because"
            f" it keeps those of {len(known.ahead)} rounds: look at a round when it ends."
        )
    if ahead is None:
        party.signed = False
        places = told.keys or _spoke(mails, now)
        ahead = {place: (plan.cohort[place], key + signed) for place, key in places.items()}
    party.carried = dict(ahead.values())
    with contextlib.suppress(StageAbort):
        party.step({})
    return party


def _spoke(mails: Sequence[Mail], now: SecAggParameters) -> Mapping[int, bytes]:
    """Who sent shares without keys before, by place, with a key that nobody has."""
    kinds: dict[int, set[Kind]] = {}
    for mail in mails:
        for who, body in mail.items():
            if who != "server":
                kind, place, *_ = wire.read(body)
                kinds.setdefault(place, set()).add(kind)
    nine = (9).to_bytes(32, "little") * (now.key_bytes // 32)
    return {
        place: nine
        for place, said in kinds.items()
        if Kind.SHARES in said and Kind.ADVERTISE not in said and place < now.n
    }
