"""Two servers computing on shares, step by step: each step is local, or one exchange of words, or
the seven of a comparison.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from privfl.core import Buffer, KeepsSecrets, PartyId
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing import DaBits, SignBits, Triple
from privfl.hybrid.two_server.bits import BitRows, Bits, BitSeeds, Flips
from privfl.hybrid.two_server.parameters import Direction, TwoServerParameters
from privfl.hybrid.two_server.preprocessing import Preprocessing
from privfl.hybrid.two_server.ring_codec import U64
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
    ``memory`` what its member keeps of the direction's doing. ``sealed`` holds commitments and what
    they open to.
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
    folding: U64 | None = None
    sealed: dict[str, bytes] = field(default_factory=dict)
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
                    out.append(frame_of(self.frame, self.mine))
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
        for frame, body in frames_in(b"" if mail is None else mail):
            if self.frame <= frame < self.frame + _PENDING:  # an earlier one is a duplicate
                self.inbox.setdefault(frame, bytes(body))


def frame_of(number: int, body: bytes) -> bytes:
    """One step's message as it travels."""
    return _FRAME.pack(number, len(body)) + body


def frames_in(mail: Buffer) -> Iterator[tuple[int, memoryview]]:
    """The steps' messages of one letter, with their numbers.

    Raises:
        Malformed: one is cut off.
    """
    view = memoryview(mail)
    while view:
        if len(view) < _FRAME.size:
            raise Malformed("a step is cut off")
        number, size = _FRAME.unpack_from(view)
        body, view = view[_FRAME.size : _FRAME.size + size], view[_FRAME.size + size :]
        if len(body) != size:
            raise Malformed("a step is cut off")
        yield number, body
