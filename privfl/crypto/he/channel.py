"""What all homomorphic channels share: members, views, and the sentence that says who can read
what.
"""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch

from privfl.core import (
    Able,
    Bounded,
    Buffer,
    ChannelKind,
    ClientId,
    Guarantee,
    KeepsSecrets,
    Liars,
    Member,
    Opener,
    Party,
    PartyId,
    Received,
    RoundPlan,
    RowBound,
    Rows,
    Total,
    client_of,
    client_party,
)
from privfl.crypto.he.decryption_policy import ANSWER, CIPHERTEXT, SUM, opened_answer
from privfl.crypto.he.guarantee import SchemeLies, he_guarantee
from privfl.crypto.he.keyring import Arrangement, Introduction, KeyMaking, Keyring
from privfl.crypto.he.rounds import ClientRound, DecryptorRound, ServerRound
from privfl.crypto.he.scheme import PublicKey, Scheme, SecretKey, ThresholdScheme
from privfl.crypto.he.wire import Numbers, Parts, Refused, SignedMessage, unpack, unpack_numbers


class HeClient(KeepsSecrets):
    """A client between rounds: its identity and the keys."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Say hello, take the key."""
        return Introduction(self.ring)

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """Encrypt one update."""
        self.ring.scheme.headroom(plan)
        return ClientRound(self.ring, plan, update)


class HeServer(KeepsSecrets):
    """The server between rounds. It holds no secret but its own identity."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Say hello, take the public key."""
        return Introduction(self.ring)

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """Collect one sum."""
        self.ring.scheme.headroom(plan)
        return ServerRound(self.ring, plan)


class HeHelper(KeepsSecrets):
    """A decryptor or a dealer between rounds."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Make the key, or take a share of it."""
        return (
            KeyMaking(self.ring)
            if self.ring.who == self.ring.arrangement.maker
            else Introduction(self.ring)
        )

    def enter(self, plan: RoundPlan) -> Party:
        """Open one sum. A dealer has no part in rounds, and nobody writes to it."""
        self.ring.scheme.headroom(plan)
        return DecryptorRound(self.ring, plan)


class HomomorphicChannel:
    """The methods of a channel, from a scheme and an arrangement of keys.

    Threat model (``guarantee`` says it as the channel is set). Where sums are verified a server
    that lies ALONE cannot make decryptors open one client's ciphertext, a small sum, an old round
    or the same round twice; it chooses whose ciphertexts are summed. With ``min_clients`` - 1
    clients it reads one client a round. Where clients share the key, or sums are not verified, it
    reads single updates alone. Transport is authenticated, as in the set-up in which the parties
    learn each other's keys. There is no proof that a ciphertext or a decryptor's part is well
    formed: a client can put any vector into the sum, and one decryptor can move it.
    """

    __slots__ = ()
    kind: ClassVar[ChannelKind] = ChannelKind("total")

    @property
    def able(self) -> Able:
        """Encoding, who can decrypt, and what a report says aloud."""
        return self._able()

    def _able(self) -> Able:
        return Able(
            encodes=self.scheme,
            sums=self.arrangement.releases,
            key_holders=self.key_holders,
            warnings=self.arrangement.warnings(),
        )

    @property
    def scheme(self) -> Scheme:
        """The cryptosystem with its parameters."""
        raise TypeError("a homomorphic channel names its scheme.")

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        raise TypeError("a homomorphic channel names its arrangement of keys.")

    @property
    def own_lies(self) -> SchemeLies:
        """The lies of the scheme's own."""
        return SchemeLies()

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return he_guarantee(self.arrangement, self.own_lies)

    def keyring(self, who: PartyId) -> Keyring:
        """An empty keyring of this channel, for one party."""
        return Keyring(who, self.scheme, self.arrangement)

    def client(self, who: ClientId) -> HeClient:
        """A client that encrypts and signs."""
        return HeClient(self.keyring(client_party(who)))

    def server(self) -> HeServer:
        """A server that adds what it cannot read."""
        return HeServer(self.keyring("server"))

    def helpers(self) -> Mapping[PartyId, HeHelper]:
        """The decryptors, and the dealer where there is one."""
        who = dict.fromkeys((self.arrangement.maker, *self.arrangement.decryptors))
        return {party: HeHelper(self.keyring(party)) for party in who}

    def key_holders(self, cohort: Several[ClientId]) -> Several[PartyId]:
        """The smallest coalition that holds the whole secret key."""
        arrangement = self.arrangement
        if arrangement.keys == "shared":
            return tuple(client_party(client) for client in list(cohort)[:1])
        return arrangement.decryptors[: arrangement.threshold]

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Keys: {self.arrangement.keys}. {self.guarantee.describe()}"

    def row_bound(self, l2: float, d: int) -> RowBound:
        """Encoding moves every entry a little."""
        longest = self.scheme.inflated(l2, d)
        return RowBound(longest, 2 * longest)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition reads: every row whose ciphertext and key it holds, otherwise a sum that
        it holds or was told, or nothing.
        """
        rings = [
            member.ring
            for member in members.values()
            if isinstance(member, HeClient | HeServer | HeHelper)
        ]
        opener = _opener(rings, self.arrangement)
        server = next((ring for ring in rings if ring.who == "server"), None)
        told: Total | None = None
        rows: dict[str, Total] = {}
        partials: dict[PartyId, Parts] = {}
        for message in messages_in(received):
            try:
                plan = message.topic.plan()
                if message.kind == ANSWER and server is not None:
                    count, parts = opened_answer(message, server)
                    if self.arrangement.keys == "threshold":
                        partials[message.sender] = parts
                        told = told or self._combined(server.key(), partials, plan, count)
                    else:
                        told = told or self.scheme.total(unpack_numbers(parts[0]), plan, count)
                elif (
                    message.kind == CIPHERTEXT and opener is not None and message.sender not in rows
                ):
                    rows[message.sender] = self.scheme.total(
                        opener(message.whole(), plan, 1), plan, 1
                    )
                elif message.kind == SUM and opener is not None:
                    said, *total = message.whole()
                    count = int.from_bytes(bytes(said), "little")
                    told = told or self.scheme.total(opener(tuple(total), plan, count), plan, count)
            except (Refused, ValueError):
                continue
        return rows_of(rows) if rows else told

    def _combined(
        self, public: PublicKey, partials: Mapping[PartyId, Parts], plan: RoundPlan, count: int
    ) -> Total | None:
        """The sum from the decryptors' parts, where there are enough of them."""
        if not isinstance(self.scheme, ThresholdScheme):
            return None
        numbers = self.scheme.combine(public, partials, plan, count, self.arrangement.threshold)
        return None if numbers is None else self.scheme.total(numbers, plan, count)


class _Opener(KeepsSecrets):
    """Decrypts with what a coalition holds: a secret key, or enough shares of one."""

    def __init__(
        self, secret: SecretKey | None, rings: list[Keyring], public: PublicKey | None
    ) -> None:
        self.secret, self.rings, self.public = secret, rings, public

    def __call__(self, parts: Parts, plan: RoundPlan, count: int) -> Numbers:
        if self.secret is not None:
            return self.secret.decrypt(parts, plan, count)
        ring = self.rings[0]
        if self.public is None or not isinstance(ring.scheme, ThresholdScheme):
            raise Refused("no key")
        partials = {r.who: r.share.partial(parts, plan) for r in self.rings if r.share is not None}
        numbers = ring.scheme.combine(
            self.public, partials, plan, count, ring.arrangement.threshold
        )
        if numbers is None:
            raise Refused("too few shares")
        return numbers


def _opener(rings: list[Keyring], arrangement: Arrangement) -> _Opener | None:
    secret = next((ring.secret for ring in rings if ring.secret is not None), None)
    holders = [ring for ring in rings if ring.share is not None]
    if secret is None and (len(holders) < arrangement.threshold or not holders):
        return None
    return _Opener(
        secret, holders, next((ring.public for ring in rings if ring.public is not None), None)
    )


def messages_in(received: Received) -> Iterator[SignedMessage]:
    """Every signed message in somebody's mail, forwarded ones too."""
    for mails in received.values():
        for mail in mails:
            for sender, body in mail.items():
                for item in _items(body, forwarded=client_of(sender) is None):
                    try:
                        yield SignedMessage.read(item)
                    except Refused:
                        continue


def _items(body: Buffer, *, forwarded: bool) -> list[Buffer]:
    if bytes(body[:3]) == b"PFH" or not forwarded:
        return [body]
    try:
        return list(unpack(body))
    except Refused:
        return []


def rows_of(rows: Mapping[PartyId, Total]) -> Rows | None:
    """Totals of one contribution each, as rows."""
    d = len(next(iter(rows.values())).value)
    usable = {who: total for who, total in rows.items() if len(total.value) == d}
    ids = tuple(int(who.partition("/")[2]) for who in usable)
    weights = torch.tensor([total.weight for total in usable.values()])
    values = torch.stack([total.value for total in usable.values()]) / weights[:, None]
    return Rows(values, weights, ids)
