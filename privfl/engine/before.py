"""What a model that a run starts from leaves of the run's claims."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from privfl.core import Ledger, Unit, UserBounds


def void_start(
    start: Literal["public"] | Ledger | None, unit: Unit, users: UserBounds | None = None
) -> str:
    """What makes a claim for this unit (of users: told apart so) void, in words: the model that the
    run starts from was trained without noise, or charged for others. "" where nothing does.

    >>> void_start("public", "sample")
    ''
    >>> void_start(Ledger(), "client")[:53]
    'the model that this run starts from comes with a ledg'
    """
    if not isinstance(start, Ledger):
        return ""
    if not start.charges:
        return (
            "the model that this run starts from comes with a ledger that charges nothing, so it"
            " was trained without noise. Start from a public model, or from one with noise."
        )
    units = {one.unit for one in start.charges}
    # noise for clients and noise for samples may both be in a run, and each is charged then
    if unit not in units or (unit == "user" and units != {"user"}):
        others = " and ".join(f"{other}s" for other in sorted(units - {unit}))
        return _says_nothing(others, f"{unit}s")
    told_apart = {one.users.ids for one in start.charges if one.users is not None}
    if users is not None and told_apart != {users.ids}:
        others = " and ".join(f"users by '{ids}'" for ids in sorted(told_apart - {users.ids}))
        return _says_nothing(others, f"users by '{users.ids}'")
    return ""


def carried_on(ledger: Ledger, units: Collection[Unit]) -> Ledger:
    """What was charged for a model, as it is to a run that goes on from it with noise for these
    units: a claim for others is void from here on, because the model is trained on their data
    without noise for them.

    >>> carried_on(Ledger(), ()).charges
    ()
    """
    return Ledger(
        tuple(
            charge
            if charge.unit in units or charge.void
            else replace(
                charge,
                void=f"a run that goes on from a model with noise for {charge.unit}s trained it"
                f" without noise for {charge.unit}s. Go on with noise for them, or read the"
                " statement of the model before.",
            )
            for charge in ledger.charges
        )
    )


def _says_nothing(others: str, own: str) -> str:
    return (
        f"the model that this run starts from was charged for {others}, which says nothing of"
        f" {own}. Start from a public model, or from one that was charged for {own}."
    )
