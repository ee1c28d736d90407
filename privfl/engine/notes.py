"""What a round leaves for people: seconds by stage, what went wrong, what defences and attacks
did.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from privfl.core import ClientId, Incident, Judgement, Refusal, client_of
from privfl.engine.resting import Resting


@dataclass(slots=True)
class Notes:
    """The notes of one round, filled in as it goes; ``liars`` are the clients through which an
    attacker acted. ``resting`` is the rest that the garbage collector takes in it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    fired: dict[str, str] = field(default_factory=dict)
    judgements: list[Judgement] = field(default_factory=list)
    liars: set[ClientId] = field(default_factory=set)
    resting: Resting = field(default_factory=Resting)
    _inside: float = field(default=0.0, init=False)

    @contextmanager
    def stage(self, name: str, *, foreign: bool = False) -> Iterator[None]:
        """Wall time spent inside is this stage's, but for that of stages inside it; in one whose
        code may be anybody's (``foreign``) the garbage collector works.
        """
        began, outer = time.perf_counter(), self._inside
        self._inside = 0.0
        with self.resting.interrupted() if foreign else nullcontext():
            yield
        whole = time.perf_counter() - began
        self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inside
        self._inside = outer + whole

    def wrong(self, stage: str, what: str, client: ClientId | None = None) -> None:
        """Something went wrong without ending the round."""
        self.incidents.append(Incident(stage, what, client))

    def refused(self, refused: Sequence[Refusal]) -> None:
        """Letters that were not taken for their sender's; not those that merely came twice."""
        for refusal in refused:
            if not refusal.again:
                self.wrong("mail", str(refusal), client_of(refusal.sender))
