"""What a coalition can compute from its mail and its pieces of the key, really computed."""

from __future__ import annotations

from collections.abc import Mapping

from privfl.core import Member, PartyId, Received, Rows, Total
from privfl.crypto.he.decryption_policy import ANSWER, CIPHERTEXT, opened_answer
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart, add_c0, partial
from privfl.crypto.he.mprlwe.members import JointClient, JointDecryptor, JointServer
from privfl.crypto.he.mprlwe.scheme import JointScheme
from privfl.crypto.he.view import messages_in, rows_of
from privfl.crypto.he.wire import Refused, SignedMessage, Topic


def opened(
    scheme: JointScheme, received: Received, members: Mapping[PartyId, Member]
) -> Rows | Total | None:
    """Every row, for enough decryptors with the server; the sum, for the server; nothing, for
    anybody else.
    """
    rings = [  # clients last: they need not know each other
        m.ring
        for kind in (JointServer, JointDecryptor, JointClient)
        for m in members.values()
        if isinstance(m, kind)
    ]
    public = next((ring.public for ring in rings if isinstance(ring.public, JointPublic)), None)
    if public is None:
        return None
    held: dict[int, TernaryPart] = {}
    for member in members.values():
        if isinstance(member, JointDecryptor):
            held |= member.held
    mail = list(messages_in(received, rings))
    server = next((m.ring for m in members.values() if isinstance(m, JointServer)), None)
    known = next(ring for ring in rings if ring.public is public)
    whole = {  # whoever has the server's mail; decryptors alone are sent one half
        m.sender: m
        for m in mail
        if m.kind == CIPHERTEXT and None not in m.parts and _genuine(m, known, public)
    }
    if len(held) == scheme.count and whole:
        return rows_of({who: _row(scheme, message, public, held) for who, message in whole.items()})
    if server is None:
        return None
    return _sum(scheme, [m for m in mail if m.kind == ANSWER], whole, public, server)


def _row(
    scheme: JointScheme,
    message: SignedMessage,
    public: JointPublic,
    held: Mapping[int, TernaryPart],
) -> Total:
    c0, c1 = message.whole()
    plan = message.topic.plan()
    share = partial(list(held.values()), bytes(c1), public.blocks(plan), None)
    return scheme.total(public.opened(bytes(c0), [share], plan), plan, 1)


def _sum(
    scheme: JointScheme,
    answers: list[SignedMessage],
    whole: Mapping[PartyId, SignedMessage],
    public: JointPublic,
    server: Keyring,
) -> Total | None:
    parts: dict[bytes, bytes] = {}
    for message in answers:
        try:
            count, items = opened_answer(message, server)
        except (Refused, ValueError):
            continue
        for group, part in zip(items[::2], items[1::2], strict=False):
            if count == len(whole) and not set(group) & set(b"".join(parts)):
                parts[group] = part
    if len(b"".join(parts)) != scheme.count or not whole:
        return None
    plan = answers[0].topic.plan()
    c0 = add_c0([message.only([0])[0] for message in whole.values()])
    return scheme.total(public.opened(c0, list(parts.values()), plan), plan, len(whole))


def _genuine(message: SignedMessage, known: Keyring, public: JointPublic) -> bool:
    """Whether the server took this ciphertext into the sum."""
    topic: Topic = message.topic
    try:
        message.verify(known.roster[message.sender], CIPHERTEXT, topic, message.sender)
        public.check(message.whole(), topic.plan())
    except (Refused, KeyError):
        return False
    return topic.key_id == known.session_key
