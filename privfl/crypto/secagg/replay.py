"""A round's mail, sorted out again from what its server was handed, and the honest server's party
that it is replayed through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from privfl.core import Buffer, ClientId, Mail, PartyId, RoundPlan, client_of
from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg import wire
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings
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


def rounds_in(
    mails: Sequence[Mail],
) -> Iterator[tuple[list[Mail], bytes, Mapping[int, ClientId]]]:
    """The rounds that a server's mail can be read as, the one with most senders first: what belongs
    to it, its facts, who is where in its cohort.
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
                yield [mail for mail in own if mail], facts, cohort


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
) -> SecAggServerParty:
    """The honest server's party, before it is handed this mail. Keys that were carried from the
    round before are nowhere in it: it takes their owners for known.
    """
    kinds = {
        position: kind
        for mail in reversed(mails)
        for kind, position, *_ in (wire.read(body) for body in mail.values())
    }
    carried = {i: bytes(now.key_bytes) for i, kind in kinds.items() if kind is Kind.SHARES}
    called = Kind.ADVERTISE in kinds.values()
    return SecAggServerParty(
        now,
        plan,
        settings.code,
        NoDirectory(),
        settings.backend,
        b"",
        facts,
        settings.carry,
        {},
        {},
        expects=Kind.ADVERTISE if called else Kind.SHARES,
        started=True,
        adverts=carried if settings.carry else {},
        signed=False,
    )
