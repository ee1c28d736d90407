"""What parties write to each other where rows are fixed: seeds, tagged rows, digests of seeds.

A client's row is X = E + A0 + A1: it draws a seed of A0 for the first server and one of A1 for the
second, tells both to the dealer, and sends E with a tag under a key that the second server gets
with its seed. So neither server can change a row, nor can it tell the dealer another seed: whose
digests do not fit what the dealer heard takes no part.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, ConfigError, KeepsSecrets, PartyId, PartyKeys
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.sealed_box import OVERHEAD
from privfl.hybrid.two_server.parameters import FIXED_HEAD, TwoServerParameters
from privfl.hybrid.two_server.sealing import SEED_SIZE

_TAG = 16
_DIGEST = 32


def row_tag(now: TwoServerParameters, key: bytes, position: int, packed: Buffer) -> bytes:
    """The tag [16 bytes] of a packed row E: AES-GCM of no text, bound to the row."""
    return now.library.seal(key, bytes(12), b"", _bound(now, position, packed))


def is_tagged(
    now: TwoServerParameters, key: bytes, position: int, tag: Buffer, packed: Buffer
) -> bool:
    """Whether the row is the one that the client tagged under this key."""
    found = now.library.unseal(key, bytes(12), bytes(tag), _bound(now, position, packed))
    return found is not None


def _bound(now: TwoServerParameters, position: int, packed: Buffer) -> bytes:
    return b"/".join((now.bound_to("row", str(position)), packed))


def parted(body: memoryview) -> tuple[bytes, memoryview, memoryview]:
    """Of a client's body for the first server: its seed, the tag, the packed row."""
    return bytes(body[:SEED_SIZE]), body[SEED_SIZE:FIXED_HEAD], body[FIXED_HEAD:]


@dataclass(repr=False)
class Laid(KeepsSecrets):
    """Tagged rows side by side as they go to the second server, each where its client's place in
    the cohort of ``n`` puts it. Of none that does not come there is memory.

    ``front`` and ``end`` are how long the letter is before and after its rows. ``seeds`` are those
    that came with rows, by place.
    """

    n: int
    front: int
    end: int
    seeds: dict[int, bytes] = field(default_factory=dict)
    whole: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))

    def lay(self, place: int, body: Buffer) -> None:
        """Copy a client's body for the first server to its place."""
        tagged = np.frombuffer(body, dtype=np.uint8)[SEED_SIZE:]
        if not len(self.whole):
            length = self.front + self.n * len(tagged) + self.end
            self.whole = np.empty(length, dtype=np.uint8)
        self._row(place, len(tagged))[:] = tagged
        self.seeds[place] = bytes(body[:SEED_SIZE])

    def letter(
        self, front: bytes, members: Sequence[int], end: bytes, each: int
    ) -> tuple[memoryview, dict[int, npt.NDArray[np.uint8]]]:
        """One letter of these clients' tagged rows [each bytes] between its front and its end, and
        each of them where it lies in the letter, by place. Nothing is laid after that.

        Raises:
            ConfigError: front or end are not as long as was said.
        """
        if (len(front), len(end)) != (self.front, self.end):
            raise ConfigError("a letter of rows has another front or end than it was laid out for.")
        rows: dict[int, npt.NDArray[np.uint8]] = {}
        for at, place in enumerate(members):  # in order, so what lies there is no member's
            rows[place] = self._row(at, each)
            if at != place:
                rows[place][:] = self._row(place, each)
        stop = len(front) + each * len(members)
        whole, self.whole = self.whole[: stop + len(end)], np.empty(0, dtype=np.uint8)
        whole[: len(front)] = np.frombuffer(front, dtype=np.uint8)
        whole[stop:] = np.frombuffer(end, dtype=np.uint8)
        whole.flags.writeable = False
        return whole.data, rows

    def _row(self, place: int, each: int) -> npt.NDArray[np.uint8]:
        start = self.front + each * place
        return self.whole[start : start + each]


def packed_row(row: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A tagged row without its tag."""
    return row[_TAG:]


def digest_of(now: TwoServerParameters, server: PartyId, position: int, seed: bytes) -> bytes:
    """What a server tells the dealer of a seed that a client gave it."""
    who = f"/{server}/{position}/".encode()
    return hashlib.sha256(b"privfl/1/two-server/seed" + now.tag + who + seed).digest()


def digests(now: TwoServerParameters, server: PartyId, seeds: Mapping[int, bytes]) -> bytes:
    """Those of all seeds, by place."""
    return b"".join(digest_of(now, server, i, seeds[i]) for i in sorted(seeds))


def fitting(
    now: TwoServerParameters,
    server: PartyId,
    members: Collection[int],
    said: bytes,
    seeds: Mapping[int, bytes],
) -> set[int]:
    """Who of these gave the server the seed that the dealer heard of."""
    told = [said[at : at + _DIGEST] for at in range(0, len(said), _DIGEST)]
    pairs = zip(sorted(members), told, strict=True)
    return {
        i
        for i, digest in pairs
        if i in seeds and hmac.compare_digest(digest, digest_of(now, server, i, seeds[i]))
    }


def read_named(
    now: TwoServerParameters, who: PartyId, content: memoryview, identity: PartyKeys
) -> tuple[frozenset[int], bytes, bytes]:
    """Of a server's letter to the dealer: whom it lists, its own seed, the digests.

    Raises:
        Malformed: it is no such letter.
    """
    members, sealed = fields.read_bit_set(content, now.plan.n)
    size = SEED_SIZE + _DIGEST * len(members)
    plain = open_one(sealed, size, identity, now.bound_to("deal", who))
    return members, plain[:SEED_SIZE], plain[SEED_SIZE:]


def read_rows(
    now: TwoServerParameters, identity: PartyKeys, keys: int, content: memoryview
) -> tuple[tuple[int, ...], bytes, bytes, Sequence[memoryview]]:
    """Of the first server's message to the second: whom it lists, the key that both seal with, its
    head in plain, and the tag and packed row of each client that it lists.

    Raises:
        Malformed: this party's key opens nothing of it, or it is of another length.
    """
    members, rest = fields.read_bit_set(content, now.plan.n)
    sealed, each = (SEED_SIZE + OVERHEAD) * keys, _TAG + now.packed
    key = open_one(rest[:sealed], SEED_SIZE, identity, now.bound_to("key"))
    end = sealed + each * len(members)
    rows = [rest[at : at + each] for at in range(sealed, end, each)]
    head = now.library.unseal(key, bytes(12), bytes(rest[end:]), now.bound_to("head"))
    if head is None:
        raise Malformed("its head is not what the server sealed")
    return tuple(sorted(members)), key, head, rows


def parted_row(row: memoryview) -> tuple[memoryview, memoryview]:
    """Tag and packed row."""
    return row[:_TAG], row[_TAG:]
