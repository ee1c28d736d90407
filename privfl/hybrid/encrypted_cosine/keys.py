"""Who knows which key, and the key set-up: the key holder makes the key pair and hands the public
half to whoever says hello.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from privfl.core import (
    Abort,
    Buffer,
    KeepsSecrets,
    KnownKeys,
    Mail,
    PartyId,
    PartyKeys,
    RoundPlan,
)
from privfl.crypto.he.lattice import LatticePublic
from privfl.crypto.he.lattice.keys import fresh
from privfl.crypto.he.lattice.seal import passage
from privfl.crypto.he.scheme import key_id
from privfl.crypto.he.wire import Refused, Topic, is_known, pack, unpack
from privfl.hybrid.encrypted_cosine.forms import secret_polynomial
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters
from privfl.hybrid.encrypted_cosine.queries import Answering

KEY_HOLDER: PartyId = "key_holder"
_HELLO = 64


@dataclass(repr=False, eq=False)
class Secret(KeepsSecrets):
    """The secret key: SEAL's form, which decrypts aggregates, and the form that answers
    questions.
    """

    seal: bytes
    answering: Answering


@dataclass(repr=False, eq=False)
class Ring(KeepsSecrets):
    """What one party holds between rounds. ``done``: what the key holder answered; ``queries``: how
    many numbers it gave away.
    """

    who: PartyId
    setting: CosineParameters
    identity: PartyKeys
    directory: KnownKeys
    roster: dict[PartyId, bytes] = field(default_factory=dict)
    public: LatticePublic | None = None
    secret: Secret | None = None
    done: set[tuple[bytes, bytes, int]] = field(default_factory=set)
    queries: int = 0

    def key(self) -> LatticePublic:
        """The public key.

        Raises:
            Abort: the set-up did not bring one.
        """
        if self.public is None:
            raise Abort(
                f"{self.who} has no key: no answer of {KEY_HOLDER} reached {self.who} in the set-up"
            )
        return self.public

    def topic(self, plan: RoundPlan) -> Topic:
        """What every message of a round is bound to: the key, the unit of vectors, and the round's
        public facts.
        """
        setting = self.setting
        said = (setting.norms, setting.similarity, setting.projections, setting.min_clients)
        facts = ",".join(map(str, said)).encode()
        return Topic.of(plan, key_id(b"encrypted-cosine/1/" + facts, self.key().to_bytes()))

    def hello_of(self, who: PartyId) -> bytes:
        """A party's public keys.

        Raises:
            Refused: it took no part in the set-up.
        """
        if who not in self.roster:
            raise Refused("did not take part in the set-up")
        return self.roster[who]

    def meet(self, who: PartyId, hello: bytes) -> bool:
        """Take a party's public keys [64 bytes], once, if they are the ones in the directory."""
        known = is_known(self.directory, who, hello)
        if known:
            self.roster.setdefault(who, hello)
        return known

    def reset(self) -> None:
        """Forget an earlier session."""
        self.roster, self.public, self.secret, self.done, self.queries = {}, None, None, set(), 0


class CosineIntroduction(KeepsSecrets):
    """The set-up of clients and the server: say hello, take the key."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        ring.reset()

    def step(self, mail: Mail) -> Mail:
        """Hello, then silence."""
        ring = self.ring
        if not mail:
            return dict.fromkeys(sorted({"server", KEY_HOLDER} - {ring.who}), ring.identity.hello)
        for sender, body in mail.items():
            if len(body) == _HELLO:
                ring.meet(sender, bytes(body))
            elif sender == KEY_HOLDER and ring.public is None:
                try:
                    hello, public = (bytes(part) for part in unpack(body))
                    if not ring.meet(KEY_HOLDER, hello):
                        raise Refused("it came with keys that are not in the directory")
                    ring.public = LatticePublic.from_bytes(public, ring.setting.lattice)
                except (Refused, ValueError) as refused:
                    raise Abort(
                        f"{ring.who} cannot use the key that it was sent: {refused}",
                        blamed=KEY_HOLDER,
                    ) from refused
        return {}


class CosineKeyMaking(KeepsSecrets):
    """The set-up of the key holder: make the key pair, tell the public half to whoever says
    hello.
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        ring.reset()

    def step(self, mail: Mail) -> Mail:
        """The public key, once to everybody."""
        ring, lattice = self.ring, self.ring.setting.lattice
        if ring.secret is None:
            ring.public, secret = fresh(lattice, 1)
            with passage() as file:
                ring.secret = Secret(
                    secret, Answering(lattice, secret_polynomial(file, lattice, secret))
                )
        out: dict[PartyId, Buffer] = {}
        for sender, body in mail.items():
            with contextlib.suppress(Refused):
                if sender in ring.roster or not ring.meet(sender, bytes(body)):
                    raise Refused("a second hello, or one that the directory does not know")
                out[sender] = pack([ring.identity.hello, ring.key().to_bytes()])
        return out
