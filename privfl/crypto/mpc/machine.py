"""Two parties computing on shares, step by step: each step is local, or one exchange of words, or
the several of one operation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from privfl.core import Buffer, KeepsSecrets, PartyId
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.beaver import Triple
from privfl.crypto.mpc.comparison import DaBits, SignBits
from privfl.crypto.mpc.preprocessing import Preprocessing
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives.fields import Malformed

_FRAME = struct.Struct("<II")
_PENDING = 64
"""Frames of the other party that may wait: a party is never more than two steps ahead."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A register of words that the two parties share by addition modulo 2^64."""

    name: str


@dataclass(frozen=True, slots=True)
class SharedBits:
    """A register of bits that the two parties share by exclusive or, a bit a word."""

    name: str


@dataclass(frozen=True, slots=True)
class Known:
    """A register that both parties know, and that never was shared."""

    name: str


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A register of words shared by addition, each with its products with keys that nobody knows:
    shares [n, 1 + keys] (`authentication`).
    """

    name: str


@dataclass(frozen=True, slots=True)
class Wide:
    """A register of authenticated words of which 64 bits count: shares [n, 2, 2] of each and of its
    product with a key that nobody knows, in halves (`wide`).
    """

    name: str


Register = Shared | SharedBits | Known | Authenticated | Wide

M = TypeVar("M", bound="TwoPartyMachine")
M_contra = TypeVar("M_contra", bound="TwoPartyMachine", contravariant=True)


@runtime_checkable
class Local(Protocol[M_contra]):
    """A step that each party does on its own."""

    def act(self, machine: M_contra) -> None:
        """Compute on the registers.

        Raises:
            StageAbort: what was opened does not allow to go on.
        """
        ...


@runtime_checkable
class Exchange(Protocol[M_contra]):
    """A step in which both parties send one message to each other, or several."""

    def say(self, machine: M_contra) -> bytes:
        """The own message."""
        ...

    def hear(self, machine: M_contra, theirs: memoryview) -> bool:
        """Take the other's message; whether the step is done.

        Raises:
            Malformed: it is no message of this step.
        """
        ...


Step = Local[M] | Exchange[M]


@dataclass(repr=False, kw_only=True)
class TwoPartyMachine(KeepsSecrets):
    """One of the two parties: its shares, what both know, and where it is in the program.

    ``shares`` are the own ones, ``public`` what both know: a shared register's name there is what
    it opened to. ``ring``: values count modulo 2^ring. ``tag`` is what commitments are bound to,
    ``names`` are the parties, the first of them first; ``sealed`` holds commitments and what they
    open to; ``inbox`` the other's letters, and from where to where in each a frame lies that waits.
    ``keys`` are shares of what authenticates words, ``wide_key`` of what authenticates
    wide ones; ``unchecked`` is what was opened and is not proved yet, with what its proof is made
    of.
    """

    first: bool
    names: tuple[PartyId, PartyId]
    ring: int
    tag: bytes
    preprocessing: Preprocessing
    shares: dict[Shared | SharedBits | Authenticated | Wide, U64] = field(default_factory=dict)
    public: dict[Register, U64] = field(default_factory=dict)
    at: int = 0
    frame: int = 0
    mine: bytes | None = None
    inbox: dict[int, tuple[bytes, int, int]] = field(default_factory=dict)
    comparing: SignBits | None = None
    dabits: DaBits | None = None
    triple: Triple | None = None
    masked: tuple[U64, U64] | None = None
    folding: U64 | None = None
    sealed: dict[str, bytes] = field(default_factory=dict)
    keys: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    wide_key: int = 0
    unchecked: tuple[U64, U64] | None = None

    @property
    def other(self) -> PartyId:
        """The other party."""
        return self.names[self.first]

    def constant(self, value: int) -> np.uint64:
        """The own share of a public number: all of it at the first party."""
        return np.uint64(value % (1 << 64) if self.first else 0)


def advance(machine: M, program: Sequence[Step[M]], mail: Buffer | None) -> list[Buffer]:
    """Go as far as the other's messages reach; what is to be sent.

    Raises:
        StageAbort: the other's message is none, or what was opened does not allow to go on.
    """
    out: list[Buffer] = []
    try:
        _receive(machine, mail)
        while machine.at < len(program):
            step = program[machine.at]
            if isinstance(step, Local):
                try:
                    step.act(machine)
                except StageAbort:
                    if (
                        out and not machine.first
                    ):  # the first party must come to know by itself why the round ends
                        break
                    raise
                machine.at += 1
                continue
            if machine.mine is None:
                machine.mine = step.say(machine)
                out += frame_of(machine.frame, machine.mine)
            theirs = machine.inbox.pop(machine.frame, None)
            if theirs is None:
                break
            letter, start, stop = theirs
            done = step.hear(machine, memoryview(letter)[start:stop])
            machine.mine = None
            machine.frame += 1
            machine.at += done
    except Malformed as malformed:
        why = f"a letter in the name of {machine.other} cannot be used: {malformed}"
        raise StageAbort("compute", why, letter_of=machine.other) from None
    return out


def _receive(machine: TwoPartyMachine, mail: Buffer | None) -> None:
    letter, stop = b"" if mail is None else bytes(mail), 0
    for frame, body in frames_in(letter):
        start = stop + _FRAME.size
        stop = start + len(body)
        if machine.frame <= frame < machine.frame + _PENDING:  # an earlier one is a duplicate
            machine.inbox.setdefault(frame, (letter, start, stop))


def frame_of(number: int, body: bytes) -> tuple[bytes, bytes]:
    """One step's message as it travels, in two pieces."""
    return _FRAME.pack(number, len(body)), body


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
