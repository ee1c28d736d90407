"""What the parties of one-time-pad RLWE say to each other.

A client speaks once: the encrypted contribution in a box for the server, the proof of its dealing,
and for every decryptor a box with a share of its one-time key, all under one signature. Parts can
be left out on the way, so a decryptor is handed its own box and no contribution.

The signature covers the contribution's box by its ephemeral key, its length and its tag. Client and
server alone can make a box that they fit, so nobody in between can change what was signed, and
nobody else is ever handed the box; a digest of all its bytes would cost more than encrypting them.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest

from privfl.core import Abort, Buffer, KnownKeys, PartyId, PartyKeys
from privfl.crypto.he.boxes import seal, seal_into, unsealed
from privfl.crypto.he.onetime import dealing
from privfl.crypto.he.onetime.dealing import REPS, ROWS, Dealing, Values
from privfl.crypto.he.wire import Parts, Refused, SignedMessage, Topic
from privfl.crypto.primitives.sealed_box import OVERHEAD

DEALT, CHECKED, OPEN, SHARE = b"DEAL", b"CHCK", b"ASK ", b"SHAR"
"""Client to all: its contribution and dealing. Decryptor to server: whose dealings are good. Server
to decryptors: whose shares to add. Decryptor to server: their sum.
"""
CONTRIBUTION, PROOF, BOXES = 0, 1, 2
"""The parts of a client's message: a box for the server, the proof, and a box for each decryptor
from the third on.
"""
SALT = 32
_ID = 32
_TAG = 16


def dealt_parts(
    dealt: Dealing,
    body: Iterable[Buffer],
    topic: Topic,
    sender: PartyId,
    occasions: Mapping[PartyId, bytes],
    directory: KnownKeys,
    room: memoryview | None = None,
) -> tuple[Buffer, ...]:
    """The parts of a client's message: contribution, proof, boxes. ``body``: the encrypted
    contribution, in pieces. ``occasions``: what every decryptor drew for this session, empty where
    it was not heard, and then its box is empty too. ``room``: where the contribution's box is to
    lie.

    Raises:
        Abort: the directory knows no box of the server, or of a decryptor that was heard.
    """
    servers = directory.boxes("server")
    if not servers:
        raise Abort(f"{sender} sends nothing: the directory knows no box of the server")
    if room is None:
        body = list(body)
        room = memoryview(bytearray(sum(map(len, body)) + OVERHEAD))
    seal_into(servers[-1], body, contribution_purpose(topic, sender), room)
    plains = [
        secrets.token_bytes(SALT) + dealing.to_bytes(dealt.share(1 + j))
        for j in range(len(occasions))
    ]
    commitments = [committed(plain) for plain in plains]
    root = root_of(topic, sender, contribution_digest(room), commitments)
    proof = dealing.to_bytes(dealt.proof(dealing.challenge(root)))
    boxes: list[Buffer] = []
    for (who, occasion), plain in zip(occasions.items(), plains, strict=True):
        keys = directory.boxes(who)
        if occasion and not keys:
            raise Abort(f"{sender} cannot deal to {who}: the directory knows no box of it")
        purpose = purpose_of(topic, sender, who, occasion)
        boxes.append(seal(keys[-1], plain, purpose) if occasion else b"")
    return (room, proof + b"".join(commitments), *boxes)


def dealt_message(identity: PartyKeys, topic: Topic, parts: Parts) -> SignedMessage:
    """These parts of a client's message, signed."""
    first = contribution_digest(parts[CONTRIBUTION])
    return SignedMessage.signed(identity, DEALT, topic, identity.who, parts, first)


def contribution_digest(box: Buffer) -> bytes:
    """What is signed of the box with the contribution: its ephemeral key, length and tag."""
    ends = bytes(box[:32]) + bytes(box[-_TAG:])
    size = len(box).to_bytes(8, "little")
    return sha256(b"privfl/onetime/contribution/1\x00" + size + ends).digest()


def contribution_purpose(topic: Topic, sender: PartyId) -> bytes:
    """What the box around a contribution is bound to."""
    return b"one-time contribution " + _scene(topic, sender)


def contribution_in(message: SignedMessage, server: PartyKeys, size: int) -> bytes:
    """The encrypted contribution in a client's message, whose signature was verified.

    Raises:
        Refused: it is not what was signed, was not sealed to this server, or has another size.
    """
    (box,) = message.only([CONTRIBUTION])
    if len(box) != size + OVERHEAD:
        raise Refused(f"{len(box) - OVERHEAD} bytes are no contribution, which has {size}")
    if not compare_digest(contribution_digest(box), message.digests[CONTRIBUTION]):
        raise Refused("the content is not what was signed")
    return unsealed(server, box, contribution_purpose(message.topic, message.sender))


def committed(plain: Buffer) -> bytes:
    """The commitment to a salt and a share."""
    return sha256(b"privfl/onetime/share/1\x00" + plain).digest()


def root_of(topic: Topic, sender: PartyId, body: bytes, commitments: Sequence[bytes]) -> bytes:
    """What the challenge follows from: the round, the client, what is signed of its contribution,
    and all commitments.
    """
    return sha256(
        b"privfl/onetime/root/1\x00" + _scene(topic, sender) + body + b"".join(commitments)
    ).digest()


def purpose_of(topic: Topic, sender: PartyId, receiver: PartyId, occasion: bytes) -> bytes:
    """What a box is bound to: round, sender, receiver, and what the receiver drew in the set-up, so
    that a box of an earlier session does not open in a later one.
    """
    return b"one-time share " + _scene(topic, sender) + receiver.encode() + b"\x00" + occasion


def answer_purpose(topic: Topic, sender: PartyId) -> bytes:
    """What the box around a sum of shares is bound to."""
    return b"one-time sum " + _scene(topic, sender)


def _scene(topic: Topic, sender: PartyId) -> bytes:
    number = topic.number.to_bytes(8, "little")
    return topic.key_id + topic.facts + number + sender.encode() + b"\x00"


def dealt_size(holders: int, threshold: int) -> int:
    """Bytes of the proof, the commitments and all boxes."""
    return 2 * threshold * REPS + (32 + SALT + 2 * ROWS + OVERHEAD) * holders


def proof_in(message: SignedMessage, holders: int, threshold: int) -> tuple[Values, list[bytes]]:
    """The proof [threshold, REPS] of a client's message, and its commitments.

    Raises:
        Refused: it is none.
    """
    (body,) = message.only([PROOF])
    size = 2 * threshold * REPS
    if len(body) != size + 32 * holders:
        raise Refused("its dealing is no dealing to so many decryptors")
    commitments = [bytes(body[size + 32 * j : size + 32 * (j + 1)]) for j in range(holders)]
    return dealing.from_bytes(body[:size], (threshold, REPS)), commitments


def share_in(
    message: SignedMessage,
    index: int,
    settings: tuple[int, int],
    receiver: PartyId,
    identity: PartyKeys,
    occasion: bytes,
) -> Values:
    """The share [N + REPS] in a client's message for one decryptor, checked against the proof.

    ``settings``: holders and threshold.

    Raises:
        Refused: and why.
    """
    holders, threshold = settings
    if len(message.parts) != BOXES + holders:
        raise Refused("another number of boxes than there are decryptors")
    proof, commitments = proof_in(message, holders, threshold)
    (box,) = message.only([BOXES + index])
    purpose = purpose_of(message.topic, message.sender, receiver, occasion)
    plain = unsealed(identity, box, purpose)
    if committed(plain) != commitments[index]:
        raise Refused("the share is not the one committed to")
    share = dealing.from_bytes(plain[SALT:], (ROWS,))
    root = root_of(message.topic, message.sender, message.digests[CONTRIBUTION], commitments)
    if not dealing.fits(share, 1 + index, proof, dealing.challenge(root)):
        raise Refused("the share does not lie on the polynomials that were proved")
    return share


def id_of(message: SignedMessage) -> bytes:
    """32 bytes that name a client's message, whatever parts are left out of it."""
    return sha256(message.sender.encode() + b"\x00" + b"".join(message.digests)).digest()


def ids_bytes(ids: Collection[bytes]) -> bytes:
    """A set of messages, in order."""
    return b"".join(sorted(ids))


def ids_in(body: Buffer) -> frozenset[bytes]:
    """The set that `ids_bytes` wrote.

    Raises:
        Refused: it is none, or names a message twice or out of order.
    """
    raw = bytes(body)
    ids = [raw[start : start + _ID] for start in range(0, len(raw), _ID)]
    if len(raw) % _ID or ids != sorted(set(ids)):
        raise Refused("not a set of messages")
    return frozenset(ids)


def verify(
    message: SignedMessage, known: KnownKeys, kind: bytes, topic: Topic, who: PartyId
) -> None:
    """Refuse what no key signed that the directory knows of this party, about this round.

    Raises:
        Refused: and why.
    """
    keys = known.keys(who)
    if not keys:
        raise Refused("the directory does not know that name")
    for key in reversed(keys[1:]):
        try:
            return message.verify(key, kind, topic, who)
        except Refused:
            continue
    return message.verify(keys[0], kind, topic, who)
