"""A library of lies in single frames of one server, whatever the rule: it adds to words, opens what
it likes after it has heard the other's share (rushing), or moves two words against each other, so
that whether the round goes on hangs on what is shared (selective failure).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from privfl.core import Coalition, Liars, Lie, PartyId, Power
from privfl.crypto.mpc.operations import Multiply, Open, OpenBits, OpenToFirst, ToNumbers
from privfl.crypto.mpc.words import U64, pack, unpack
from privfl.hybrid.two_server.forged import Forge
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.rushing import forges

FrameLieKind = Literal["adds", "rushes", "selects"]
KINDS: tuple[FrameLieKind, ...] = ("adds", "rushes", "selects")
POWERS_OF_TWO = (0, 20, 39, 63)
Frames = Sequence[tuple[Step, int]]
"""The frames that a server sends in an honest round: each one's step, and its bytes."""


@dataclass(frozen=True, slots=True)
class FrameLie:
    """What a server does to its frame of this number.

    ``adds`` an ``amount`` to one word (exclusive or, where the frame is bits); ``rushes``: every
    word is made to open as the amount; ``selects``: one word more by the amount, the next one less.
    ``at`` says which word, as a fraction of all; where it is ``believed``, the liar goes on as if
    the other's frame had been changed in the same way.
    """

    number: int
    kind: FrameLieKind
    amount: int = 1
    at: float = 0.0
    believed: bool = False

    def forge(self) -> Forge:
        """The lie, told once."""
        count = itertools.count()

        def forge(
            step: Step, machine: Machine, mine: bytes, theirs: bytes | None
        ) -> tuple[bytes, bytes | None]:
            if next(count) != self.number:
                return mine, theirs
            ring = machine.now.ring
            if self.kind != "rushes":
                both = self.believed and theirs is not None
                said = self._changed(step, mine, ring)
                return said, self._changed(step, theirs, ring) if both and theirs else theirs
            if theirs is None or len(theirs) != len(mine):
                return mine, theirs
            return self._against(step, theirs, ring), self._against(step, mine, ring)

        return forge

    def _changed(self, step: Step, body: bytes, ring: int) -> bytes:
        """The own frame, with one word or two changed."""
        if not body:
            return (self.amount % (1 << 64)).to_bytes(8, "little")
        words, rest = _words(step, body, ring)
        place = int(self.at * len(words))
        amount = np.uint64(self.amount % (1 << 64))
        if _of_bits(step):
            words[place] ^= np.uint64(self.amount % 255 + 1)
            return words.astype(np.uint8).tobytes()
        words[place : place + 1] += amount
        if self.kind == "selects":
            after = (place + 1) % len(words)
            words[after : after + 1] -= amount
        return _packed(step, words, ring) + rest

    def _against(self, step: Step, other: bytes, ring: int) -> bytes:
        """What makes the other's words open as the amount."""
        if not other:
            return other
        words, rest = _words(step, other, ring)
        if _of_bits(step):
            return (words ^ np.uint64(self.amount % 256)).astype(np.uint8).tobytes()
        return _packed(step, np.uint64(self.amount % (1 << 64)) - words, ring) + rest


def _of_bits(step: Step) -> bool:
    return isinstance(step, OpenBits | ToNumbers)


def _ring(step: Step, ring: int) -> int:
    """What a frame's words are modulo, as a power of two: of most steps 64."""
    if isinstance(step, Open | OpenToFirst) or (isinstance(step, Multiply) and not step.whole):
        return ring
    return 64


def _words(step: Step, body: bytes, ring: int) -> tuple[U64, bytes]:
    """A frame's words, and the bytes after the last whole one."""
    if _of_bits(step):
        return np.frombuffer(body, dtype=np.uint8).astype(np.uint64), b""
    size = len(body) // (_ring(step, ring) // 8)
    cut = size * (_ring(step, ring) // 8)
    if not size:
        return np.frombuffer(body.ljust(8, b"\0"), dtype="<u8").astype(np.uint64), b""
    return unpack(body[:cut], _ring(step, ring), size), body[cut:]


def _packed(step: Step, words: U64, ring: int) -> bytes:
    return pack(words, _ring(step, ring))


def notes(seen: list[tuple[Step, int]]) -> Forge:
    """A server that follows the protocol, whose frames are noted."""

    def note(
        step: Step, machine: Machine, mine: bytes, theirs: bytes | None
    ) -> tuple[bytes, bytes | None]:
        seen.append((step, len(mine)))
        return mine, theirs

    return note


def library(
    who: PartyId, can: Power, frames: Frames, most: int
) -> Iterator[tuple[Lie[Liars], FrameLieKind]]:
    """Up to ``most`` lies of one server, spread over its frames and the kinds: ``can`` is the most
    that any of them may do.
    """
    places = [(number, kind) for number in range(len(frames)) for kind in KINDS]
    step = max(1.0, len(places) / most)
    for at in range(min(most, len(places))):
        number, kind = places[int(at * step)]
        amount = 1 if kind == "selects" else 1 << POWERS_OF_TWO[at % len(POWERS_OF_TWO)]
        does = f"{_SAID[kind].format(amount=_power(amount))}, frame {number + 1} of {len(frames)}"
        lie = FrameLie(number, kind, amount, at=at / most)
        said = f"{does} ({type(frames[number][0]).__name__})"
        yield Lie(Coalition.of(who), can, said, partial(_told, lie)), kind


def _told(lie: FrameLie) -> Liars:
    return forges(lie.forge())


_SAID = {
    "adds": "adds {amount} to a word that it sends",
    "rushes": "hears the other's share first, and opens {amount} in its place",
    "selects": "adds {amount} to one word that it sends, and takes it from the next",
}


def _power(amount: int) -> str:
    return "1" if amount == 1 else f"2^{amount.bit_length() - 1}"
