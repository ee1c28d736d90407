"""The first server in a round whose dealer dealt ahead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from privfl.core import Buffer, Mail
from privfl.crypto.mpc import Preprocessing
from privfl.crypto.mpc.words import U64, pack, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.ahead.dealing import Part, Reached
from privfl.hybrid.two_server.ahead.letters import read_differences, write_claim, write_other
from privfl.hybrid.two_server.between_servers import unusable
from privfl.hybrid.two_server.parameters import DIFFERENCES, HELD
from privfl.hybrid.two_server.rows import Covers, VeilOfSlots
from privfl.hybrid.two_server.server import FirstServer


@dataclass(repr=False)
class AheadFirstServer(FirstServer):
    """The server that learns the result. ``seed`` is that of its ``part`` of the dealing; where the
    other took another one, it says so and sends nothing else, and ``reached`` knows where to go on.
    """

    part: Part = field(kw_only=True)
    reached: Reached = field(default_factory=Reached, kw_only=True)
    left: tuple[int, ...] = field(default=(), kw_only=True)
    theirs: bytes = field(default=b"", kw_only=True)
    parted: bool = field(default=False, kw_only=True)

    def anew(self) -> Self:
        """As `FirstServer.anew`."""
        return replace(super().anew(), left=(), theirs=b"", parted=False, reached=Reached())

    def _from_second(self, body: Buffer) -> Mail:
        waiting = self.machine is None and not self.left
        if self.parted or (not waiting and self.now.repeats(body, HELD)):
            return {}
        if self.machine is not None and self.now.repeats(body, DIFFERENCES):
            return {}
        return super()._from_second(body)

    def _ask(self, body: Buffer) -> Mail:
        return self._correct(body) if self.left else self._claim(body)

    def _claim(self, body: Buffer) -> Mail:
        left, self.theirs = self._agreed(body)
        number, _ = self.now.read(body, HELD)
        if number != self.part.taken.number:
            self.reached.pass_by(number)
            self.parted, self.bodies = True, {}
            return {"server/1": write_other(self.part)}
        self.left = tuple(left)
        return {"server/1": write_claim(self.part, self.left, self.key, self.second)}

    def _correct(self, body: Buffer) -> Mail:
        """Take the masks that clients drew for the dealt ones, and begin to compute."""
        now = self.now
        try:
            for place, difference in read_differences(self.part, body, self.left, self.key):
                row = difference + unpack(self.bodies[place].data, now.ring, now.words)
                self.bodies[place] = np.frombuffer(pack(row, now.ring), dtype=np.uint8)
        except Malformed as malformed:
            raise unusable("agree", "server/1", malformed) from None
        return {"server/1": self._begin(list(self.left), self.theirs)}

    def _prepared(self, left: list[int]) -> tuple[Preprocessing, Covers, U64 | None]:
        shares, tags = self.part.first(left)
        return shares, VeilOfSlots(self.part.rows(left)), tags
