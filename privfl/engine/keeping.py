"""A round's transcript: kept whole for audits, or without the rows, whose memory is used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from privfl.core import (
    Broadcast,
    Carried,
    Charge,
    ClientId,
    Member,
    Opened,
    PartyId,
    RoundPlan,
    Rows,
    Transcript,
    client_of,
    client_party,
    dropped,
)
from privfl.engine.carrier import Returned
from privfl.engine.notes import Notes
from privfl.engine.order import Order


def transcript_of(
    order: Order,
    returned: Returned[Any],
    after: Broadcast,
    charges: Sequence[Charge],
    notes: Notes,
    members: Mapping[PartyId, Member],
    *,
    keep: bool,
) -> Transcript:
    """All that happened. ``after`` is the model after the round, as it will be broadcast; ``keep``
    keeps rows, updates and members for audits.
    """
    rows = order.scenario.channel.kind.opens == "rows"
    carried, updates = _without_rows(returned.carried, rows=rows), {}
    if keep:
        carried = _with_own_rows(returned.carried)
        updates = {c: replace(u, delta=u.delta.clone()) for c, u in returned.updates.items()}
    return Transcript(
        plan=order.plan,
        before=order.base.parameters,
        after=after.parameters,
        extra=order.base.aux,
        extra_after=after.aux,
        carried=carried,
        updates=updates,
        seconds=notes.seconds,
        charges=tuple(charges),
        incidents=tuple(notes.incidents),
        fired=notes.fired,
        judgements=tuple(notes.judgements),
        liars=tuple(sorted(notes.liars)),
        facts=order.scenario.facts,
        channel=order.scenario.channel if keep else None,
        members=members if keep else {},
        plans=order.plans,
        bases={c: base.parameters for c, base in order.bases.items()} if keep else {},
        scales={c: order.scale(c) for c in order.bases},
        staleness=_staleness(order),
        time=order.clock.now or None,
    )


def _staleness(order: Order) -> dict[ClientId, int]:
    """How old each client's base is, where rounds are not synchronous."""
    if order.scenario.pace.synchronous:
        return {}
    return {client: order.staleness(client) for client in order.plan.cohort}


def note_losses(plan: RoundPlan, returned: Returned[Any], notes: Notes) -> None:
    """Whose name was on letters that were refused, who was excluded, who gave up, and who did not
    get through, from whichever part each is missing.
    """
    notes.refused(returned.carried.refused)
    for part, aborts in returned.carried.aborts.items():
        where = "" if part == "delta" else f" ({part})"
        for who, abort in aborts.items():
            blamed = f" (blames {abort.blamed})" if abort.blamed else ""
            if abort.letter_of and not abort.blamed:
                blamed = " (blames nobody: whoever carries bare mail can write any name)"
            notes.wrong("channel", f"{who} gave up: {abort}{blamed}{where}", client_of(who))
    known = set[str]()
    for part, opened in sorted(returned.carried.opened.items(), key=lambda one: one[0] != "delta"):
        if opened is None:
            continue
        lost = {
            f"{who} {_how(client_of(who), opened)}: {why}": client_of(who)
            for who, why in opened.excluded.items()
        }
        for client in dropped(plan, opened.survivors):
            if client in returned.updates and client_party(client) not in opened.excluded:
                lost[f"client {client} did not get through"] = client
        where = "" if part == "delta" else f" ({part})"
        for what, client_id in lost.items():
            if what not in known:
                notes.wrong("channel", what + where, client_id)
        known |= lost.keys()  # what is so in every part is said once


def _how(client: ClientId | None, opened: Opened[Any]) -> str:
    """What became of a party that is named: a client may be in the sum all the same, because one
    helper of several had nothing of it, and mail that is lost looks the same.
    """
    return "is in the sum, and was named" if client in opened.survivors else "was excluded"


def _with_own_rows(carried: Carried[Any]) -> Carried[Any]:
    return _mapped(carried, lambda rows: replace(rows, values=rows.values.clone()))


def _without_rows(carried: Carried[Any], *, rows: bool) -> Carried[Any]:
    """Without what a channel opened that opens ``rows``, be it their sum."""
    return _mapped(carried, lambda _: Rows(torch.empty(0, 0), torch.empty(0), ()), summed=rows)


def _mapped(carried: Carried[Any], change: Any, *, summed: bool = False) -> Carried[Any]:
    def one(opened: Opened[Any] | None) -> Opened[Any] | None:
        if opened is None or not (summed or isinstance(opened.what, Rows)):
            return opened
        return replace(opened, what=change(opened.what))

    return replace(carried, opened={part: one(what) for part, what in carried.opened.items()})
