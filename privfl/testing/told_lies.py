"""Lies told through the real parties of a channel, and what came of each: what the round then
published is written as a combination of the clients' updates (least squares), and the least power
that explains the combination is what the lie did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from privfl.core import POWERS, Channel, ClientId, Liars, Lie, PartyId, Power, Vector, client_of
from privfl.testing.played_rounds import Contributions, PlayedRound

NEAR = 0.94
"""The cosine from which on a vector is a client's update: nine tenths of its energy, nearly."""
NEARER = 0.25
"""How far from an update a vector may be that is this update, of how far the mean of all is: where
updates are alike, everybody knows nearly all of each.
"""
CLOSE = 0.02
"""Relative error of a result that is as it was: rounding, and the noise of approximate schemes."""
ALONE = 20.0
"""How much heavier one update must weigh than every other to be read from a sum of them."""
TRIES = 3
"""How often a lie is told before it counts as weaker than it says: some succeed by chance."""


@dataclass(frozen=True, slots=True)
class ToldLie:
    """What came of a lie: the ``power`` that it had, the clients whose update it read, and which
    parties gave up, with their reasons.
    """

    power: Power
    read: tuple[ClientId, ...]
    ended: tuple[tuple[PartyId, str], ...]


@dataclass
class LiesTold:
    """Lies to one channel, against rounds without a lie that are played once for all of them."""

    channel: Channel[Any]
    held: Contributions
    without: dict[frozenset[ClientId], Vector | None] = field(default_factory=dict)

    @cached_property
    def honest(self) -> PlayedRound:
        """A round in which all follow the protocol."""
        return PlayedRound.play(self.channel, self.held)

    @cached_property
    def close(self) -> float:
        """How far a result may be off that is as it was, as a fraction: the noise of a channel that
        adds some, where that is more than rounding.
        """
        first, again = self.honest.mean, None
        if self.channel.able.noise is not None:
            again = PlayedRound.play(self.channel, self.held).mean
        if first is None or again is None:
            return CLOSE
        return max(CLOSE, 3 * float((first - again).norm()) / float(first.norm()))

    def most(self, lie: Lie[Liars], tries: int = TRIES) -> ToldLie:
        """The most that came of a lie, told up to so many times."""
        found: list[ToldLie] = []
        for _ in range(tries):
            found.append(self.of(lie))
            if POWERS.index(found[-1].power) >= POWERS.index(lie.can):
                break
        return max(found, key=lambda told: POWERS.index(told.power))

    def of(self, lie: Lie[Liars]) -> ToldLie:
        """What came of a lie that is told once."""
        plan = self.honest.plan
        who = lie.who.example(plan)
        own = frozenset(c for c in map(client_of, who) if c is not None)
        played = PlayedRound.play(self.channel, self.held, lie.how(), who)
        ended = tuple((party, str(abort)) for party, abort in played.outcome.aborts.items())
        others = [c for c in plan.cohort if c not in own]
        near = [c for c, vector in played.took.items() if c in others and self._near(vector, c)]
        if not near and played.mean is not None:
            near = self._alone_in(played.mean, others)
        if near:
            return ToldLie("read", tuple(near), ended)
        if played.mean is None:
            return ToldLie("abort", (), ended)
        return ToldLie(self._moved(played.mean, own, others), (), ended)

    def _near(self, vector: Vector, client: ClientId) -> bool:
        row = self.held.carried[client].double()
        off, known = (
            1 - float(torch.cosine_similarity(v.double(), row, dim=0))
            for v in (vector, self.held.carried.sum(dim=0))
        )
        return off <= min(1 - NEAR, NEARER * known)

    def _weights(self, mean: Vector) -> tuple[Vector, float]:
        """The weights [n] of the rows in a vector, and what is left of it, relative to a row."""
        rows = self.held.carried.double()
        weights = torch.linalg.lstsq(rows.T, mean[:, None]).solution[:, 0]
        left = (mean - weights @ rows).norm() / rows.norm(dim=1).median()
        return weights, float(left)

    def _alone_in(self, mean: Vector, others: Sequence[ClientId]) -> list[ClientId]:
        """Whose update it is that a result is, less what the liars sent; nobody's if it is not."""
        weights, left = self._weights(mean)
        heavy = sorted(others, key=lambda c: -abs(float(weights[c])))
        most = abs(float(weights[heavy[0]]))
        second = abs(float(weights[heavy[1]])) if len(heavy) > 1 else 0.0
        return heavy[:1] if left <= self.close * most and most > ALONE * second else []

    def _absent(self, own: frozenset[ClientId]) -> Vector | None:
        """The mean [d] of an honest round in which some clients do not show up."""
        if own not in self.without:
            self.without[own] = PlayedRound.play(self.channel, self.held, absent=own).mean
        return self.without[own]

    def _moved(self, mean: Vector, own: frozenset[ClientId], others: Sequence[ClientId]) -> Power:
        before = self.honest.mean
        alone = self._absent(own) if own else before
        if self._like(mean, before) or self._like(mean, alone):
            return "nothing"
        n = len(others) + len(own)
        if own and alone is not None:
            sent = n * mean - len(others) * alone
            if float(sent.norm()) <= len(own) * self.honest.plan.l2 * (1 + self.close):
                return "nothing"
        weights, left = self._weights(mean)
        most = 1.0 if before is None else max(float(self._weights(before)[0].sum()), 1.0)
        made_of_them = left <= self.close and float(weights.min()) >= -self.close
        whole = float(weights.sum()) <= most * (1 + self.close)
        if made_of_them and whole:
            return "choose"
        gone = frozenset(c for c in others if float(weights[c]) <= self.close * most)
        left_out = 0 < len(gone) < len(others) and self._like(mean, self._absent(gone))
        return "choose" if left_out else "shift"

    def _like(self, mean: Vector, other: Vector | None) -> bool:
        """Whether a result is another one, but for rounding and noise."""
        return other is not None and float((mean - other).norm()) <= self.close * float(
            other.norm()
        )
