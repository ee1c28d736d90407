"""Who holds which key, what a party knows of the others, and the set-up in which it learns it."""

from __future__ import annotations

import contextlib
import secrets
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
from privfl.crypto.he.boxes import seal, unsealed
from privfl.crypto.he.parameters import Arrangement
from privfl.crypto.he.scheme import (
    DealtScheme,
    KeyShare,
    PublicKey,
    Scheme,
    SecretKey,
    ThresholdScheme,
)
from privfl.crypto.he.wire import Refused, Topic, digest, is_known, pack, unpack

_SECRET, _SHARE = b"secret key", b"key share"


@dataclass(repr=False, eq=False)
class Keyring(KeepsSecrets):
    """What one party holds between rounds: its identity, the keys of others, the public key, and
    its secret where it has one.

    ``occasion`` is random and new in every set-up, and all messages of the session are bound to it:
    a key may lie in a file and identities do, and what was signed in one session must prove nothing
    in the next, where the decryptors answer anew.
    """

    who: PartyId
    scheme: Scheme
    arrangement: Arrangement
    identity: PartyKeys
    directory: KnownKeys
    occasion: bytes = b""
    roster: dict[PartyId, bytes] = field(default_factory=dict)
    answered: set[tuple[bytes, int]] = field(default_factory=set)
    public: PublicKey | None = None
    secret: SecretKey | None = None
    share: KeyShare | None = None

    def key(self) -> PublicKey:
        """The public key.

        Raises:
            Abort: the set-up did not bring one.
        """
        if self.public is None:
            maker = self.arrangement.maker
            if self.arrangement.keys == "joint":
                raise Abort(
                    f"{self.who} has no joint key: the decryptors did not finish the distributed"
                    " key generation"
                )
            raise Abort(
                f"{self.who} has no key: {maker} is silent, or the mail of the set-up is lost, and"
                " nothing tells which"
            )
        return self.public

    def reset(self) -> None:
        """Forget an earlier session."""
        self.occasion, self.roster, self.answered = b"", {}, set()
        self.public = self.secret = self.share = None

    def meet(self, who: PartyId, hello: bytes) -> bool:
        """Take a party's public keys [64 bytes], once, if they are the ones in the directory."""
        known = is_known(self.directory, who, hello)
        if known:
            self.roster.setdefault(who, hello)
        return known

    @property
    def server_box(self) -> bytes:
        """The X25519 key [32 bytes] to which letters to the server are sealed.

        Raises:
            Abort: the server did not take part in the set-up.
        """
        if "server" not in self.roster:
            raise Abort(
                f"{self.who} does not know the server: its hello was lost in the set-up, or never"
                " sent, and nothing tells which"
            )
        return self.roster["server"][32:]

    def topic(self, plan: RoundPlan) -> Topic:
        """What every message of a round is bound to: the key, the set-up, the round's facts."""
        return Topic.of(plan, self.session_key)

    @property
    def session_key(self) -> bytes:
        """The name [16 bytes] of the public key in this set-up."""
        return digest(self.key().key_id + self.occasion)[:16]


class Introduction(KeepsSecrets):
    """The set-up of everybody but the key's maker: say who you are, and take the key."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring
        ring.reset()

    def step(self, mail: Mail) -> Mail:
        """Hello, then silence."""
        ring, arrangement = self.ring, self.ring.arrangement
        if not mail:
            others = {"server", arrangement.maker, *arrangement.decryptors} - {ring.who}
            return dict.fromkeys(sorted(others), ring.identity.hello)
        for sender, body in mail.items():
            if sender == arrangement.maker and len(body) != 64:
                try:
                    self._learn(bytes(body))
                except (Refused, ValueError) as refused:
                    raise Abort(
                        f"{ring.who} cannot use the key that it was sent: {refused}", blamed=sender
                    ) from refused
            elif len(body) == 64:
                ring.meet(sender, bytes(body))
        return {}

    def _learn(self, body: bytes) -> None:
        ring, arrangement = self.ring, self.ring.arrangement
        public, occasion, maker, server, secret, share = (bytes(item) for item in unpack(body))
        if ring.public is not None:
            return
        for who, hello in ((arrangement.maker, maker), *((("server", server),) if server else ())):
            if not ring.meet(who, hello):
                raise Refused(f"it came with keys of {who} that are not in the directory")
        ring.occasion = occasion
        key = ring.scheme.public(public)
        if secret and isinstance(ring.scheme, DealtScheme):
            ring.secret = ring.scheme.secret(unsealed(ring.identity, secret, _SECRET + key.key_id))
        if share and isinstance(ring.scheme, ThresholdScheme):
            ring.share = ring.scheme.share(unsealed(ring.identity, share, _SHARE + key.key_id))
        ring.public = key


class KeyMaking(KeepsSecrets):
    """The set-up of the key's maker: make the key, hand it to whoever says hello. A dealer keeps
    nothing of it after the set-up.
    """

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring
        ring.reset()
        self.secret: SecretKey | None = None
        self.shares: dict[PartyId, KeyShare] = {}

    def step(self, mail: Mail) -> Mail:
        """The key, to everybody who says hello."""
        ring, arrangement, scheme = self.ring, self.ring.arrangement, self.ring.scheme
        if not mail and isinstance(scheme, DealtScheme):
            ring.public, self.secret = scheme.generate()
            ring.occasion = secrets.token_bytes(16)
            if arrangement.keys == "authority":
                ring.secret = self.secret
            elif arrangement.keys == "threshold" and isinstance(scheme, ThresholdScheme):
                ring.public, shares = scheme.split(
                    self.secret, arrangement.holders, arrangement.threshold
                )
                self.shares = dict(zip(arrangement.decryptors, shares, strict=True))
            return {}
        hellos = {
            sender: bytes(body)
            for sender, body in mail.items()
            if len(body) == 64 and sender not in ring.roster and ring.meet(sender, bytes(body))
        }
        out: dict[PartyId, Buffer] = {}
        for sender, hello in hellos.items():
            with contextlib.suppress(
                Refused
            ):  # a key that nobody can hold: its sender is told nothing
                out[sender] = self._announcement(sender, hello)
        return out

    def _announcement(self, receiver: PartyId, hello: bytes) -> bytes:
        ring, key = self.ring, self.ring.key()
        secret = share = b""
        if (
            ring.arrangement.keys == "shared"
            and receiver.startswith("client/")
            and self.secret is not None
        ):
            secret = seal(hello[32:], self.secret.to_bytes(), _SECRET + key.key_id)
        if receiver in self.shares:
            share = seal(hello[32:], self.shares[receiver].to_bytes(), _SHARE + key.key_id)
        server = ring.roster.get("server", b"")
        return pack([key.to_bytes(), ring.occasion, ring.identity.hello, server, secret, share])
