"""What a server keeps of correlated noise while a run lasts: in memory alone, and secret."""

from __future__ import annotations

from typing import Any

import torch

from privfl.core import (
    ClientId,
    KeepsSecrets,
    Participation,
    ParticipationBroken,
    RoundPlan,
    RunNoise,
    Sensitivity,
    Vector,
)
from privfl.core.randomness import NoiseSource


class Attendance:
    """Who took part when, against what a run's noise was made for.

    >>> seen = Attendance(Participation(rounds=9, most=3, apart=3))
    >>> seen.check(0, (7, 8))
    >>> seen.check(2, (7,))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.core.errors.ParticipationBroken: client 7 takes part in rounds 0 and 2, and ...
    """

    def __init__(self, participation: Participation) -> None:
        self.participation = participation
        self._last: dict[ClientId, int] = {}
        self._count: dict[ClientId, int] = {}

    def check(self, number: int, cohort: tuple[ClientId, ...]) -> None:
        """Note a round's cohort; the same round again counts once.

        Raises:
            ParticipationBroken: a client comes too soon, or too often. Nobody is noted then.
        """
        run = self.participation
        new = [client for client in cohort if self._last.get(client) != number]
        for client in new:
            last, count = self._last.get(client), self._count.get(client, 0)
            if (last is not None and number - last < run.apart) or count >= run.most:
                raise ParticipationBroken(
                    f"client {client} takes part in rounds {last} and {number}, and the noise of"
                    f" this run is for clients that come at most {run.most} times, with"
                    f" {run.apart} rounds from one to the next: use a sampler that keeps to that,"
                    " such as separated."
                )
        for client in new:
            self._last[client] = number
            self._count[client] = self._count.get(client, 0) + 1


class NoiseMemory(KeepsSecrets):
    """The noise of one block of rounds: rows that hang together, from round ``first`` on.

    Row t belongs to round ``first`` + t, whether that round released anything or not. A round whose
    row is used up, because it is played again, begins a new block, and so does whoever comes
    without this memory: a resumed run. Blocks are independent, so what they cost adds up.
    ``entry`` is the name of the block's charge in a journal, ``held`` in a budget; ``shared`` says
    that another block had a cohort of this one, so that secret draws save nothing.
    """

    __slots__ = ("_attendance", "_drawn", "_states", "entry", "first", "held", "shared")

    def __init__(self) -> None:
        self.entry = ""
        self.held = ""
        self.first = -1
        self.shared = False
        self._attendance: Attendance | None = None
        self._states: dict[str, Any] = {}
        self._drawn: dict[str, int] = {}

    def enter(self, plan: RoundPlan, run: RunNoise[Any]) -> None:
        """Begin a round: go on with the block, or begin another.

        Raises:
            ParticipationBroken: a client of the cohort comes too soon, or too often.
        """
        number = plan.number
        used = self.first + max(self._drawn.values(), default=0)
        if self._attendance is None or number < used:
            self.entry, self.held, self.first, self.shared = "", "", number, False
            self._states, self._drawn = {}, {}
            self._attendance = Attendance(run.participation)
        self._attendance.check(number, plan.cohort)

    def rows(self, number: int) -> int:
        """How many rows there are up to this round."""
        return number - self.first + 1

    def release(
        self,
        plan: RoundPlan,
        run: RunNoise[Any],
        vector: Vector,
        sensitivity: Sensitivity,
        noise: NoiseSource,
    ) -> Vector:
        """The vector [d] of a part with the round's row. Rows of rounds that released nothing are
        drawn and forgotten: or those who took part since would meet in fewer rows than rounds.
        """
        part = plan.part
        if part not in self._states:
            self._states[part], self._drawn[part] = run.init(vector.numel()), 0
        nothing = Sensitivity(1.0)
        while self._drawn[part] < self.rows(plan.number) - 1:
            self._draw(part, run, torch.zeros_like(vector), nothing, noise)
        return self._draw(part, run, vector, sensitivity, noise)

    def _draw(
        self,
        part: str,
        run: RunNoise[Any],
        vector: Vector,
        sensitivity: Sensitivity,
        noise: NoiseSource,
    ) -> Vector:
        out, _, self._states[part] = run.release(vector, sensitivity, self._states[part], noise)
        self._drawn[part] += 1
        return out
