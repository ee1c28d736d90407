"""What carries envelopes, and how long a server waits for answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from privfl.core import PartyId


class Wire(Protocol):
    """What carries envelopes to nodes and back, and reads nothing of them. It may lose, delay,
    double and change them.
    """

    def send(self, envelopes: Mapping[PartyId, bytes], seconds: float) -> None:
        """Hand each node its envelope; one that takes longer than this need not be delivered."""
        ...

    def collect(self, seconds: float) -> Sequence[tuple[PartyId, bytes]]:
        """The answers that have come, with the node that each is from as the wire says; waits at
        most this long for the first.
        """
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that the server waits for answers: to the key set-up, while nodes may still be
    starting; to an order, while they train; and to mail.
    """

    joining: float = 120.0
    training: float = 600.0
    mail: float = 60.0


def pause(quiet: float, least: float = 0.05, most: float = 0.5, share: float = 0.1) -> float:
    """Seconds from one look for mail to the next, where none has come for ``quiet`` seconds: a
    share of them, so that looking costs little and adds little to what is waited for anyway.

    >>> [pause(seconds) for seconds in (0.0, 2.0, 60.0)]
    [0.05, 0.2, 0.5]
    """
    return min(max(quiet * share, least), most)
