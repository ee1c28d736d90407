"""What a layer's caller is told of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from privfl.core import (
    ClientId,
    DpEvent,
    Fidelity,
    Guarantee,
    Opened,
    Outcome,
    PartyId,
    Power,
    RoundPlan,
    Rows,
    client_party,
    dropped,
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one aggregation cost and showed.

    ``server_reads`` says what the server could read if it followed the protocol: every update, or
    only a sum; ``read_by`` which coalitions read single updates; ``liars`` the most that one lying
    party can do (the channel's ``guarantee`` says how); ``mail`` whether
    the parties' letters were signed; ``settings`` what else the guarantee hangs on, for a cohort of
    this size (mode, quorum, threshold, who may be corrupt). Where ``fidelity`` is ideal no protocol
    ran, and ``bytes_sent``, ``exchanges`` and ``seconds`` are None. ``event`` is the noisy release,
    ``epsilon`` all that this layer has spent so far (at its ``delta``), None with the reason in
    ``epsilon_note`` where no claim can be made; ``statement`` says it in words, with the adversary.
    """

    round: int
    survivors: tuple[ClientId, ...]
    dropped: tuple[ClientId, ...]
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
    epsilon: float | None
    epsilon_note: str
    statement: str


def of_round(
    plan: RoundPlan,
    said: Guarantee[Any],
    mail: str,
    outcome: Outcome[Any],
    opened: Opened[Any],
    *,
    seconds: float,
    event: DpEvent | None,
    epsilon: tuple[float | None, str],
    statement: str,
) -> Receipt:
    """The receipt of a round that opened; ``said`` is what its channel guarantees, ``seconds`` how
    long it took, ``epsilon`` what is spent so far, with the reason where that is None.
    """
    lost = dropped(plan, opened.survivors)
    return Receipt(
        round=plan.number,
        survivors=opened.survivors,
        dropped=tuple(c for c in lost if client_party(c) not in opened.excluded),
        excluded=opened.excluded,
        mail=mail,
        server_reads=said.server_reads(
            len(opened.survivors),
            opened.what.n if isinstance(opened.what, Rows) else None,
            opened.disclosed,
        ),
        read_by=said.read_by(plan),
        liars=said.liars(),
        fidelity=said.fidelity,
        settings=said.settings(plan.n),
        bytes_sent=outcome.bytes_sent() if said.measured else None,
        exchanges=outcome.exchanges if said.measured else None,
        seconds=seconds if said.measured else None,
        event=event,
        epsilon=epsilon[0],
        epsilon_note=epsilon[1],
        statement=statement,
    )


def of_nobody(
    plan: RoundPlan,
    said: Guarantee[Any],
    mail: str,
    *,
    event: DpEvent,
    epsilon: tuple[float | None, str],
    statement: str,
) -> Receipt:
    """The receipt of a round for which nobody was drawn; ``said`` is what its channel guarantees,
    ``epsilon`` what is spent so far, with the reason where that is None.
    """
    ran = said.measured
    return Receipt(
        round=plan.number,
        survivors=(),
        dropped=(),
        excluded={},
        server_reads="nothing: nobody was drawn",
        mail=mail,
        read_by=said.read_by(plan),
        liars=said.liars(),
        fidelity=said.fidelity,
        settings={},
        bytes_sent=0 if ran else None,
        exchanges=0 if ran else None,
        seconds=0.0 if ran else None,
        event=event,
        epsilon=epsilon[0],
        epsilon_note=epsilon[1],
        statement=statement,
    )
