"""The second server in a round whose dealer dealt ahead."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from privfl.core import Buffer, Mail
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.ahead.dealing import Part, Reached
from privfl.hybrid.two_server.ahead.letters import (
    FirstsClaim,
    read_claim,
    without,
    write_differences,
)
from privfl.hybrid.two_server.between_servers import unusable
from privfl.hybrid.two_server.parameters import CLAIM
from privfl.hybrid.two_server.second_server import SecondServer


@dataclass(repr=False)
class AheadSecondServer(SecondServer):
    """The server that learns no result. It says how the clients' masks differ from the dealt ones
    only to a server that took the same dealing; otherwise the round ends, and ``reached`` knows
    where to go on.
    """

    part: Part = field(kw_only=True)
    boxes: int = field(default=1, kw_only=True)
    reached: Reached = field(default_factory=Reached, kw_only=True)
    claim: FirstsClaim | None = field(default=None, kw_only=True)

    def step(self, mail: Mail) -> Mail:
        """Hear the clients once, then the first server; no dealer speaks in this round."""
        heard = {who: body for who, body in mail.items() if who != "dealer"}
        return super().step(heard) if heard or not mail else {}

    def _dealing(self) -> int:
        return self.part.taken.number

    def _from_server(self, body: Buffer) -> Mail:
        if self.claim is None:
            return self._compare(body)
        return {} if self.now.repeats(body, CLAIM) else super()._from_server(body)

    def _compare(self, body: Buffer) -> Mail:
        now, taken = self.now, self.part.taken
        try:
            claim = read_claim(self.part, body, self.identity, self.boxes)
        except Malformed as malformed:
            raise unusable("agree", "server", malformed) from None
        if claim.of != taken.of:
            why = "the servers' files are not of one dealing: deal anew, for both"
            raise StageAbort("agree", why, who=("server", "server/1"))
        if not claim.key:
            self.reached.other_took(claim.number, taken.number)
            why = (
                f"this server took dealing {taken.number} and the other {claim.number}: both are"
                " lost, and the next round takes one that neither had"
            )
            raise StageAbort("agree", why, who=("server", "server/1"))
        if not set(claim.places) <= self.seeds.keys():
            why = "the server lists clients that never reached this one"
            raise StageAbort("agree", why, letter_of="server")
        now.enough("agree", claim.places)
        self.claim = claim
        letter = write_differences(self.part, claim, self.seeds)
        dealt = self.part.rows(claim.places)
        self.seeds = dict(zip(claim.places, dealt, strict=True))
        return {"server": letter}

    def _ask_dealer(self, members: Collection[int], seeds: list[bytes]) -> Mail:
        """It asks nobody: what was dealt is here."""
        if set(members) != self.seeds.keys():
            why = "the server lists other clients than it said"
            raise StageAbort("agree", why, letter_of="server")
        self.own, self.letter = self.part.seed, b"here"
        return self._begin(self.letter) if self.crossing is None else {}

    def _begin(self, body: Buffer) -> Mail:
        if self.claim is None:
            return {}
        try:
            shares = self.part.second(list(self.positions))
        except Malformed as malformed:
            raise unusable("deal", "dealer", malformed) from None
        vector = shares.vector - without(self.part, self.claim)
        return self._compute(replace(shares, vector=vector), ahead=True)
