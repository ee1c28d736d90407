"""What a client has in common with each other client of a round: sealed shares, mask seeds, and
against an active server words that nobody else can say.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from privfl.core import Buffer, KeepsSecrets, KnownKeys, PartyKeys, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Backend, BackendName, backend
from privfl.crypto.secagg import keys
from privfl.crypto.secagg.keys import Agreement, RoundKeys, Statement
from privfl.crypto.secagg.parameters import SecAggParameters
from privfl.crypto.sharing import shamir

_LASTING = b"privfl/1/secagg/lasting"


class LastingPairs(KeepsSecrets):
    """What a client's lasting key agrees on with the box keys of others, worked out once a session;
    at rest (`core.seal_state`) all but the identity is forgotten.
    """

    def __init__(self, identity: PartyKeys) -> None:
        self.identity = identity
        self._agree: Agreement | None = None
        self._with: dict[bytes, bytes] = {}

    def __getstate__(self) -> PartyKeys:
        return self.identity

    def __setstate__(self, identity: PartyKeys) -> None:
        self.identity, self._agree, self._with = identity, None, {}

    def agreed(self, box: bytes) -> bytes:
        """The secret [32 bytes] with the holder of a box key; raises ValueError where there is
        none.
        """
        if box not in self._with:
            self._agree = self._agree or self.identity.sharing(_LASTING)
            self._with[box] = self._agree(box)
        return self._with[box]


@dataclass(repr=False)
class Pairs(KeepsSecrets):
    """One client's side of its pairs in one round; others are named by their position.

    Semi-honest: shares are sealed under the agreement of the fresh keys that the server hands out.
    Active: under that and the agreement of the lasting keys that the directory knows, so that a
    key in a client's name which is not its own opens nothing and says nothing.
    """

    now: SecAggParameters
    cohort: tuple[int, ...]
    position: int
    keys: RoundKeys
    lasting: LastingPairs
    directory: KnownKeys
    library_name: BackendName
    publics: dict[int, bytes] = field(default_factory=dict)
    fresh: dict[int, bytes] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)

    def meet(self, publics: Mapping[int, Buffer]) -> None:
        """Take note of others' public keys.

        Two clients may have the same: all that is derived from them hangs on whose they are.

        Raises:
            StageAbort: one client has two.
        """
        for other, public in publics.items():
            known = self.publics.setdefault(other, bytes(public))
            if known != public:
                raise StageAbort("masked_input", "one client has two keys", "server")

    def seal(self, sealing: Mapping[int, bytes]) -> dict[int, Buffer]:
        """A box for each of these others."""
        agree, out = self._library.agreement(self.keys.c), dict[int, Buffer]()
        for other, plain in sealing.items():
            secret = next(iter(self._secrets(other, agree)), None)
            if secret is None:
                continue  # the directory knows no key of it: nobody can be it
            if self.now.active:
                self.roots[other] = secret
            key = self._key(secret, self.position, other)
            bound = keys.bound_to(self.now.tag, self.position, other)
            dealt = self._dealt(self.position, other, plain)
            # other shares have other commitments: no key seals two boxes under one nonce
            out[other] = dealt + self._library.seal(key, dealt[:12], plain, bound)
        return out

    def open(self, boxes: Mapping[int, Buffer]) -> dict[int, bytes]:
        """What these others sealed to this client; what does not open is left out."""
        agree, out = self._library.agreement(self.keys.c), dict[int, bytes]()
        for other, box in boxes.items():
            bound = keys.bound_to(self.now.tag, other, self.position)
            for secret in self._secrets(other, agree):
                key = self._key(secret, other, self.position)
                sealed = bytes(box[2 * keys.DEALT :])
                plain = self._library.unseal(key, bytes(box[:12]), sealed, bound)
                if plain is not None:
                    if self._dealt(other, self.position, plain) == box[: 2 * keys.DEALT]:
                        out[other] = plain
                    if self.now.active:
                        self.roots[other] = secret
                    break
        return out

    def _key(self, secret: bytes, sender: int, receiver: int) -> bytes:
        if self.now.active:
            return keys.box_key(secret, sender, receiver)
        return keys.share_key(secret, self.now.tag, sender, receiver)

    def _dealt(self, owner: int, holder: int, plain: bytes) -> bytes:
        seed, key = plain[: shamir.SIZE], plain[shamir.SIZE :]
        tag = self.now.tag
        return keys.dealt(tag, owner, holder, "seed", seed) + keys.dealt(
            tag, owner, holder, "key", key
        )

    def mask_seeds(self, others: Iterable[int]) -> dict[int, bytes]:
        """The seeds of the masks that this client shares with these others."""
        agree = self._library.agreement(self.keys.s)
        return {
            other: keys.pair_seed(
                self._agree(agree, other, self.publics[other][-32:]),
                self.now.tag,
                self.position,
                other,
            )
            for other in others
        }

    def say(self, what: Statement, others: Iterable[int], statement: bytes) -> dict[int, Buffer]:
        """The same words to each of these others, as only the two could say them."""
        return {
            other: keys.said(self.roots[other], what, self.position, statement)
            for other in others
            if other in self.roots
        }

    def heard(self, what: Statement, other: int, statement: bytes, word: Buffer) -> bool:
        """Whether the other said this to this client."""
        root = self.roots.get(other)
        return root is not None and hmac.compare_digest(
            keys.said(root, what, other, statement), bytes(word)
        )

    def _secrets(self, other: int, agree: Agreement) -> Iterable[bytes]:
        """What boxes between the two may be sealed under, the newest of the other's keys first."""
        shared = self._agree(agree, other, self.publics[other][:32])
        if not self.now.active:
            yield shared
            return
        if other in self.roots:
            yield self.roots[other]
        ends = {self.position: self.keys.public, other: self.publics[other]}
        for box in reversed(self.directory.boxes(client_party(self.cohort[other]))):
            yield keys.pair_root(shared, self.lasting.agreed(box), self.now.tag, ends)

    def _agree(self, agree: Callable[[bytes], bytes], other: int, public: bytes) -> bytes:
        if not self.now.active:
            return self._checked(agree, public)
        if other not in self.fresh:  # one key for boxes and masks: one agreement
            self.fresh[other] = self._checked(agree, public)
        return self.fresh[other]

    @staticmethod
    def _checked(agree: Agreement, public: bytes) -> bytes:
        try:
            return agree(public)
        except ValueError:
            raise StageAbort("share_keys", "an unusable public key", "server") from None

    @property
    def _library(self) -> Backend:
        return backend(self.library_name)
