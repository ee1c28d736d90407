"""A wire within one process: every envelope is handed over as bytes, at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from privfl.core import PartyId


class InProcess:
    """A `carrier.Wire` to nodes that are functions from envelope to envelope
    (`party.NodeParty.answer`).

    ``tap`` stands where a relay would: it is handed each envelope on its way (the node, whether it
    is an answer, the bytes) and what it returns arrives; None is lost.

    >>> wire = InProcess({"client/0": lambda raw: raw[::-1]})
    >>> wire.send({"client/0": b"abc"}, 1.0)
    >>> wire.collect(1.0)
    [('client/0', b'cba')]
    """

    def __init__(
        self,
        nodes: Mapping[PartyId, Callable[[bytes], bytes]],
        tap: Callable[[PartyId, bool, bytes], bytes | None] = lambda who, back, raw: raw,
    ) -> None:
        self.nodes, self.tap = nodes, tap
        self._answers: list[tuple[PartyId, bytes]] = []

    def send(self, envelopes: Mapping[PartyId, bytes], seconds: float) -> None:
        """Hand each node its envelope; nodes that are not there are silent."""
        for who, raw in envelopes.items():
            arrived = self.tap(who, False, raw)
            if arrived is None or who not in self.nodes:
                continue
            back = self.tap(who, True, self.nodes[who](arrived))
            if back is not None:
                self._answers.append((who, back))

    def collect(self, seconds: float) -> Sequence[tuple[PartyId, bytes]]:
        """The answers that have come; none comes later."""
        if not self._answers:
            time.sleep(min(seconds, 0.01))
        answers, self._answers = self._answers, []
        return answers
