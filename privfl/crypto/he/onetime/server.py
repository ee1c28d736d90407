"""The server's part: it adds contributions as they come, has the dealings checked, and learns the
sum of one set of clients.
"""

from __future__ import annotations

from dataclasses import replace

from privfl.core import (
    Abort,
    Buffer,
    ClientId,
    KeepsSecrets,
    KnownKeys,
    Mail,
    Opened,
    PartyId,
    PartyKeys,
    RoundPlan,
    Total,
    client_party,
)
from privfl.crypto.he.boxes import unsealed
from privfl.crypto.he.collecting import collect, enough
from privfl.crypto.he.mprlwe.ring import N
from privfl.crypto.he.onetime import dealing, message, opening, pad
from privfl.crypto.he.onetime.decryptor import HERE
from privfl.crypto.he.onetime.message import (
    BOXES,
    CHECKED,
    CONTRIBUTION,
    DEALT,
    OPEN,
    PROOF,
    SHARE,
    id_of,
    ids_bytes,
    ids_in,
)
from privfl.crypto.he.onetime.parameters import OneTimeSettings
from privfl.crypto.he.onetime.parked import Parked
from privfl.crypto.he.wire import Refused, Rope, SignedMessage, braid, pack, unpack


class OneTimeServerParty(KeepsSecrets):
    """The server in one round: collect, have checked, have opened.

    ``messages``: what clients sent, without its parts: the contributions are in ``total``, and all
    parts on disk, as they travelled.
    """

    def __init__(
        self,
        settings: OneTimeSettings,
        identity: PartyKeys,
        directory: KnownKeys,
        plan: RoundPlan,
    ) -> None:
        self.settings, self.identity, self.directory = settings, identity, directory
        self.plan, self.layout, self.topic = plan, settings.layout(plan), settings.topic(plan)
        self.total = pad.empty(self.layout)
        self.contributions, self.dealings = Parked(), Parked()
        self.messages: dict[ClientId, SignedMessage] = {}
        self.dealt: dict[ClientId, frozenset[PartyId]] = {}
        self.excluded: dict[PartyId, str] = {}
        self.live: list[PartyId] = []
        self.closed = False
        self.chosen: opening.ChosenSum | None = None
        self.opened: Opened[Total] | None = None

    @property
    def result(self) -> Opened[Total] | None:
        """The weighted sum, once it is opened."""
        return self.opened

    def step(self, mail: Mail) -> Mail:
        """Collect; then read what decryptors found; then their sums.

        Raises:
            Abort: too few clients or decryptors are left, or what was answered opens nothing.
        """
        if not mail or self.opened is not None:
            return {}
        self.take(mail)
        if not self.closed:
            return self._close(mail)
        heard = self._heard(mail)
        if not heard:
            return {}
        if self.chosen is None:
            return self._choose(heard)
        self._open(heard)
        return {}

    def take(self, mail: Mail) -> None:
        """Add what clients sent; what comes after the collection closed is refused as late."""
        late = "the message came after the sum was made" if self.closed else ""
        if self.closed:  # what a decryptor says, which may be a client, is read elsewhere
            mail = {who: body for who, body in mail.items() if who not in self.live}
        collect(mail, self.plan, self.messages, self.excluded, self._add, late)

    def _add(self, client: ClientId, body: Buffer) -> None:
        settings, sent = self.settings, SignedMessage.read(body)
        signed = sent.without([CONTRIBUTION])  # whose box is opened once the signature is right
        message.verify(signed, self.directory, DEALT, self.topic, client_party(client))
        parts = sent.whole()
        if len(parts) != BOXES + settings.holders:
            raise Refused("another number of boxes than there are decryptors")
        message.proof_in(sent, settings.holders, settings.threshold)
        pad.add(self.total, self._contribution(sent))
        self.contributions.put(client, parts[CONTRIBUTION])
        self.dealings.put(client, pack(parts[PROOF:]))
        boxes = zip(settings.decryptors, parts[BOXES:], strict=True)
        self.dealt[client] = frozenset(who for who, box in boxes if box)
        self.messages[client] = sent.without(range(len(parts)))

    def _contribution(self, sent: SignedMessage) -> bytes:
        return message.contribution_in(sent, self.identity, self.layout.size)

    def _close(self, mail: Mail) -> Mail:
        """Hand the decryptors the dealings."""
        settings = self.settings
        self.closed = True
        if settings.committee == "clients":  # whose contribution says that they are there
            there = {client_party(client) for client in self.messages}
            self.live = [who for who in settings.decryptors if who in there]
        else:
            self.live = [who for who in settings.decryptors if bytes(mail.get(who, b"")) == HERE]
        self._enough(len(self.messages), "sent a usable message")
        self._able(len(self.live))
        out = {who: self._bundle(settings.decryptors.index(who)) for who in self.live}
        self.dealings.close()
        return out

    def _bundle(self, index: int) -> bytes:
        """The messages as one decryptor is handed them: no contributions, no boxes of others."""
        others = {CONTRIBUTION, *range(BOXES, BOXES + self.settings.holders)} - {BOXES + index}
        ropes: list[Buffer | Rope] = []
        for client in self._clients():
            parts = (None, *unpack(self.dealings.get(client)))
            ropes.append(replace(self.messages[client], parts=parts).without(others).rope())
        return b"".join(braid(ropes))

    def _clients(self) -> tuple[ClientId, ...]:
        """Who sent a usable message, in the order of the cohort."""
        return tuple(client for client in self.plan.cohort if client in self.messages)

    def _enough(self, count: int, did: str) -> None:
        enough(count, did, self.settings.quorum(self.plan.n), self.plan, self.excluded)

    def _able(self, count: int) -> None:
        settings = self.settings
        if count < settings.threshold:
            why = "".join(
                f"; {who}: {self.excluded[who]}"
                for who in settings.decryptors
                if who in self.excluded
            )
            raise Abort(
                f"{count} of {settings.holders} decryptors are there, and {settings.threshold} are"
                f" needed to open the sum{why}"
            )

    def _heard(self, mail: Mail) -> dict[PartyId, SignedMessage]:
        """What decryptors say at this stage; one that says something else is out. What they said
        before may come again.
        """
        kind = CHECKED if self.chosen is None else SHARE
        heard: dict[PartyId, SignedMessage] = {}
        for who in self.live:
            if who not in mail or bytes(mail[who]) == HERE:
                continue
            try:
                said = SignedMessage.read(mail[who])
                if said.kind == DEALT or (kind == SHARE and said.kind == CHECKED):
                    continue  # it comes again
                message.verify(said, self.directory, kind, self.topic, who)
                heard[who] = said
            except Refused as refused:
                self.excluded.setdefault(who, str(refused))
        return heard

    # ---- whose dealings are good

    def _choose(self, heard: dict[PartyId, SignedMessage]) -> Mail:
        names = {id_of(m): who for who, m in self.messages.items()}
        accepted: dict[PartyId, frozenset[bytes]] = {}
        for who, said in heard.items():
            try:
                (body,) = said.whole()
                accepted[who] = ids_in(body) & names.keys()
            except (Refused, ValueError) as refused:
                self.excluded.setdefault(who, str(refused))
        self._able(len(accepted))
        threshold = self.settings.threshold
        self.chosen = opening.choose(accepted, threshold)
        who_of = {name: client_party(client) for name, client in names.items()}
        dealt = {name: self.dealt[client] for name, client in names.items()}
        self.excluded |= opening.disputes(accepted, who_of, dealt, threshold)
        for name, client in names.items():
            if name not in self.chosen.ids:
                sent = self.messages.pop(client)
                box = self.contributions.get(client)
                pad.subtract(self.total, self._contribution(replace(sent, parts=(box,))))
        self.contributions.close()
        self._enough(len(self.messages), "dealt well")
        ask = SignedMessage.signed(
            self.identity, OPEN, self.topic, "server", (ids_bytes(self.chosen.ids),)
        ).to_bytes()
        return dict.fromkeys(sorted(self.chosen.holders), ask)

    # ---- the sum

    def _open(self, heard: dict[PartyId, SignedMessage]) -> None:
        answers: dict[int, dealing.Values] = {}
        for who, said in heard.items():
            try:
                answers[1 + self.settings.decryptors.index(who)] = self._share(who, said)
            except (Refused, ValueError) as refused:
                self.excluded.setdefault(who, str(refused))
        self._able(len(answers))
        count = len(self.messages)
        layout = replace(self.layout, reach=self.settings.reach(count))

        def right(short: pad.Sum) -> bool:
            return pad.fits(self.total, short, self.topic, layout)

        found = opening.solve(answers, self.settings.threshold, layout.reach, right)
        digits = None
        if found is not None:
            digits = pad.unmasked(self.total, found.short, self.topic, layout)
        if found is None or digits is None:
            raise Abort(self._nothing_fits(answers))
        for point in found.liars:
            self.excluded[self.settings.decryptors[point - 1]] = (
                "its sum of shares is off the polynomial that fits the contributions: it lied, or"
                " another decryptor did together with a client"
            )
        length = self.settings.code.length(self.plan)
        numbers = pad.integers(digits, count, length, layout)
        try:
            total = self.settings.scheme.total(numbers, self.plan, count)
        except Refused as refused:
            raise Abort(
                f"a contribution is none, and nobody can tell whose: {refused}"
            ) from refused
        self.opened = Opened(total, self._clients(), excluded=dict(self.excluded))

    def _share(self, who: PartyId, said: SignedMessage) -> dealing.Values:
        """A decryptor's sum of shares [N].

        Raises:
            Refused: it is of another set of clients, or does not open.
        """
        ids, box = said.whole()
        if self.chosen is None or who not in self.chosen.holders:
            raise Refused("it was not asked")
        if ids_in(ids) != self.chosen.ids:
            raise Refused("it opened the sum of other clients")
        plain = unsealed(self.identity, box, message.answer_purpose(self.topic, who))
        return dealing.from_bytes(plain, (N,))

    def _nothing_fits(self, answers: dict[int, dealing.Values]) -> str:
        what = "no group of decryptors gives a key that fits the sum of the contributions"
        if opening.agreed(answers, self.settings.threshold):
            return (
                f"{what}, and the decryptors agree: a client's contribution does not fit the key"
                " that it dealt, and nobody can tell whose"
            )
        return (
            f"{what}: a decryptor answered something else than the sum of its shares, or a client's"
            " contribution does not fit the key that it dealt, and nobody can tell who"
        )
