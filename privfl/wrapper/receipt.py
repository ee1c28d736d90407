"""What a layer's caller is told of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from privfl.core import (
    ClientId,
    DpEvent,
    Fidelity,
    Guarantee,
    Ledger,
    Outcome,
    PartyId,
    Power,
    RoundPlan,
    Rows,
    client_party,
    dropped,
)
from privfl.wrapper.names import Names
from privfl.wrapper.spent import spent_of


@dataclass(frozen=True)
class Receipt:
    """What one aggregation cost and showed.

    ``survivors`` and ``dropped`` are clients by the names that they were given; in ``excluded`` and
    ``read_by`` they are parties, as ``client/NAME``. ``server_reads`` says what the server could
    read if it followed the protocol: every update, or only a sum; ``read_by`` which coalitions read
    single updates; ``liars`` the most that one lying party can do (the channel's ``guarantee`` says
    how); ``mail`` whether the parties' letters were signed; ``settings`` what else the guarantee
    hangs on, for a cohort of
    this size (mode, quorum, threshold, who may be corrupt). Where ``fidelity`` is ideal no protocol
    ran, and ``bytes_sent``, ``exchanges`` and ``seconds`` are None. ``event`` is the noisy release,
    ``ledger`` all that this layer has been charged so far, and ``delta`` that of its claims.
    """

    round: int
    survivors: tuple[Any, ...]
    dropped: tuple[Any, ...]
    excluded: Mapping[PartyId, str]
    server_reads: str
    mail: str
    read_by: str
    liars: Mapping[str, Power]
    fidelity: Fidelity
    settings: Mapping[str, str]
    bytes_sent: int | None
    exchanges: int | None
    seconds: float | None
    event: DpEvent | None
    ledger: Ledger = field(repr=False)
    delta: float

    @cached_property
    def _spent(self) -> tuple[float | None, str, str]:
        return spent_of(self.ledger, self.delta)

    @property
    def epsilon(self) -> float | None:
        """All that the layer has spent so far, as a run's statement has it (the smaller of RDP and
        PLD); None with the reason in ``epsilon_note`` where no claim can be made. Worked out when
        it is asked for, in up to a second or two.
        """
        return self._spent[0]

    @property
    def epsilon_note(self) -> str:
        """By which accountant, at which delta, of whose neighbours; or why there is no epsilon."""
        return self._spent[1]

    @property
    def statement(self) -> str:
        """The claim in words, with the adversary."""
        return self._spent[2]

    def __str__(self) -> str:
        """All of it, epsilon too, which `repr` leaves out because it is worked out when asked."""
        return f"{repr(self)[:-1]}, epsilon={self.epsilon}, epsilon_note={self.epsilon_note!r})"


def of_round(
    plan: RoundPlan,
    said: Guarantee[Any],
    mail: str,
    outcome: Outcome[Any] | None,
    names: Names,
    *,
    seconds: float,
    event: DpEvent | None,
    ledger: Ledger,
    delta: float,
) -> Receipt:
    """The receipt of a round that was released; ``said`` is what its channel guarantees,
    ``outcome`` None where nobody was drawn, ``seconds`` how long it took, ``ledger`` what was
    charged so far.
    """
    opened = None if outcome is None else outcome.opened
    reads = "nothing: nobody came"
    survivors: tuple[ClientId, ...] = ()
    excluded: Mapping[PartyId, str] = {}
    if opened is not None:
        survivors, excluded = opened.survivors, opened.excluded
        rows = opened.what.n if isinstance(opened.what, Rows) else None
        reads = said.server_reads(len(survivors), rows, opened.disclosed)
    lost = [c for c in dropped(plan, survivors) if client_party(c) not in excluded]
    ran = said.measured
    return Receipt(
        round=plan.number,
        survivors=tuple(map(names.name, survivors)),
        dropped=tuple(map(names.name, lost)),
        excluded={names.party(who): names.said(why) for who, why in excluded.items()},
        server_reads="nothing: nobody was drawn" if outcome is None else reads,
        mail=mail,
        read_by=names.said(said.read_by(plan)),
        liars=said.liars(),
        fidelity=said.fidelity,
        settings=said.settings(plan.n) if plan.n else {},
        bytes_sent=(0 if outcome is None else outcome.bytes_sent()) if ran else None,
        exchanges=(0 if outcome is None else outcome.exchanges) if ran else None,
        seconds=(0.0 if outcome is None else seconds) if ran else None,
        event=event,
        ledger=ledger,
        delta=delta,
    )
