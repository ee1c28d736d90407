"""How the joint key is made: nobody makes it alone, and nobody can choose their part after seeing
the others'.

Decryptors commit to coins and reveal them: together they are the seed of a. Every piece of the
secret is made by its first holder, who sends it sealed to the others and commits to its
contribution to b; when all commitments are there, contributions are revealed, and every holder
checks that the contribution belongs to the piece that it was sent. Each decryptor then tells every
client and the server the joint key; they take it when all decryptors told them the same one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, TypeAlias

from privfl.core import Abort, Buffer, KeepsSecrets, Mail, PartyId
from privfl.crypto.he.boxes import seal, unsealed
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart, from_bytes, pieces, to_bytes
from privfl.crypto.he.mprlwe.ring import Words, summed
from privfl.crypto.he.wire import Refused, digest, pack, unpack

COMMIT, COINS, PIECES, CONTRIBUTIONS, KEY = b"1", b"2", b"3", b"4", b"5"
Stage: TypeAlias = dict[int, list[bytes]]
_PURPOSE = b"mp-rlwe piece "


def _commitment(what: bytes, index: int, content: bytes) -> bytes:
    return digest(b"privfl/mp-rlwe/commit/1\x00" + what + bytes([index]) + content)


class DistributedKeygen(KeepsSecrets):
    """A decryptor's part."""

    def __init__(self, ring: Keyring, index: int, held: dict[int, TernaryPart]) -> None:
        ring.reset()
        held.clear()
        self.ring, self.index, self.held = ring, index, held
        self.coins = secrets.token_bytes(32)
        self.layout = pieces(ring.arrangement.holders, ring.arrangement.threshold)
        self.heard: dict[bytes, Stage] = {tag: {} for tag in (COMMIT, COINS, PIECES, CONTRIBUTIONS)}
        self.mine: dict[int, Words] = {}
        self.seed = b""
        self.sent: set[bytes] = set()

    def step(self, mail: Mail) -> Mail:
        """One stage after the other, each when all decryptors have finished the one before."""
        if not mail:
            hello = self.ring.identity.hello
            opening = self._tell(COMMIT, [hello, _commitment(COINS, self.index, self.coins)])
            return {**opening, "server": hello}
        newcomers = self._read(mail)
        out: dict[PartyId, Buffer] = {}
        for tag, after, act in (
            (COINS, COMMIT, self._reveal_coins),
            (PIECES, COINS, self._make_pieces),
            (CONTRIBUTIONS, PIECES, self._reveal_contributions),
            (KEY, CONTRIBUTIONS, self._announce),
        ):
            if tag not in self.sent and len(self.heard[after]) == self.ring.arrangement.holders:
                self.sent.add(tag)
                out |= act()
        if self.ring.public is not None and newcomers:
            out |= {who: self._announcement() for who in newcomers}
        return out

    def _read(self, mail: Mail) -> list[PartyId]:
        others = {
            who: i for i, who in enumerate(self.ring.arrangement.decryptors) if i != self.index
        }
        newcomers = []
        for sender, body in mail.items():
            if sender not in others and len(body) == 64 and sender not in self.ring.roster:
                if self.ring.meet(sender, bytes(body)):
                    newcomers.append(sender)
            elif sender in others and bytes(body[:1]) in self.heard:
                try:
                    self.heard[bytes(body[:1])].setdefault(
                        others[sender], [bytes(item) for item in unpack(body[1:])]
                    )
                except Refused as refused:
                    raise Abort(
                        f"{self.ring.who}: a garbled message in the distributed key generation:"
                        f" {refused}",
                        blamed=sender,
                    ) from refused
        return newcomers

    def _tell(
        self, tag: bytes, items: list[bytes], each: Mapping[int, bytes] | None = None
    ) -> dict[PartyId, Buffer]:
        """The same to every decryptor (and to oneself), with one item more for each where that is
        given.
        """
        self.heard[tag][self.index] = items
        others = [
            (i, who) for i, who in enumerate(self.ring.arrangement.decryptors) if i != self.index
        ]
        return {
            who: tag + pack([*items, *([each[i]] if each is not None else [])]) for i, who in others
        }

    def _items(self, stage: bytes, index: int, least: int) -> list[bytes]:
        items = self.heard[stage][index]
        if len(items) < least:
            raise self._blame(index, "left something out of the distributed key generation")
        return items

    def _blame(self, index: int, why: str) -> Abort:
        who = self.ring.arrangement.decryptors[index]
        return Abort(f"{self.ring.who} makes no key: {who} {why}", blamed=who)

    def _reveal_coins(self) -> dict[PartyId, Buffer]:
        for index, who in enumerate(self.ring.arrangement.decryptors):
            hello = self._items(COMMIT, index, 2)[0]
            if not self.ring.meet(who, hello):
                raise self._blame(index, "sent keys that are not its own in the directory")
        return self._tell(COINS, [self.coins])

    def _make_pieces(self) -> dict[PartyId, Buffer]:
        coins = b""
        for index in range(self.ring.arrangement.holders):
            theirs = self._items(COINS, index, 1)[0]
            if _commitment(COINS, index, theirs) != self._items(COMMIT, index, 2)[1]:
                raise self._blame(index, "revealed other coins than it had committed to")
            coins += theirs
        self.seed = digest(b"privfl/mp-rlwe/seed/1\x00" + coins)
        sealed: dict[int, list[bytes]] = {i: [] for i in range(self.ring.arrangement.holders)}
        for number in self._led(self.index):
            piece = TernaryPart()
            self.held[number], self.mine[number] = piece, piece.public(self.seed)
            for index in self.layout[number]:
                if index != self.index:
                    box = self.ring.roster[self.ring.arrangement.decryptors[index]][32:]
                    try:
                        sealed[index].append(
                            seal(box, piece.to_bytes(), _PURPOSE + bytes([number]) + self.seed)
                        )
                    except Refused:
                        raise self._blame(index, "sent a key that nobody can hold") from None
        commitment = _commitment(CONTRIBUTIONS, self.index, self._contributions())
        return self._tell(PIECES, [commitment], {i: pack(boxes) for i, boxes in sealed.items()})

    def _led(self, index: int) -> list[int]:
        return [number for number, holders in enumerate(self.layout) if holders[0] == index]

    def _contributions(self) -> bytes:
        return pack([to_bytes(self.mine[number]) for number in self._led(self.index)])

    def _reveal_contributions(self) -> dict[PartyId, Buffer]:
        for index in range(self.ring.arrangement.holders):
            if index == self.index:
                continue
            due = [number for number in self._led(index) if self.index in self.layout[number]]
            try:
                boxes = unpack(self._items(PIECES, index, 2)[1])
                for number, box in zip(due, boxes, strict=True):
                    plain = unsealed(
                        self.ring.identity, box, _PURPOSE + bytes([number]) + self.seed
                    )
                    self.held[number] = TernaryPart.from_bytes(plain)
            except (Refused, ValueError):
                raise self._blame(index, "did not send the pieces that it should") from None
        return self._tell(CONTRIBUTIONS, [self._contributions()])

    def _announce(self) -> dict[PartyId, Buffer]:
        total: list[Words] = []
        for index in range(self.ring.arrangement.holders):
            content = self._items(CONTRIBUTIONS, index, 1)[0]
            if _commitment(CONTRIBUTIONS, index, content) != self._items(PIECES, index, 1)[0]:
                raise self._blame(
                    index, "revealed another part of the key than it had committed to"
                )
            try:
                theirs = [from_bytes(item, 1) for item in unpack(content)]
            except Refused:
                raise self._blame(index, "sent a garbled part of the key") from None
            led = self._led(index)
            if len(theirs) != len(led):
                raise self._blame(index, "sent another number of parts of the key")
            for number, contribution in zip(led, theirs, strict=True):
                if number in self.held and not self.held[number].fits(contribution, self.seed):
                    raise self._blame(
                        index, "sent a piece that does not belong to its part of the key"
                    )
            total += theirs
        self.ring.public = self.ring.scheme.public(
            JointPublic(self.seed, summed(total), bits=2).to_bytes()
        )
        everybody = [who for who in self.ring.roster if who not in self.ring.arrangement.decryptors]
        return {who: self._announcement() for who in everybody}

    def _announcement(self) -> bytes:
        """The first decryptor sends the key, the others its name: whoever is told takes it when all
        agree.
        """
        key = self.ring.key()
        return KEY + pack(
            [
                key.key_id,
                key.to_bytes() if self.index == 0 else b"",
                self.ring.identity.hello,
                self.ring.roster.get("server", b""),
            ]
        )


class KeygenObserver(KeepsSecrets):
    """The part of clients and of the server: say hello, and take the key when all decryptors name
    the same one.
    """

    def __init__(self, ring: Keyring) -> None:
        ring.reset()
        self.ring = ring
        self.named: dict[PartyId, bytes] = {}
        self.key: bytes = b""

    def step(self, mail: Mail) -> Mail:
        """Hello, then silence."""
        ring = self.ring
        if not mail:
            others: dict[PartyId, Any] = dict.fromkeys(
                ring.arrangement.decryptors, ring.identity.hello
            )
            return others if ring.who == "server" else {**others, "server": ring.identity.hello}
        for sender, body in mail.items():
            if len(body) == 64:  # first, because the first byte of a hello can be anything
                ring.meet(sender, bytes(body))
            elif sender in ring.arrangement.decryptors and bytes(body[:1]) == KEY:
                self._hear(sender, body)
        if len(self.named) == ring.arrangement.holders and ring.public is None:
            self._take()
        return {}

    def _hear(self, sender: PartyId, body: Buffer) -> None:
        try:
            name, key, hello, server = (bytes(item) for item in unpack(body[1:]))
        except (Refused, ValueError):
            raise Abort(f"{self.ring.who} got a garbled key", blamed=sender) from None
        if server and not self.ring.meet("server", server):
            raise Abort(
                f"{self.ring.who} was told keys of the server that are not in the directory",
                blamed=sender,
            )
        if not self.ring.meet(sender, hello):
            raise Abort(
                f"{self.ring.who} was told a key by {sender} under keys that are not in the"
                " directory",
                blamed=sender,
            )
        self.named.setdefault(sender, name)
        self.key = self.key or key

    def _take(self) -> None:
        try:
            key = self.ring.scheme.public(self.key)
        except Refused as refused:
            raise Abort(
                f"{self.ring.who} got a garbled key: {refused}",
                blamed=self.ring.arrangement.decryptors[0],
            ) from refused
        for who, name in self.named.items():
            if name != key.key_id:
                raise Abort(
                    f"{self.ring.who} was told of different keys: {who} names another one",
                    blamed=who,
                )
        self.ring.public = key
