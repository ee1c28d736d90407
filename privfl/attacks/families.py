"""To which family an attack belongs and from which seats it acts, read off its class."""

from __future__ import annotations

SEATS = {
    "poison_data": "data",
    "objective": "loss",
    "poison_training": "training",
    "poison_updates": "update",
    "poison_and_remember": "update",
    "poison_bounded": "wire",
    "poison_party": "party",
    "poison_broadcast": "broadcast",
}


def family_of(attack: type) -> str:
    """The folder that an attack lives in: byzantine, poisoning, backdoor, membership, property,
    inversion.

    >>> from privfl.attacks.byzantine import ALIE
    >>> family_of(ALIE)
    'byzantine'
    """
    return attack.__module__.split(".")[2]


def seats_of(attack: type) -> str:
    """The seats that an attack fills, joined by +; those that only look have a view.

    >>> from privfl.attacks.backdoor import ModelReplacement
    >>> seats_of(ModelReplacement)
    'training+update'
    """
    found = [seat for method, seat in SEATS.items() if hasattr(attack, method)]
    return "+".join(dict.fromkeys(found)) or "view"
