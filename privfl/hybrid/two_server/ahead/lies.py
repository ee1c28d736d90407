"""What the second server can do by lying where the dealer dealt ahead: say that clients drew other
masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import Cast, KeepsSecrets, Liars, Mail, Party, RoundPlan
from privfl.crypto.mpc.words import expand
from privfl.hybrid.two_server.ahead.letters import FirstsClaim, write_rows
from privfl.hybrid.two_server.ahead.second_server import AheadSecondServer
from privfl.hybrid.two_server.parameters import DIFFERENCES


@dataclass(repr=False)
class MovesRows(KeepsSecrets):
    """A second server that adds to the first entry of every row, by the differences that it says:
    this part of the clip.
    """

    honest: AheadSecondServer
    part_of_clip: float

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, with other differences."""
        seeds = dict(self.honest.seeds)
        out = dict(self.honest.step(mail))
        claim = self.honest.claim
        now = self.honest.now
        if claim is None or "server" not in out or not now.repeats(out["server"], DIFFERENCES):
            return out
        return {**out, "server": self._moved(claim, seeds)}

    def _moved(self, claim: FirstsClaim, seeds: dict[int, bytes]) -> bytes:
        part, now = self.honest.part, self.honest.now
        rows = []
        for place, dealt in zip(claim.places, part.rows(claim.places), strict=True):
            drawn, known = (expand(seed, now.words, now.library) for seed in (seeds[place], dealt))
            drawn[0] += np.uint64(int(self.part_of_clip * now.longest))
            rows.append(drawn - known)
        return write_rows(part, claim, rows)


def moves_rows(part_of_clip: float) -> Liars:
    """The second server as `MovesRows`."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        made: dict[str, Party] = {}
        for who, party in honest.items():
            if isinstance(party, AheadSecondServer):
                made[who] = MovesRows(party, part_of_clip)
            else:
                made[who] = party
        return made

    return Liars(enter=enter)
