"""What a client has in common with each other client of a round: sealed shares, mask seeds, and
against an active server words that nobody else can say.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

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
        shared = self._shared(self.keys.c, others, _BOXES)
        for other in others:
            root = next(iter(self._secrets(other, shared)), None)
            if root is not None:
                self.roots[other] = root
        return [other for other in others if other in self.roots]

    def common(self, other: int) -> tuple[int, int]:
        """What this client and one that it reached have in common for its two secrets."""
        return keys.agreed_shares(self.roots[other], self.position, other)

    def seal(self, dealing: Mapping[int, bytes], agreed: Collection[int] = ()) -> dict[int, Buffer]:
        """A box for each of these others; in an active round, where they have been reached, the
        shares of those ``agreed`` are what they have in common with this client, and do not travel.
        """
        if self.now.active:
            return {
                other: self._dealt(self.position, other, plain)
                + (b"" if other in agreed else _moved(plain, self.common(other), -1))
                for other, plain in dealing.items()
            }
        shared, out = self._shared(self.keys.c, dealing, _BOXES), dict[int, Buffer]()
        for other, plain in dealing.items():
            key = keys.share_key(shared[other], self.now.tag, self.position, other)
            bound = keys.bound_to(self.now.tag, self.position, other)
            dealt = self._dealt(self.position, other, plain)
            # other shares have other commitments: no key seals two boxes under one nonce
            out[other] = dealt + self._library.seal(key, dealt[:12], plain, bound)
        return out

    def open(self, boxes: Mapping[int, Buffer]) -> dict[int, bytes]:
        """What these others dealt to this client; what does not open is left out."""
        shared, out = self._shared(self.keys.c, boxes, _BOXES), dict[int, bytes]()
        for other, box in boxes.items():
            dealt, sealed = bytes(box[: keys.AGREED]), bytes(box[keys.AGREED :])
            for secret in self._secrets(other, shared):
                plain = self._plain(secret, other, dealt, sealed)
                if plain is not None and self._dealt(other, self.position, plain) == dealt:
                    out[other] = plain
                    if self.now.active:
                        self.roots[other] = secret
                    break
        return out

    def _plain(self, secret: bytes, owner: int, dealt: bytes, sealed: bytes) -> bytes | None:
        if self.now.active:
            common = keys.agreed_shares(secret, owner, self.position)
            if not sealed:
                return shamir.to_bytes(common[0]) + shamir.to_bytes(common[1])
            return _moved(sealed, common, 1)
        key = keys.share_key(secret, self.now.tag, owner, self.position)
        bound = keys.bound_to(self.now.tag, owner, self.position)
        return self._library.unseal(key, dealt[:12], sealed, bound)

    def _dealt(self, owner: int, holder: int, plain: bytes) -> bytes:
        seed, key = plain[: shamir.SIZE], plain[shamir.SIZE :]
        tag = self.now.tag
        return keys.dealt(tag, owner, holder, "seed", seed) + keys.dealt(
            tag, owner, holder, "key", key
        )

    def mask_seeds(self, others: Collection[int]) -> dict[int, bytes]:
        """The seeds of the masks that this client shares with these others."""
        shared, now = self._shared(self.keys.s, others, _MASKS), self.now
        return {
            other: keys.pair_seed(shared[other], now.tag, self.position, other) for other in others
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

    def _secrets(self, other: int, shared: Mapping[int, bytes]) -> Iterable[bytes]:
        """What boxes between the two may be under, the newest of the other's keys first."""
        if not self.now.active:
            yield shared[other]
            return
        if other in self.roots:
            yield self.roots[other]
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
        agree = self._library.agreement(secret)
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
    raw = shares[: shamir.SIZE], shares[shamir.SIZE :]
    return b"".join(
        shamir.to_bytes((int.from_bytes(share, "little") + sign * agreed) % shamir.P)
        for share, agreed in zip(raw, common, strict=True)
    )
