"""The stages of a round."""

from __future__ import annotations

from enum import IntEnum


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
