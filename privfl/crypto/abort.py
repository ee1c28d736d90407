"""The abort of a protocol with stages."""

from __future__ import annotations

from collections.abc import Iterable

from privfl.core import Abort, PartyId


class StageAbort(Abort):
    """An abort with the ``stage`` it came at and ``who`` was missing or wrong; nothing of the sum
    has been opened.
    """

    def __init__(
        self,
        stage: str,
        why: str,
        blamed: PartyId | None = None,
        who: Iterable[PartyId] = (),
        letter_of: PartyId | None = None,
    ) -> None:
        super().__init__(f"stage {stage}: {why}", blamed, letter_of)
        self.stage, self.why = stage, why
        named = blamed or letter_of
        self.who = tuple(who) or ((named,) if named else ())
