"""Signed, sealed mail: a party around a party, on every channel, in rounds and in key set-up.

A party believes the label on its mail. Over a relay that is the relay's word: one that enters a
helper of its own at key set-up, or speaks for all clients but one, reads single updates on most
channels. The post takes labels away from the relay. Every letter is signed by its sender over the
scene (the session, the round, the plans of all its parts), sender, receiver, the number of the
letter between these two, and the body; unless it goes to the server it is also sealed to its
receiver. Keys come from a `Directory` and from nowhere else.

Threat model. Whoever carries the mail may read, drop, change, repeat, delay and invent letters.
It can end a round, it sees who writes to whom, when and how much, and it reads what goes to the
server as the server does; it can speak for nobody, and no letter serves twice. Not stopped: the
server itself, where only the server checks something (plain, semi-honest secure aggregation);
parties that lie under their own name; a directory that says who is who and is wrong.

A letter is 8 bytes of format and number, a signature of 64, the body (and 48 bytes where it is
sealed: a tag, and an ephemeral public key, which serves for all letters of one round to one
receiver, each under a key of its own). The head that is signed does not travel: both ends know it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from privfl.core import (
    NO_FAULTS,
    Abort,
    Buffer,
    ConfigError,
    Faults,
    KeepsSecrets,
    Mail,
    Message,
    Outcome,
    Party,
    PartyId,
    Refusal,
    RoundPlan,
    drive_all,
)
from privfl.crypto.primitives import Directory, Identity, LetterKeys, backend

SERVER: PartyId = "server"
_HEADER = struct.Struct("<4sI")
_MAGIC = b"PFM\x01"
_SIGNATURE = 64
_START = _HEADER.size + _SIGNATURE


class _Refused(Exception):
    """A letter that cannot be used, and why; ``again``: it came before."""

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


def round_scene(plans: Iterable[RoundPlan]) -> bytes:
    """What all letters of one round are bound to: its session and number, and the plans of all its
    parts, whatever their order. A session plays a round once: the same scene twice would let
    letters of the first time in again.

    Raises:
        ConfigError: no plan, two plans of one part, or plans of different rounds.

    >>> one, two = RoundPlan(0, (1,), 2, 1.0), RoundPlan(0, (1,), 2, 1.0, part="control")
    >>> round_scene([one, two]) == round_scene([two, one]) != round_scene([one])
    True
    """
    listed = tuple(plans)
    parts = {plan.part: plan for plan in listed}
    rounds = {(plan.session, plan.number) for plan in listed}
    if len(rounds) != 1 or len(parts) != len(listed):
        raise ConfigError(
            f"mail is bound to the parts of one round, each once, and was given {len(listed)} plans"
            f" of {len(rounds)} rounds and {len(parts)} parts."
        )
    session, number = rounds.pop()
    digest = hashlib.sha256(b"".join(parts[part].digest for part in sorted(parts))).digest()
    return _fields(b"privfl/mail/1", session, b"round", struct.pack("<q", number), digest)


def set_up_scene(session: bytes) -> bytes:
    """What all letters of a session's key set-up are bound to.

    >>> set_up_scene(b"one") == set_up_scene(b"two")
    False
    """
    return _fields(b"privfl/mail/1", session, b"set-up")


def _fields(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _head(scene: bytes, sender: PartyId, receiver: PartyId, number: int) -> bytes:
    return scene + _fields(sender.encode(), receiver.encode(), number.to_bytes(4, "little"))


def _signed(head: bytes, *body: Buffer) -> bytes:
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return head + digest.digest()


def _written(
    keys: LetterKeys, directory: Directory, scene: bytes, to: PartyId, number: int, body: Buffer
) -> bytes:
    """A letter. The body is copied: a signature needs one that does not change."""
    who = keys.identity.who
    head = _head(scene, who, to, number)
    pieces: tuple[Buffer, ...] = (body,)
    if to != SERVER:
        boxes = directory.boxes(to)
        if not boxes:
            raise Abort(f"{who} cannot write to {to}: the directory knows no box of it")
        pieces = keys.seal(boxes[-1], body, head)
    signature = keys.sign(_signed(head, *pieces))
    return b"".join((_HEADER.pack(_MAGIC, number), signature, *pieces))


def _read(
    directory: Directory,
    scene: bytes,
    sender: PartyId,
    receiver: PartyId,
    letter: Buffer,
    keys: LetterKeys | None,
) -> tuple[int, Buffer]:
    """A letter's number and body, a view of it where it was not sealed.

    Raises:
        _Refused: it is not what this sender wrote to this receiver in this scene, or it is sealed
            and these keys do not open it.
    """
    view = memoryview(letter).cast("B")
    if len(view) < _START:
        raise _Refused(f"{len(view)} bytes are no letter")
    magic, number = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise _Refused("not a letter of this version")
    known = directory.keys(sender)
    if not known:
        raise _Refused("the directory does not know that name")
    head, body = _head(scene, sender, receiver, number), view[_START:]
    signed, signature = _signed(head, body), bytes(view[_HEADER.size : _START])
    library = backend()
    if not any(library.verify(key, signed, signature) for key in reversed(known)):
        raise _Refused(f"{sender} did not sign it for {receiver} in this session and round")
    if receiver == SERVER:
        return number, body
    plain = None if keys is None else keys.unseal(sender, body, head)
    if plain is None:
        raise _Refused("what is sealed in it does not open")
    return number, plain


@dataclass(repr=False)
class Post(KeepsSecrets):
    """A party whose mail is signed and sealed, around one that knows nothing of it.

    Mail is dropped, and noted in ``refused``, unless its sender is in the directory, signed it in
    this scene for this receiver, and numbered it higher than all before it from that sender; what
    is noted accuses nobody, because anybody can write a false name. A party whose mail is dropped
    whole is not called: empty mail means "begin".

    At rest (`core.seal_state`) it is without the directory, and is handed the one of now when it
    wakes: a copy would not know who enrolled since.

    Args:
        identity: the secret keys of this party.
        directory: who is who.
        scene: `round_scene` or `set_up_scene`, the same at all parties.
        inner: the party itself.

    >>> from privfl.core import Silent
    >>> class Says:
    ...     def step(self, mail): return {} if mail else {"server": b"hello"}
    >>> keys = {who: Identity.fresh(who) for who in ("client/1", "server")}
    >>> known = Directory.of({who: identity.public for who, identity in keys.items()})
    >>> client = Post(keys["client/1"], known, set_up_scene(b"session"), Says())
    >>> server = Post(keys["server"], known, set_up_scene(b"session"), Silent())
    >>> letter = client.step({})["server"]
    >>> server.step({"client/1": letter}), server.refused
    ({}, [])
    >>> _ = server.step({"client/1": letter})
    >>> print(server.refused[0])
    server refused a letter in the name of client/1: it came before
    """

    identity: Identity
    directory: Directory
    scene: bytes
    inner: Party
    sent: dict[PartyId, int] = field(default_factory=dict)
    seen: dict[PartyId, int] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    keys: LetterKeys = field(init=False)

    def __post_init__(self) -> None:
        self.keys = LetterKeys(self.identity)

    def step(self, mail: Mail) -> Mail:
        """Open what came, let the party answer, sign and seal the answer.

        Raises:
            Abort: the party's own, or it wrote to somebody who is not in the directory.
        """
        usable: dict[PartyId, Buffer] = {}
        for sender, letter in mail.items():
            try:
                usable[sender] = self._opened(sender, letter)
            except _Refused as refused:
                self.refused.append(Refusal(self.identity.who, sender, str(refused), refused.again))
        if mail and not usable:
            return {}
        out: dict[PartyId, Buffer] = {}
        for to, body in self.inner.step(usable).items():
            number = self.sent[to] = self.sent.get(to, -1) + 1
            out[to] = _written(self.keys, self.directory, self.scene, to, number, body)
        return out

    def _opened(self, sender: PartyId, letter: Buffer) -> Buffer:
        me = self.identity.who
        number, body = _read(self.directory, self.scene, sender, me, letter, self.keys)
        if number <= self.seen.get(sender, -1):
            raise _Refused("it came before", again=True)
        self.seen[sender] = number
        return body


def drive_signed(
    parties: Mapping[PartyId, Party],
    faults: Faults = NO_FAULTS,
    *,
    keys: Mapping[PartyId, Identity],
    directory: Directory,
    scene: bytes,
    others: Mapping[PartyId, bytes] = MappingProxyType({}),
    keep_bodies: bool = False,
    digests: bool = False,
) -> Outcome[None]:
    """`drive_all` with a post around every party, where one process holds everybody's keys.

    A byzantine party lies behind its own post, with its own keys; what is relayed stands outside.

    Args:
        parties: everybody, by name.
        faults: as for `drive`.
        keys: everybody's identity.
        directory: who is who.
        scene: what the letters are bound to, new for every call.
        others: what the letters of parties are bound to that were told another scene.
        keep_bodies: keep every letter; `Outcome.received` opens what the asked parties can.
        digests: note the SHA-256 of every letter as it travels.
    """
    posts = {
        who: Post(keys[who], directory, others.get(who, scene), party)
        for who, party in parties.items()
    }

    def behind(post: Post, lie: Callable[[Party], Party]) -> Callable[[Party], Party]:
        return lambda _: replace(post, inner=lie(post.inner))

    lies = {who: behind(posts[who], lie) for who, lie in faults.byzantine.items() if who in posts}
    outcome = drive_all(
        posts, replace(faults, byzantine=lies), keep_bodies=keep_bodies, digests=digests
    )
    return replace(
        outcome,
        refused=tuple(refusal for post in posts.values() for refusal in post.refused),
        opening=partial(_opening, dict(keys), directory, scene, others),
    )


def _opening(
    keys: Mapping[PartyId, Identity],
    directory: Directory,
    scene: bytes,
    others: Mapping[PartyId, bytes],
    letter: Message,
    of: Collection[PartyId],
) -> Buffer | None:
    """What who holds the keys of these parties, or only taps the wire, reads of a kept letter: the
    body, where its sender signed it and it is not sealed or sealed to one of them.
    """
    own = keys.get(letter.receiver) if letter.receiver in of else None
    try:
        body = b"" if letter.body is None else letter.body
        told = others.get(letter.sender, scene)
        keys_of = None if own is None else LetterKeys(own)
        return _read(directory, told, letter.sender, letter.receiver, body, keys_of)[1]
    except _Refused:
        return None
