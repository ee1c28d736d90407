"""A round of the multi-party scheme: clients encrypt, decryptors add what they need themselves, the server opens the sum and no more."""

from __future__ import annotations

from collections.abc import Sequence

from privfl.core import Abort, Buffer, KeepsSecrets, Mail, Opened, PartyId, RoundPlan, Total
from privfl.crypto.he.guard import ANSWER, SUM, admit, admit_sum, answer, forwarded, once
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.mprlwe.keys import JointPublic, Piece, add_c0, partial, pieces
from privfl.crypto.he.rounds import Collection
from privfl.crypto.he.wire import Message, Refused, Topic, pack, unpack

HERE = b"here"


def joint(ring: Keyring) -> JointPublic:
    """The joint key.

    Raises:
        Abort: the ceremony brought none.
    """
    public = ring.public
    if not isinstance(public, JointPublic):
        raise Abort(f"{ring.who} has no joint key: the key ceremony did not end", blamed=None)
    return public


class JointDecryptorRound(KeepsSecrets):
    """Say that you are there; check and add the halves that the server forwards; answer for each piece of the key once."""

    def __init__(self, ring: Keyring, held: dict[int, Piece], plan: RoundPlan, smudge_bits: int) -> None:
        self.ring, self.held, self.plan, self.smudge_bits = ring, held, plan, smudge_bits
        self.c1 = b""
        self.count = 0
        self.answered: set[int] = set()

    def step(self, mail: Mail) -> Mail:
        """A part of the decryption for the pieces that the server asks for."""
        if not mail:
            return {"server": HERE} if self.ring.public is not None else {}
        if "server" not in mail:
            return {}
        try:
            asked, *rest = unpack(mail["server"])
        except (Refused, ValueError):
            raise Abort(f"{self.ring.who} got a garbled request", blamed="server") from None
        wanted = set(bytes(asked))
        if not wanted <= self.held.keys() or wanted & self.answered or not wanted:
            raise Abort(f"{self.ring.who} was asked for pieces that it does not hold, or twice for one", blamed="server")
        if not self.c1:
            if len(rest) != 1:
                raise Abort(f"{self.ring.who} was asked to decrypt, and handed nothing", blamed="server")
            self._add(rest[0])
        self.answered |= wanted
        part = partial([self.held[i] for i in sorted(wanted)], self.c1, joint(self.ring).blocks(self.plan), self.smudge_bits)
        return {"server": answer((bytes(sorted(wanted)), part), self.count, self.plan, self.ring)}

    def _add(self, body: Buffer) -> None:
        ring, plan, key = self.ring, self.plan, joint(self.ring)
        try:
            if ring.arrangement.verifies:
                halves = [parts[0] for parts in admit(body, plan, ring, wanted=[1])]
                once(plan, ring)
                self.c1, self.count = key.add_c1(halves, plan), len(halves)
            else:
                parts, self.count = admit_sum(body, plan, ring)
                once(plan, ring)
                key.check((bytes(4 * len(parts[0]) // 12), parts[0]), plan)
                self.c1 = bytes(parts[0])
        except Refused as refused:
            raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused


class JointServerRound(KeepsSecrets):
    """Collect ciphertexts, ask live decryptors for every piece of the key, ask again where one fell silent, open the sum."""

    def __init__(self, ring: Keyring, plan: RoundPlan) -> None:
        self.ring, self.plan = ring, plan
        self.collected = Collection(ring, plan)
        self.live: list[PartyId] = []
        self.parts: dict[int, tuple[tuple[int, ...], bytes]] = {}
        self.asked: dict[PartyId, set[int]] = {}
        self.opened: Opened[Total] | None = None

    @property
    def result(self) -> Opened[Total] | None:
        """The weighted sum, once it is opened."""
        return self.opened

    def step(self, mail: Mail) -> Mail:
        """Collect; then gather parts until all pieces are there."""
        if not mail or self.opened is not None:
            return {}
        first = not self.collected.closed
        self.collected.take(mail)
        if first:
            self.live = [who for who in self.ring.arrangement.decryptors if who in mail]
            self.collected.close()
            return self._ask()
        if not self._read(mail):
            return {}
        if not self._missing():
            self._open()
            return {}
        silent = {who for who, wanted in self.asked.items() if wanted - set(self._answered())}
        self.live = [who for who in self.live if who not in silent]
        return self._ask()

    def _ask(self) -> Mail:
        """Ask for what is missing; whoever is asked for the first time is handed what it has to add."""
        handed = set(self.asked)
        messages = [self.collected.messages[client] for client in self.collected.clients]
        assigned = self._assign()
        body = self._body(messages) if assigned.keys() - handed else b""
        return {who: pack([bytes(sorted(wanted)), *([] if who in handed else [body])]) for who, wanted in assigned.items()}

    def _body(self, messages: Sequence[Message]) -> bytes:
        ring, plan = self.ring, self.plan
        if ring.arrangement.verifies:
            return forwarded(messages, left_out=[0])
        half = joint(ring).add_c1([message.only([1])[0] for message in messages], plan)
        count = len(messages).to_bytes(4, "little")
        return Message.signed(ring.identity, SUM, Topic.of(plan, ring.key().key_id), "server", (count, half)).to_bytes()

    def _answered(self) -> list[int]:
        return [piece for together, _ in self.parts.values() for piece in together]

    def _missing(self) -> list[int]:
        layout = pieces(self.ring.arrangement.holders, self.ring.arrangement.threshold)
        return [piece for piece in range(len(layout)) if piece not in set(self._answered())]

    def _assign(self) -> dict[PartyId, set[int]]:
        """The missing pieces, each to a live holder.

        Raises:
            Abort: nobody who is there holds one of them.
        """
        arrangement = self.ring.arrangement
        layout = pieces(arrangement.holders, arrangement.threshold)
        asked: dict[PartyId, set[int]] = {}
        for piece in self._missing():
            holder = next((who for who in map(arrangement.decryptors.__getitem__, layout[piece]) if who in self.live), None)
            if holder is None:
                there = f"{len(self.live)} of {arrangement.holders} decryptors are there"
                raise Abort(f"{there}, and {arrangement.threshold} are needed to open the sum")
            asked.setdefault(holder, set()).add(piece)
        for who, wanted in asked.items():
            self.asked.setdefault(who, set()).update(wanted)
        return asked

    def _read(self, mail: Mail) -> bool:
        """Take the decryptors' answers; whether there were any, good or bad."""
        heard = False
        topic = Topic.of(self.plan, self.ring.key().key_id)
        for sender, body in mail.items():
            if sender not in self.live or bytes(body) == HERE:
                continue
            heard = True
            try:
                message = Message.read(body)
                message.verify(self.ring.roster.get(sender, bytes(64)), ANSWER, topic, sender)
                count, together, part = message.whole()
                mine = tuple(bytes(together))
                if int.from_bytes(bytes(count), "little") != len(self.collected.messages):
                    raise Refused("it opened a sum of another number of clients")
                if not set(mine) <= self.asked.get(sender, set()) or set(mine) & set(self._answered()):
                    raise Refused("it answered for other pieces than it was asked for")
                self.parts[min(mine, default=-1)] = mine, bytes(part)
            except (Refused, ValueError) as refused:
                self.collected.excluded.setdefault(sender, str(refused))
        return heard

    def _open(self) -> None:
        messages = [self.collected.messages[client] for client in self.collected.clients]
        c0 = add_c0([message.only([0])[0] for message in messages])
        try:
            numbers = joint(self.ring).opened(c0, [part for _, part in self.parts.values()], self.plan)
            total = self.ring.scheme.total(numbers, self.plan, len(messages))
        except Refused as refused:
            raise Abort(f"what the decryptors answered cannot be used: {refused}") from refused
        self.opened = Opened(total, self.collected.clients, excluded=dict(self.collected.excluded))
