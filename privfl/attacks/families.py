"""To which family an attack belongs and from which seats it acts, as its class says."""

from __future__ import annotations

from typing import Any, get_args

from privfl.core import AttackSeat


def family_of(attack: type) -> str:
    """The folder that an attack lives in: byzantine, poisoning, backdoor, membership, property,
    inversion; of somebody else's attack, its module.

    >>> from privfl.attacks.byzantine import ALIE
    >>> family_of(ALIE)
    'byzantine'
    """
    where = attack.__module__.split(".")
    return where[2] if where[:2] == ["privfl", "attacks"] else attack.__module__


def seats_of(attack: Any) -> str:
    """The seats that an attack or its class declares, joined by +; who only looks has a view.

    >>> from privfl.attacks.backdoor import ModelReplacement
    >>> seats_of(ModelReplacement)
    'training+update'
    """
    return "+".join(seat for seat in get_args(AttackSeat) if seat in attack.seats) or "view"
