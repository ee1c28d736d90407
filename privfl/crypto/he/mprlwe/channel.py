"""The multi-party RLWE channel: no key that anybody holds, exact sums. Experimental, and
unaudited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from privfl.core import (
    ClientId,
    ConfigError,
    Member,
    Opener,
    Party,
    PartyId,
    Received,
    RoundPlan,
    Rows,
    Total,
    client_party,
    require,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he.channel import (
    HeClient,
    HeHelper,
    HeServer,
    HomomorphicChannel,
    messages_in,
    rows_of,
)
from privfl.crypto.he.decryption_policy import ANSWER, CIPHERTEXT, opened_answer
from privfl.crypto.he.guarantee import SchemeLies
from privfl.crypto.he.keyring import Arrangement, Keyring
from privfl.crypto.he.lies import two_sums
from privfl.crypto.he.mprlwe.distributed_keygen import DistributedKeygen, KeygenObserver
from privfl.crypto.he.mprlwe.keys import (
    JointPublic,
    TernaryPart,
    add_c0,
    noise,
    partial,
    pieces,
    room,
)
from privfl.crypto.he.mprlwe.lies import (
    answers_anew,
    combined,
    moves_the_sum,
    opens_one,
    request_pieces,
)
from privfl.crypto.he.mprlwe.rounds import JointDecryptorRound, JointServerRound
from privfl.crypto.he.scheme import IntegerCode
from privfl.crypto.he.wire import Refused, SignedMessage, Topic


@dataclass(frozen=True, slots=True)
class JointScheme(IntegerCode):
    """Fixed point, and the room that a round needs."""

    count: int
    smudge_bits: int

    def public(self, data: bytes) -> JointPublic:
        """Read a joint key."""
        return JointPublic.from_bytes(data, self.code.bits)

    def headroom(self, plan: RoundPlan) -> None:
        """The sum, the noise, the smudging and the truncation must stay within half a plaintext
        step.
        """
        self.code.scale(plan)
        if room(plan, self.code.top, self.count, self.smudge_bits) <= 0:
            raise ConfigError(
                f"mp_rlwe: a sum of {plan.n} contributions of {self.code.bits} bits with"
                f" {self.smudge_bits} bits of smudging can overflow; lower smudge_bits or bits, or"
                " ask fewer clients."
            )


class JointClient(HeClient):
    """A client between rounds."""

    def set_up(self) -> Party:
        """Say hello, take the joint key."""
        return KeygenObserver(self.ring)


class JointServer(HeServer):
    """The server between rounds."""

    def set_up(self) -> Party:
        """Say hello, take the joint key."""
        return KeygenObserver(self.ring)

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """Collect one sum."""
        self.ring.scheme.headroom(plan)
        return JointServerRound(self.ring, plan)


class JointDecryptor(HeHelper):
    """A decryptor between rounds: its pieces of the key."""

    def __init__(self, ring: Keyring, index: int, smudge_bits: int) -> None:
        super().__init__(ring)
        self.index, self.smudge_bits = index, smudge_bits
        self.held: dict[int, TernaryPart] = {}

    def set_up(self) -> Party:
        """Its part in the distributed key generation."""
        return DistributedKeygen(self.ring, self.index, self.held)

    def enter(self, plan: RoundPlan) -> Party:
        """Its part in one decryption."""
        self.ring.scheme.headroom(plan)
        return JointDecryptorRound(self.ring, self.held, plan, self.smudge_bits)


@dataclass(frozen=True, slots=True)
class MultiPartyRLWE(HomomorphicChannel):
    """Additive-key RLWE (after Mouchet, Troncoso-Pastoriza, Bossuat, Hubaux 2021, with BFV-style
    packing): 16 bytes a value, exact sums.

    EXPERIMENTAL AND UNAUDITED: our own cryptography, in numpy and torch, not constant-time.
    ``holders`` decryptors (3 to 5) make a joint key by commit-then-reveal; the secret exists only
    in pieces, any ``threshold`` decryptors hold all of them, and fewer decrypt to noise. Ring
    degree 4096 and q = 2^96 with ternary secrets: within the 128-bit limit (109 bits) of the
    homomorphic encryption standard. Each part of a decryption carries uniform noise of
    2^``smudge_bits``, which hides the key: `smudging_distance` says how well. Headroom counts
    truncation, noise and smudging; docs/mp-rlwe.md derives it.

    Threat model: as `HomomorphicChannel`. ``threshold`` - 1 decryptors that collude with the server
    cannot decrypt what the honest ones refuse, but 2 ``threshold`` - ``holders`` of them have two
    overlapping sums opened, and read their difference. A client that makes a ciphertext of its own
    choice can show the server the joint key. With ``verify_sum=False`` the server takes the key
    alone: one chosen ciphertext through the decryptors gives it away.

    Raises:
        ConfigError: impossible numbers of decryptors, or smudging out of range.

    >>> MultiPartyRLWE(holders=3, threshold=3).guarantee.read_by()
    'server with any 3 of 3 decryptors'
    """

    bits: int = 16
    holders: int = 3
    threshold: int = 2
    smudge_bits: int = 67
    min_clients: int = 2
    verify_sum: bool = True
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def __post_init__(self) -> None:
        require.within(3, 5, holders=self.holders)
        require.within(40, 90, smudge_bits=self.smudge_bits)
        require.within(2, 24, bits=self.bits)
        FixedPoint(self.bits, self.rounding)
        self.describe()  # refuses impossible arrangements

    @property
    def scheme(self) -> JointScheme:
        """The scheme with these parameters."""
        return JointScheme(
            FixedPoint(self.bits, self.rounding),
            len(pieces(self.holders, self.threshold)),
            self.smudge_bits,
        )

    @property
    def own_lies(self) -> SchemeLies:
        """What a holder of pieces of the key can do, and a server whose sums nobody verifies."""
        request = request_pieces(self.holders, self.threshold)
        return SchemeLies(
            moves=moves_the_sum,
            says="moves its part, which nothing proves right",
            one=opens_one,
            says_one="calls one client's ciphertext a sum (and a chosen one shows the key)",
            twice=two_sums(request, combined, answers_anew),
        )

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        return Arrangement("joint", self.min_clients, self.verify_sum, self.holders, self.threshold)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Experimental and unaudited. {HomomorphicChannel.describe(self)}"

    def client(self, who: ClientId) -> JointClient:
        """A client that encrypts and signs."""
        return JointClient(self.keyring(client_party(who)))

    def server(self) -> JointServer:
        """A server that adds what it cannot read."""
        return JointServer(self.keyring("server"))

    def helpers(self) -> Mapping[PartyId, JointDecryptor]:
        """The decryptors."""
        return {
            who: JointDecryptor(self.keyring(who), i, self.smudge_bits)
            for i, who in enumerate(self.arrangement.decryptors)
        }

    def smudging_distance(self, plan: RoundPlan) -> float:
        """Statistical distance, a coefficient, between a part of a decryption and one made without
        the key; worst-case noise.
        """
        return float(noise(plan.n, self.scheme.count) / 2.0 ** (self.smudge_bits + 1))

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """Every row, for enough decryptors with the server or with a tap on its wires; the sum, for
        the server; nothing, for anybody else.
        """
        rings = [
            m.ring
            for m in members.values()
            if isinstance(m, JointClient | JointServer | JointDecryptor)
        ]
        public = next((ring.public for ring in rings if isinstance(ring.public, JointPublic)), None)
        if public is None:
            return None
        held: dict[int, TernaryPart] = {}
        for member in members.values():
            if isinstance(member, JointDecryptor):
                held |= member.held
        mail = list(messages_in(received))
        server = next((m.ring for m in members.values() if isinstance(m, JointServer)), None)
        known = {who: hello for ring in rings for who, hello in ring.roster.items()}
        whole = {  # whoever has the server's mail; decryptors alone are sent one half
            m.sender: m
            for m in mail
            if m.kind == CIPHERTEXT and None not in m.parts and _genuine(m, known, public)
        }
        if len(held) == self.scheme.count and whole:
            return rows_of(
                {who: self._row(message, public, held) for who, message in whole.items()}
            )
        if server is None:
            return None
        return self._sum([m for m in mail if m.kind == ANSWER], whole, public, server)

    def _row(
        self, message: SignedMessage, public: JointPublic, held: Mapping[int, TernaryPart]
    ) -> Total:
        c0, c1 = message.whole()
        plan = message.topic.plan()
        share = partial(list(held.values()), bytes(c1), public.blocks(plan), None)
        return self.scheme.total(public.opened(bytes(c0), [share], plan), plan, 1)

    def _sum(
        self,
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
        if len(b"".join(parts)) != self.scheme.count or not whole:
            return None
        plan = answers[0].topic.plan()
        c0 = add_c0([message.only([0])[0] for message in whole.values()])
        return self.scheme.total(public.opened(c0, list(parts.values()), plan), plan, len(whole))


def _genuine(message: SignedMessage, roster: Mapping[PartyId, bytes], public: JointPublic) -> bool:
    """Whether the server took this ciphertext into the sum."""
    topic: Topic = message.topic
    try:
        message.verify(roster[message.sender], CIPHERTEXT, topic, message.sender)
        public.check(message.whole(), topic.plan())
    except (Refused, KeyError):
        return False
    return topic.key_id == public.key_id
