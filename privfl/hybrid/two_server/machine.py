"""Two servers computing on shares, step by step: each step is local, or one exchange of words, or
the seven of a comparison.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from privfl.core import Buffer, KeepsSecrets, PartyId
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing import DaBits, SignBits, Triple
from privfl.hybrid.two_server.bits import BitRows, Bits, BitSeeds, Flips
from privfl.hybrid.two_server.preprocessing import ONE, Preprocessing, blinds, tag_key
from privfl.hybrid.two_server.ring_codec import U64, pack, ring_mask, signed, unpack
from privfl.hybrid.two_server.rounds import Direction, TwoServerParameters
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows, Veil

_FRAME = struct.Struct("<II")
_PENDING = 64
"""Frames of the other server that may wait: a server is never more than two steps ahead."""


@runtime_checkable
class Local(Protocol):
    """A step that each server does on its own."""

    def act(self, machine: Machine) -> None:
        """Compute on the registers.

        Raises:
            StageAbort: what was opened does not allow to go on.
        """
        ...


@runtime_checkable
class Exchange(Protocol):
    """A step in which both servers send one message to each other, or several."""

    def say(self, machine: Machine) -> bytes:
        """The own message."""
        ...

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Take the other's message; whether the step is done.

        Raises:
            Malformed: it is no message of this step.
        """
        ...


Step = Local | Exchange


@dataclass(repr=False)
class Machine(KeepsSecrets):
    """One of the two servers: its rows, its shares by name, what both know, and where it is in the
    program.

    ``public`` holds arrays that both servers know, ``disclosed`` what the report must name,
    ``valid`` the rows that passed the checks, by place among those that came. The sum opens to
    ``count`` rows of ``weight`` together, in steps of ``unit``. ``bits`` are rows of signs, where
    there are any, ``flips`` the dealt bits that hide them. ``seed`` is the server's own; ``tags``
    are what the first server has from the dealer to know the second's share of the sum by,
    ``memory`` what its member keeps of the direction's doing.
    """

    now: TwoServerParameters
    first: bool
    positions: tuple[int, ...]
    program: Sequence[Step]
    rows: MaskedRows | SeedRows
    preprocessing: Preprocessing
    shares: dict[str, U64] = field(default_factory=dict)
    veil: Veil | None = None
    key: bytes = b""
    opened: bytes = b""
    direction: Direction | None = None
    public: dict[str, U64] = field(default_factory=dict)
    disclosed: dict[str, Tensor] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    valid: tuple[int, ...] = ()
    unit: float = 0.0
    weight: float = 0.0
    count: int = 0
    trust_unit: float = 0.0
    at: int = 0
    frame: int = 0
    mine: bytes | None = None
    inbox: dict[int, bytes] = field(default_factory=dict)
    comparing: SignBits | None = None
    dabits: DaBits | None = None
    triple: Triple | None = None
    masked: tuple[U64, U64] | None = None
    seed: bytes = b""
    tags: U64 | None = None
    memory: dict[str, U64] = field(default_factory=dict)
    bits: BitRows | BitSeeds | None = None
    flips: Flips | None = None
    flipped: Bits | None = None

    def surveyed(self, shares: dict[str, U64]) -> None:
        """Begin with the own half of the survey, and the dealer's share of the inner products."""
        self.shares = {
            **shares,
            "inner": shares["inner"] + self.preprocessing.inner.reshape(shares["inner"].shape),
        }
        if not shares["dots"].size:
            self.shares["dots"] = np.zeros(self.n, dtype=np.uint64)

    @property
    def n(self) -> int:
        """How many rows reached both servers."""
        return len(self.positions)

    @property
    def other(self) -> PartyId:
        """The other server."""
        return "server/1" if self.first else "server"

    @property
    def done(self) -> bool:
        """Whether the program is over."""
        return self.at == len(self.program)

    def constant(self, value: int) -> np.uint64:
        """The own share of a public number: all of it at the first server."""
        return np.uint64(value % (1 << 64) if self.first else 0)

    def advance(self, mail: Buffer | None = None) -> list[Buffer]:
        """Go as far as the other's messages reach; what is to be sent.

        Raises:
            StageAbort: the other's message is none, or what was opened does not allow to go on.
        """
        out: list[Buffer] = []
        try:
            self._receive(mail)
            while not self.done:
                step = self.program[self.at]
                if isinstance(step, Local):
                    try:
                        step.act(self)
                    except StageAbort:
                        if (
                            out and not self.first
                        ):  # the first server must come to know by itself why the round ends
                            break
                        raise
                    self.at += 1
                    continue
                if self.mine is None:
                    self.mine = step.say(self)
                    out += [_FRAME.pack(self.frame, len(self.mine)), self.mine]
                theirs = self.inbox.pop(self.frame, None)
                if theirs is None:
                    break
                done = step.hear(self, memoryview(theirs))
                self.mine = None
                self.frame += 1
                self.at += done
        except Malformed as malformed:
            raise StageAbort(
                "compute", f"the message of {self.other} cannot be used: {malformed}", self.other
            ) from None
        return out

    def _receive(self, mail: Buffer | None) -> None:
        view = memoryview(b"" if mail is None else mail)
        while view:
            if len(view) < _FRAME.size:
                raise Malformed("a step is cut off")
            frame, size = _FRAME.unpack_from(view)
            body, view = view[_FRAME.size : _FRAME.size + size], view[_FRAME.size + size :]
            if len(body) != size:
                raise Malformed("a step is cut off")
            if self.frame <= frame < self.frame + _PENDING:  # an earlier one is a duplicate
                self.inbox.setdefault(frame, bytes(body))


@dataclass(frozen=True, slots=True)
class Open:
    """Both servers learn a shared register."""

    what: str

    def say(self, machine: Machine) -> bytes:
        """The own share, reduced to the ring: bits above it would tell more than the value."""
        return pack(machine.shares[self.what].reshape(-1), machine.now.ring)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Add the other's."""
        mine = machine.shares[self.what]
        other = unpack(theirs, machine.now.ring, mine.size).reshape(mine.shape)
        machine.public[self.what] = (mine + other) & ring_mask(machine.now.ring)
        return True


@dataclass(frozen=True, slots=True)
class OpenToFirst:
    """The first server alone learns a shared register."""

    what: str

    def say(self, machine: Machine) -> bytes:
        """The second server's share, or nothing."""
        return (
            b"" if machine.first else pack(machine.shares[self.what].reshape(-1), machine.now.ring)
        )

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Add it."""
        if machine.first:
            Open(self.what).hear(machine, theirs)
        elif theirs:
            raise Malformed("a share where none was asked for")
        return True


@dataclass(frozen=True, slots=True)
class OpenTagged:
    """The first server learns the sum under public weights, and what its share of the sum must be
    tagged with.

    The share sum w_i A_i travels modulo 2^64. The dealer gave the first server T_i = <key, A_i> +
    b_i for a key that the second does not know, and the second knows b_i: it sends sum w_i b_i
    along. A share that is off by e passes with the chance of <key, e> being what it guesses: 2^-(64
    - v), where 2^v divides e; v is small, because sums far out of their range are refused as well.
    """

    def say(self, machine: Machine) -> bytes:
        """The second server's share and its blinds, or nothing."""
        if machine.first:
            return b""
        total, weights = machine.shares["sum"], machine.public["weights"]
        blind = (weights * blinds(machine.seed, machine.n, machine.now.library)).sum(
            keepdims=True, dtype=np.uint64
        )
        return pack(np.concatenate([total, blind]), 64)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Add the share; it is checked once the tags are there."""
        if not machine.first:
            if theirs:
                raise Malformed("a share where none was asked for")
            return True
        words = unpack(theirs, 64, machine.now.length + 1)
        machine.shares["claimed"] = words
        machine.public["sum"] = machine.shares["sum"] + words[:-1]
        return True


def check_tags(machine: Machine) -> None:
    """Refuse a sum whose second share is not what the masks make it.

    Raises:
        StageAbort: it is not, or the sum is out of its range.
    """
    now, claimed, weights = machine.now, machine.shares["claimed"], machine.public["weights"]
    tags = np.zeros(0, dtype=np.uint64) if machine.tags is None else machine.tags
    key = tag_key(machine.seed, now.length, now.library)
    off = (
        (key * claimed[:-1]).sum(keepdims=True, dtype=np.uint64)
        + claimed[-1:]
        - (weights * tags).sum(keepdims=True, dtype=np.uint64)
    )
    most = now.longest * min(int(weights.sum(dtype=np.uint64)), machine.n * (now.fine + 1))
    if off.any() or int(np.abs(signed(machine.public["sum"], now.ring)).max()) > most:
        raise StageAbort(
            "sum", "its share of the sum is not the sum of the clients' masks", "server/1"
        )


@dataclass(frozen=True, slots=True)
class OpenBits:
    """Both servers learn bits [n] that are shared by exclusive or."""

    what: str

    def say(self, machine: Machine) -> bytes:
        """The own share, a bit a value."""
        return np.packbits(machine.shares[self.what].astype(np.uint8), bitorder="little").tobytes()

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Combine it with the other's."""
        mine = machine.shares[self.what]
        if len(theirs) != -(-mine.size // 8):
            raise Malformed("a wrong number of bits")
        other = np.unpackbits(
            np.frombuffer(theirs, dtype=np.uint8), bitorder="little", count=mine.size
        )
        machine.public[self.what] = mine ^ other.astype(np.uint64)
        return True


@dataclass(frozen=True, slots=True)
class Negative:
    """Bits, shared by exclusive or, that tell which entries of a shared register [n] are below
    zero.
    """

    of: str
    into: str

    def say(self, machine: Machine) -> bytes:
        """The own message of the comparison's next round."""
        if machine.comparing is None:
            share = machine.shares[self.of].reshape(-1) << np.uint64(64 - machine.now.ring)
            machine.comparing = SignBits(
                share, machine.preprocessing.comparison(len(share)), machine.first
            )
        return machine.comparing.send()

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """One round further."""
        comparison = machine.comparing
        if comparison is None:
            raise Malformed("it is out of order")
        try:
            comparison.take(theirs)
        except ValueError as wrong:
            raise Malformed(str(wrong)) from None
        if comparison.bits is None:
            return False
        machine.shares[self.into], machine.comparing = comparison.bits, None
        return True


@dataclass(frozen=True, slots=True)
class ToNumbers:
    """Bits shared by exclusive or become numbers 0 and 1 shared by addition."""

    of: str
    into: str

    def say(self, machine: Machine) -> bytes:
        """The own share of the masked bits."""
        bits = machine.shares[self.of]
        machine.dabits = machine.preprocessing.dabits(len(bits))
        return np.packbits(machine.dabits.mask(bits).astype(np.uint8), bitorder="little").tobytes()

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Take the masks off."""
        bits, dabits = machine.shares[self.of], machine.dabits
        if dabits is None or len(theirs) != -(-len(bits) // 8):
            raise Malformed("a wrong number of bits")
        other = np.unpackbits(
            np.frombuffer(theirs, dtype=np.uint8), bitorder="little", count=len(bits)
        ).astype(np.uint64)
        machine.shares[self.into] = dabits.to_arithmetic(
            bits ^ (dabits.bits & ONE) ^ other, machine.first
        )
        machine.dabits = None
        return True


@dataclass(frozen=True, slots=True)
class Multiply:
    """Entrywise products of two shared registers [n]."""

    left: str
    right: str
    into: str

    def say(self, machine: Machine) -> bytes:
        """The own shares of the masked factors."""
        left, right = machine.shares[self.left].reshape(-1), machine.shares[self.right].reshape(-1)
        machine.triple = machine.preprocessing.triple(len(left))
        machine.masked = machine.triple.mask(left, right)
        return pack(np.concatenate(machine.masked), machine.now.ring)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Open them and multiply."""
        if machine.triple is None or machine.masked is None:
            raise Malformed("it is out of order")
        left, right = machine.masked
        other = unpack(theirs, machine.now.ring, 2 * len(left))
        product = machine.triple.product(
            left + other[: len(left)], right + other[len(left) :], machine.first
        )
        machine.shares[self.into] = product
        machine.triple = machine.masked = None
        return True
