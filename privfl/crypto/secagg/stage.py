"""The stages of a round, and the abort that names one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from privfl.core import Abort, PartyId


class Kind(IntEnum):
    """What a message is; odd ones go up to the server, even ones come down from it."""

    CALL = 0
    ADVERTISE = 1
    KEYS = 2
    SHARES = 3
    INBOX = 4
    MASKED = 5
    SURVIVORS = 6
    CONSISTENCY = 7
    SIGNATURES = 8
    UNMASK = 9


STAGE = {
    Kind.CALL: "advertise",
    Kind.ADVERTISE: "advertise",
    Kind.KEYS: "share_keys",
    Kind.SHARES: "share_keys",
    Kind.INBOX: "masked_input",
    Kind.MASKED: "masked_input",
    Kind.SURVIVORS: "consistency",
    Kind.CONSISTENCY: "consistency",
    Kind.SIGNATURES: "unmask",
    Kind.UNMASK: "unmask",
}


class StageAbort(Abort):
    """An abort with the ``stage`` it came at and ``who`` was missing or wrong; nothing of the sum has been opened.

    Stages: ``enter``, ``advertise``, ``share_keys``, ``masked_input``, ``consistency``, ``unmask``.
    """

    def __init__(self, stage: str, why: str, blamed: PartyId | None = None, who: Iterable[PartyId] = ()) -> None:
        super().__init__(f"stage {stage}: {why}", blamed)
        self.stage = stage
        self.who = tuple(who) or ((blamed,) if blamed else ())
