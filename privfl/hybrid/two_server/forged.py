"""A server that lies in the frames of the computation: it hears the other's frame before it sends
its own, changes what it sends, and believes what it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from privfl.core import Buffer, KeepsSecrets, Mail, PartyId
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.machine import Exchange, frame_of, frames_in
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import STEPS
from privfl.hybrid.two_server.sealing import open_steps, seal_steps
from privfl.hybrid.two_server.tampering import First, Server, tampered

Forge = Callable[[Step, Machine, bytes, bytes | None], tuple[bytes, bytes | None]]
"""What a liar makes of one frame, from its step, the own machine, the own honest body and the other
server's (None: it has not come, so this frame cannot rush): what is sent, and what the own machine
is told that the other sent.
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """An exchange of the honest program, which notes the frames that belong to it."""

    step: Exchange[Machine]
    log: dict[int, Exchange[Machine]]

    def say(self, machine: Machine) -> bytes:
        """As the honest step."""
        self.log[machine.frame] = self.step
        return self.step.say(machine)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """As the honest step."""
        return self.step.hear(machine, theirs)


@dataclass(repr=False)
class ForgesFrames(KeepsSecrets):
    """One of the two servers, whose frames a lie changes on their way.

    Every frame waits for the other server's, but for the very first of the second server, which the
    first waits for unless clients fix their rows.
    """

    honest: Server
    forge: Forge
    log: dict[int, Exchange[Machine]] = field(default_factory=dict)
    mine: dict[int, bytes] = field(default_factory=dict)
    theirs: dict[int, bytes] = field(default_factory=dict)
    sent: int = 0
    told: int = 0
    done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.honest.recipe = tampered(
            self.honest.recipe,
            lambda steps: [
                Watched(step, self.log) if isinstance(step, Exchange) else step for step in steps
            ],
        )

    @property
    def first(self) -> bool:
        """Whether the liar is the first server."""
        return isinstance(self.honest, First)

    @property
    def other(self) -> PartyId:
        """The server that is lied to."""
        return "server/1" if self.first else "server"

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, its frames forged."""
        rest = {who: body for who, body in mail.items() if who != self.other}
        frames: list[bytes] = []
        if self.other in mail and self._read(mail[self.other]):
            rest[self.other] = mail[self.other]
        out = self._heard(rest, frames)
        if self.theirs and not self.log:  # the first server speaks only when it is spoken to
            out |= self._heard({self.other: self._sealed(None, b"")}, frames)
        while (number := self._next()) is not None:
            body = self.theirs.pop(number)
            mine = self.mine.pop(number)
            if number in self.done:
                believed: bytes | None = body
            else:
                said, believed = self._forged(number, mine, body)
                frames += frame_of(number, said)
            if believed is not None:
                out |= self._heard({self.other: self._sealed(number, believed)}, frames)
        if frames:
            self.sent += 1
            out[self.other] = seal_steps(
                self.honest.now, self.honest.key, self._label(True), self.sent, [*frames]
            )
        return out

    def _next(self) -> int | None:
        ready = self.theirs.keys() & self.mine.keys()
        return min(ready, default=None)

    def _forged(self, number: int, mine: bytes, theirs: bytes | None) -> tuple[bytes, bytes | None]:
        machine = self.honest.machine
        if machine is None:
            raise Malformed("a frame before the computation began")
        return self.forge(self.log[number], machine, mine, theirs)

    def _read(self, body: Buffer) -> bool:
        """Take the other's frames; whether the message is none of frames."""
        now = self.honest.now
        try:
            content = open_steps(now, self.honest.key, self._label(False), body)
        except Malformed:
            return True
        self.theirs |= {number: bytes(part) for number, part in frames_in(content)}
        return False

    def _heard(self, mail: Mail, frames: list[bytes]) -> dict[PartyId, Buffer]:
        """What the honest server makes of some mail, its frames kept back."""
        try:
            out = dict(self.honest.step(mail))
        except StageAbort:  # a liar sends on what it has forged
            return {}
        body = out.get(self.other)
        if body is None or body[4] != STEPS:
            return out
        del out[self.other]
        content = open_steps(self.honest.now, self.honest.key, self._label(True), body)
        for number, part in frames_in(content):
            self.mine[number] = bytes(part)
            waits = number == 0 and not self.honest.now.malicious
            if waits and not self.first:  # the first server waits for it
                said, _ = self._forged(number, bytes(part), None)
                frames += frame_of(number, said)
                self.done.add(number)
        return out

    def _sealed(self, number: int | None, body: bytes) -> Buffer:
        self.told += 1
        return seal_steps(
            self.honest.now,
            self.honest.key,
            self._label(False),
            (1 << 20) + self.told,
            [] if number is None else [*frame_of(number, body)],
        )

    def _label(self, own: bool) -> bytes:
        return b"1" if self.first == own else b"2"
