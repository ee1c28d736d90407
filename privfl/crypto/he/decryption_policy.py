"""What a decryptor insists on before it opens anything: who signed, for which round, how many, and
never twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from privfl.core import Abort, Buffer, PartyId, RoundPlan, client_of
from privfl.crypto.he.boxes import letter, seal, sealed_letter, unsealed
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.wire import (
    Parts,
    Refused,
    Rope,
    SignedMessage,
    Topic,
    braid,
    digest,
    pack,
    unpack,
)

CIPHERTEXT, SUM, ANSWER = b"ENCR", b"SUM ", b"OPEN"
_COUNT = 4


def admit(
    body: Buffer, plan: RoundPlan, ring: Keyring, wanted: Sequence[int] | None = None
) -> list[Parts]:
    """The ciphertexts of a bundle that the server forwarded, every one signed by another client of
    this round's cohort.

    Signatures do not survive addition: a decryptor that is handed "the sum" cannot tell it from one
    client's ciphertext. So it is handed all of them. ``wanted``: the parts of each message that it
    needs; None for all.

    Raises:
        Abort: a bundle that no honest server sends; the server is blamed.
    """
    topic = ring.topic(plan)
    try:
        messages = [SignedMessage.read(item) for item in unpack(body)]
        senders = [message.sender for message in messages]
        if len(set(senders)) != len(senders):
            raise Refused("one client's ciphertext is in the sum twice")
        for message in messages:
            if client_of(message.sender) not in plan.cohort:
                raise Refused(f"{message.sender} is not in the cohort")
            if message.sender not in ring.roster:
                raise Refused(f"{message.sender} did not take part in the set-up")
            try:
                message.verify(ring.roster[message.sender], CIPHERTEXT, topic, message.sender)
            except Refused as refused:
                raise Refused(f"{message.sender}: {refused}") from None
        digests = [part for message in messages for part in message.digests]
        if len(set(digests)) != len(digests):
            raise Refused("two clients' ciphertexts are the same")
        enough(len(messages), plan, ring)
        return [message.whole() if wanted is None else message.only(wanted) for message in messages]
    except Refused as refused:
        raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused


def admit_sum(body: Buffer, plan: RoundPlan, ring: Keyring) -> tuple[Parts, int]:
    """What the server calls a sum, and of how many clients it says it is one. Nothing here can tell
    whether that is true.

    Raises:
        Abort: it is not even signed by the server for this round, or it says that it is of too few.
    """
    try:
        message = SignedMessage.read(body)
        message.verify(ring.roster.get("server", bytes(64)), SUM, ring.topic(plan), "server")
        count, *parts = message.whole()
        claimed = _count(count)
        if claimed > plan.n:
            raise Refused(f"a sum of {claimed} in a cohort of {plan.n}")
        enough(claimed, plan, ring)
        return tuple(parts), claimed
    except Refused as refused:
        raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused


def _count(field: Buffer) -> int:
    """Of how many clients somebody says that a sum is.

    Raises:
        Refused: it is no such number.
    """
    if len(field) != _COUNT:
        raise Refused("a message of another form")
    return int.from_bytes(bytes(field), "little")


def enough(count: int, plan: RoundPlan, ring: Keyring) -> None:
    """Refuse small sums.

    Raises:
        Refused: fewer than the quorum.
    """
    quorum = ring.arrangement.quorum(plan.n)
    if count < quorum:
        raise Refused(f"a sum of {count}, and sums of fewer than {quorum} clients stay closed")


def once(plan: RoundPlan, ring: Keyring) -> None:
    """Answer once a round and part, whatever the cohort: two sums that differ by one client would
    show that client.

    Raises:
        Abort: this round was answered before, or the key has answered as often as its noise allows.
    """
    mark = (digest(digest(plan.session) + plan.part.encode()), plan.number)
    releases = ring.arrangement.releases
    if releases is not None and len(ring.answered) >= releases:
        raise Abort(
            f"{ring.who} has opened {releases} sums under this key, and its noise hides no more:"
            " set up anew",
            blamed=ring.who,
        )
    if mark in ring.answered:
        raise Abort(
            f"{ring.who} has already opened round {plan.number}, part '{plan.part}': it answers"
            " once",
            blamed="server",
        )
    ring.answered.add(mark)


def answer(parts: Parts, count: int, plan: RoundPlan, ring: Keyring) -> bytes:
    """A decryptor's signed answer: of how many clients it is a sum, and what it opened, sealed to
    the server.

    Raises:
        Abort: the server did not take part in the set-up.
    """
    topic = ring.topic(plan)
    try:
        box = seal(ring.server_box, pack(parts), _purpose(topic))
    except Refused as refused:
        raise Abort(f"{ring.who} cannot answer the server: {refused}", blamed="server") from refused
    return SignedMessage.signed(
        ring.identity, ANSWER, topic, ring.who, (count.to_bytes(_COUNT, "little"), box)
    ).to_bytes()


def opened_answer(message: SignedMessage, server: Keyring) -> tuple[int, tuple[bytes, ...]]:
    """How many clients an answer is of, and what is in it.

    Raises:
        Refused: it is no answer, or sealed to somebody else.
    """
    count, *boxes = message.whole()
    if message.kind != ANSWER or len(boxes) != 1:
        raise Refused("not a decryptor's answer")
    plain = unsealed(server.identity, boxes[0], _purpose(message.topic))
    return _count(count), tuple(bytes(part) for part in unpack(plain))


def _purpose(topic: Topic) -> bytes:
    return b"answer" + topic.key_id + topic.facts + topic.number.to_bytes(8, "little")


def request(ring: Keyring, who: PartyId, messages: Sequence[SignedMessage]) -> bytes:
    """The bundle of ciphertexts that the server hands a decryptor, sealed to it.

    Raises:
        Abort: the decryptor did not take part in the set-up.
    """
    if who not in ring.roster:
        raise Abort(f"{who} did not take part in the set-up, and cannot be asked")
    return sealed_letter(ring.roster[who][32:], b"".join(forwarded(messages)), ring.who)


def requested(body: Buffer, ring: Keyring) -> bytes:
    """The bundle of a request.

    Raises:
        Abort: it is not sealed to this decryptor; the server is blamed.
    """
    try:
        return letter(ring.identity, body, "server")
    except Refused as refused:
        raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused


def forwarded(messages: Sequence[SignedMessage], left_out: Sequence[int] = ()) -> Rope:
    """The bundle that decryptors are handed, not yet copied together."""
    return braid([message.without(left_out).rope() for message in messages])
