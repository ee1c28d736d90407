"""The first server in a round whose dealer dealt ahead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from privfl.core import Buffer, Mail
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Preprocessing
from privfl.crypto.mpc.words import U64, pack, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.ahead.dealing import Part
from privfl.hybrid.two_server.ahead.files import FirstPart
from privfl.hybrid.two_server.ahead.letters import read_differences, write_claim, write_other
from privfl.hybrid.two_server.between_servers import unusable
from privfl.hybrid.two_server.parameters import DIFFERENCES, HELD
from privfl.hybrid.two_server.rows import Covers, VeilOfSlots
from privfl.hybrid.two_server.server import FirstServer


@dataclass(repr=False)
class AheadFirstServer(FirstServer):
    """The server that learns the result. It takes its part of the dealing that the second server
    took, which is gone from its disk before it answers: that is all that it does outside of itself.
    Where it took that one before, it says which it took now, and sends nothing else.
    """

    file: FirstPart = field(kw_only=True)
    left: tuple[int, ...] = field(default=(), kw_only=True)
    theirs: bytes = field(default=b"", kw_only=True)
    parted: bool = field(default=False, kw_only=True)

    def anew(self) -> Self:
        """As `FirstServer.anew`; with the same part of the dealing."""
        return replace(super().anew(), left=(), theirs=b"", parted=False)

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
        part = self.file.after(number)
        if part.taken.number != number:
            self.parted, self.bodies = True, {}
            return {"server/1": write_other(part)}
        self.left, self.seed = tuple(left), part.seed
        return {"server/1": write_claim(part, self.left, self.key, self.second)}

    @property
    def _part(self) -> Part:
        if self.file.part is None:
            raise StageAbort("agree", "the second server's letters are out of order")
        return self.file.part

    def _correct(self, body: Buffer) -> Mail:
        """Take the masks that clients drew for the dealt ones, and begin to compute."""
        now = self.now
        try:
            for place, difference in read_differences(self._part, body, self.left, self.key):
                row = difference + unpack(self.bodies[place].data, now.ring, now.words)
                self.bodies[place] = np.frombuffer(pack(row, now.ring), dtype=np.uint8)
        except Malformed as malformed:
            raise unusable("agree", "server/1", malformed) from None
        return {"server/1": self._begin(list(self.left), self.theirs)}

    def _prepared(self, left: list[int]) -> tuple[Preprocessing, Covers, U64 | None]:
        shares, tags = self._part.first(left)
        return shares, VeilOfSlots(self._part.rows(left)), tags
