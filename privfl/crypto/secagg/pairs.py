"""What a client has in common with each other client of a round: sealed shares, mask seeds, and
against an active server words that nobody else can say.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from privfl.core import Buffer, KeepsSecrets, KnownKeys, PartyKeys, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Backend, BackendName, backend
from privfl.crypto.secagg import keys
from privfl.crypto.secagg.keys import Agreement, RoundKeys, Statement
from privfl.crypto.secagg.parameters import SecAggParameters
from privfl.crypto.sharing import shamir

_LASTING = b"privfl/1/secagg/lasting"
_BOXES, _MASKS = slice(None, 32), slice(-32, None)
"""Which of a client's public keys: the one for boxes, or the one for masks."""


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


class FreshPairs(KeepsSecrets):
    """A round's key, ready to agree on something with others; at rest it is made ready again."""

    def __init__(self) -> None:
        self._ready: dict[bytes, Agreement] = {}

    def __getstate__(self) -> tuple[()]:
        return ()

    def __setstate__(self, _: tuple[()]) -> None:
        self._ready = {}

    def of(self, secret: bytes, library: Backend) -> Agreement:
        """What a secret key agrees on with public ones."""
        if secret not in self._ready:
            self._ready[secret] = library.agreement(secret)
        return self._ready[secret]


@dataclass(repr=False)
class Pairs(KeepsSecrets):
    """One client's side of its pairs in one round; others are named by their position.

    Semi-honest: shares are sealed under the agreement of the fresh keys that the server hands out.
    Active: that and the agreement of the lasting keys that the directory knows give each pair a
    root, so that a key in a client's name which is not its own opens nothing and says nothing. Most
    shares are then what the two derive from it, and of the others travels the difference.
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
    ready: FreshPairs = field(default_factory=FreshPairs)

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

    def reach(self, others: Collection[int]) -> list[int]:
        """Find the root of each of these others, by the newest of its keys; those of them that
        have one, because nobody can be whom the directory knows no key of.
        """
        shared, roots = self._shared(self.keys.c, others, _BOXES), self.roots
        for other in others:
            root = next(self._found(other, shared), None)
            if root is not None:
                roots[other] = root
        return [other for other in others if other in roots]

    def common(self, other: int) -> tuple[int, int]:
        """What this client and one that it reached have in common for its two secrets."""
        return keys.agreed_shares(self.roots[other], self.position, other)

    def seal(self, dealing: Mapping[int, bytes], agreed: Collection[int] = ()) -> dict[int, Buffer]:
        """A box for each of these others; in an active round, where they have been reached, the
        shares of those ``agreed`` are what they have in common with this client, and do not travel.
        """
        tag, position = self.now.tag, self.position
        if self.now.active:
            return {
                other: keys.dealt_both(tag, position, other, plain)
                + (b"" if other in agreed else _moved(plain, self.common(other), -1))
                for other, plain in dealing.items()
            }
        shared, out = self._shared(self.keys.c, dealing, _BOXES), dict[int, Buffer]()
        for other, plain in dealing.items():
            key = keys.share_key(shared[other], tag, position, other)
            bound = keys.bound_to(tag, position, other)
            dealt = keys.dealt_both(tag, position, other, plain)
            # other shares have other commitments: no key seals two boxes under one nonce
            out[other] = dealt + self._library.seal(key, dealt[:12], plain, bound)
        return out

    def open(self, boxes: Mapping[int, Buffer]) -> dict[int, bytes]:
        """What these others dealt to this client; what does not open is left out."""
        shared, out = self._shared(self.keys.c, boxes, _BOXES), dict[int, bytes]()
        active, known = self.now.active, self.roots
        for other, box in boxes.items():
            some = self._found(other, shared) if active else (shared[other],)
            for secret in chain((known[other],), some) if other in known else some:
                plain = self._opened(secret, other, box)
                if plain is not None:
                    out[other] = plain
                    if active:
                        known[other] = secret
                    break
        return out

    def _opened(self, secret: bytes, owner: int, box: Buffer) -> bytes | None:
        """What an owner dealt to this client, if this secret is the one between the two."""
        dealt, sealed = bytes(box[: keys.AGREED]), bytes(box[keys.AGREED :])
        plain = self._plain(secret, owner, dealt, sealed)
        right = plain and keys.dealt_both(self.now.tag, owner, self.position, plain) == dealt
        return plain if right else None

    def _plain(self, secret: bytes, owner: int, dealt: bytes, sealed: bytes) -> bytes | None:
        if self.now.active:
            common = keys.agreed_shares(secret, owner, self.position)
            if not sealed:
                return shamir.to_bytes(common[0]) + shamir.to_bytes(common[1])
            return _moved(sealed, common, 1)
        key = keys.share_key(secret, self.now.tag, owner, self.position)
        bound = keys.bound_to(self.now.tag, owner, self.position)
        return self._library.unseal(key, dealt[:12], sealed, bound)

    def mask_seeds(self, others: Collection[int]) -> dict[int, bytes]:
        """The seeds of the masks that this client shares with these others."""
        shared, now = self._shared(self.keys.s, others, _MASKS), self.now
        return {
            other: keys.pair_seed(shared[other], now.tag, self.position, other) for other in others
        }

    def say(self, what: Statement, others: Iterable[int], statement: bytes) -> dict[int, Buffer]:
        """The same words to each of these others, as only the two could say them."""
        roots, me = self.roots, self.position
        return {i: keys.said(roots[i], what, me, statement) for i in others if i in roots}

    def heard(self, what: Statement, words: Mapping[int, Buffer], statement: bytes) -> set[int]:
        """Which of these others said this to this client."""
        roots, alike = self.roots, hmac.compare_digest
        return {
            other
            for other, word in words.items()
            if other in roots and alike(keys.said(roots[other], what, other, statement), word)
        }

    def _found(self, other: int, shared: Mapping[int, bytes]) -> Iterator[bytes]:
        """The roots that the two may have in an active round, the newest of the other's keys
        first.
        """
        ends = {self.position: self.keys.public, other: self.publics[other]}
        for box in reversed(self.directory.boxes(client_party(self.cohort[other]))):
            yield keys.pair_root(shared[other], self.lasting.agreed(box), self.now.tag, ends)

    def _shared(self, secret: bytes, others: Iterable[int], half: slice) -> Mapping[int, bytes]:
        """The agreements of one of this client's fresh keys with these others'. Those for boxes are
        kept: what goes to a client and what comes from it is under one. Against an active server
        it is one key for boxes and masks, and one agreement.
        """
        known = self.fresh if self.now.active or half == _BOXES else {}
        missing = [other for other in others if other not in known]
        if not missing:
            return known
        agree = self.ready.of(secret, self._library)
        for other in missing:
            try:
                known[other] = agree(self.publics[other][half])
            except ValueError:
                raise StageAbort("share_keys", "an unusable public key", "server") from None
        return known

    @property
    def _library(self) -> Backend:
        return backend(self.library_name)


def _moved(shares: bytes, common: tuple[int, int], sign: int) -> bytes:
    """Two field elements [64 bytes], each less or more what two clients have in common."""
    seed = int.from_bytes(shares[: shamir.SIZE], "little") + sign * common[0]
    key = int.from_bytes(shares[shamir.SIZE :], "little") + sign * common[1]
    return shamir.to_bytes(seed % shamir.P) + shamir.to_bytes(key % shamir.P)
