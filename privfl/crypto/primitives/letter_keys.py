"""What a party needs for every letter of one round and works out once."""

from __future__ import annotations

import os
from collections.abc import Callable

from privfl.core import Buffer, KeepsSecrets, PartyId
from privfl.crypto.primitives.backend import backend
from privfl.crypto.primitives.identity import Identity
from privfl.crypto.primitives.sealed_box import OVERHEAD, BoxKey


class LetterKeys(KeepsSecrets):
    """An identity with what letters of one round take of it: the parsed signing key, one ephemeral
    key for each receiver, and what was agreed on with each sender.

    All letters to one receiver are sealed by one agreement (X25519), each under a key that is
    derived from it in the letter's own context: no two contexts may be the same. At rest
    (`core.seal_state`) all but the identity is forgotten, and so it is in a process that was
    forked. So two parties that wake from one state, or are copies of one, seal under different
    ephemeral keys, even where they write different letters in one context.

    >>> one, two = LetterKeys(Identity.fresh("client/1")), LetterKeys(Identity.fresh("server/1"))
    >>> public, body = one.seal(two.identity.public.box, b"hello", b"letter 0")
    >>> two.unseal("client/1", public + body, b"letter 0")
    b'hello'
    >>> one.seal(two.identity.public.box, b"hello", b"letter 1")[0] == public
    True
    """

    def __init__(self, identity: Identity) -> None:
        self._begin(identity)

    def _begin(self, identity: Identity) -> None:
        self.identity = identity
        self._sign: Callable[[bytes], bytes] | None = None
        self._to: dict[bytes, BoxKey] = {}
        self._process = os.getpid()
        self._from: dict[PartyId, BoxKey] = {}

    def __getstate__(self) -> Identity:
        return self.identity

    def __setstate__(self, identity: Identity) -> None:
        self._begin(identity)

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature [64 bytes] (RFC 8032)."""
        if self._sign is None:
            self._sign = backend().signer(self.identity.signing)
        return self._sign(data)

    def seal(self, to: bytes, plain: Buffer, context: bytes) -> tuple[bytes, bytes]:
        """A sealed box in its two pieces, which nobody has copied together: the ephemeral public
        key [32 bytes], and ciphertext with tag.

        Raises:
            ValueError: the receiver's key ``to`` is a point of small order.
        """
        library, process = backend(), os.getpid()
        if process != self._process:
            self._to, self._process = {}, process
        key = self._to.get(to) or self._to.setdefault(to, BoxKey.fresh(to, library))
        return key.public, key.seal(plain, context, library)

    def unseal(self, sender: PartyId, box: Buffer, context: bytes) -> bytes | None:
        """What this sender sealed to this party in this context, or None."""
        if len(box) < OVERHEAD:
            return None
        library, public, body = backend(), bytes(box[:32]), memoryview(box)[32:]
        key = self._from.get(sender)
        if key is None or key.public != public:
            me = self.identity
            try:
                key = BoxKey.heard(public, me.box, me.public.box, library)
            except ValueError:
                return None
            self._from[sender] = key
        return key.unseal(body, context, library)
