"""The server of the multi-party scheme in one round: it collects ciphertexts, and opens the sum and
no more.
"""

from __future__ import annotations

from collections.abc import Sequence

from privfl.core import Abort, Mail, PartyId, RoundPlan
from privfl.crypto.he.decryption_policy import SUM, forwarded
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.mprlwe.decryptor import HERE, joint
from privfl.crypto.he.mprlwe.keys import add_c0, pieces
from privfl.crypto.he.server import Opening
from privfl.crypto.he.wire import Refused, Rope, SignedMessage, pack


class JointServerRound(Opening):
    """Collect ciphertexts, ask live decryptors for every piece of the key, ask again where one fell
    silent, open the sum.
    """

    def __init__(self, ring: Keyring, plan: RoundPlan) -> None:
        super().__init__(ring, plan, check=True)
        self.live: list[PartyId] = []
        self.parts: dict[bytes, bytes] = {}
        self.asked: dict[PartyId, set[int]] = {}
        self.heard: set[PartyId] = set()

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
        self.live = [who for who in self.live if who in self.heard or who not in self.asked]
        return self._ask()

    def _ask(self) -> Mail:
        """Ask for what is missing; whoever is asked for the first time is handed what it has to
        add.
        """
        handed = set(self.asked)
        messages = [self.collected.messages[client] for client in self.collected.clients]
        assigned = self._assign()
        body = self._body(messages) if assigned.keys() - handed else []
        return {
            who: pack([pack(groups), [] if who in handed else body])
            for who, groups in assigned.items()
        }

    def _body(self, messages: Sequence[SignedMessage]) -> Rope:
        ring, plan = self.ring, self.plan
        if ring.arrangement.verifies:
            return forwarded(messages, left_out=[0])
        half = joint(ring).add_c1([message.only([1])[0] for message in messages], plan)
        count = len(messages).to_bytes(4, "little")
        return SignedMessage.signed(
            ring.identity, SUM, ring.topic(plan), "server", (count, half)
        ).rope()

    def _missing(self) -> list[int]:
        layout = pieces(self.ring.arrangement.holders, self.ring.arrangement.threshold)
        answered = set(b"".join(self.parts))
        return [piece for piece in range(len(layout)) if piece not in answered]

    def _assign(self) -> dict[PartyId, list[bytes]]:
        """The missing pieces: first each to one live holder, who answers for all of its pieces at
        once; later each alone to all holders but those that were asked for it: an answer that is
        lost on its way is not asked for again, because a decryptor answers for a piece once.

        Raises:
            Abort: nobody is left to be asked for one of them.
        """
        arrangement = self.ring.arrangement
        layout = pieces(arrangement.holders, arrangement.threshold)
        assigned: dict[PartyId, list[bytes]] = {}
        for piece in self._missing():
            holders = [
                who
                for who in map(arrangement.decryptors.__getitem__, layout[piece])
                if who in self.live and piece not in self.asked.get(who, ())
            ]
            if not holders:
                there = f"{len(self.live)} of {arrangement.holders} decryptors are there"
                raise Abort(f"{there}, and {arrangement.threshold} are needed to open the sum")
            for who in holders if self.asked else holders[:1]:
                assigned.setdefault(who, []).append(bytes([piece]))
        if not self.asked:
            assigned = {who: [b"".join(groups)] for who, groups in assigned.items()}
        for who, groups in assigned.items():
            self.asked.setdefault(who, set()).update(b"".join(groups))
        return assigned

    def _read(self, mail: Mail) -> bool:
        """Take the decryptors' answers; whether there were any, good or bad."""
        heard = {who for who in mail if who in self.live and bytes(mail[who]) != HERE}
        for sender in sorted(heard):
            try:
                answers = self.answered(sender, mail[sender])
                groups, parts = answers[::2], answers[1::2]
                if not set(b"".join(groups)) <= self.asked.get(sender, set()):
                    raise Refused("it answered for other pieces than it was asked for")
                for group, part in zip(groups, parts, strict=True):
                    if not set(group) & set(b"".join(self.parts)):
                        self.parts[group] = part
                self.heard.add(sender)
            except (Refused, ValueError) as refused:
                self.collected.excluded.setdefault(sender, str(refused))
                self.live.remove(sender)
        return bool(heard)

    def _open(self) -> None:
        messages = [self.collected.messages[client] for client in self.collected.clients]
        c0 = add_c0([message.only([0])[0] for message in messages])
        try:
            numbers = joint(self.ring).opened(c0, list(self.parts.values()), self.plan)
            total = self.ring.scheme.total(numbers, self.plan, len(messages))
        except Refused as refused:
            raise Abort(f"what the decryptors answered cannot be used: {refused}") from refused
        self.finish(total)
