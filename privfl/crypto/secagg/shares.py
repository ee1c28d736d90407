"""Shares of secrets that come back to the server, held against what was dealt."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from privfl.core import PartyId
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg import keys
from privfl.crypto.sharing import shamir


def as_dealt(
    tag: bytes,
    sealed: Mapping[int, Mapping[int, bytes]],
    name: Callable[[int], PartyId],
    holder: int,
    owner: int,
    what: keys.Secret,
    share: bytes,
) -> int:
    """The value of a share, as its owner dealt it to its holder; ``sealed`` is what each owner
    dealt, by owner and holder.

    Raises:
        Malformed: it deals none to it, or dealt another; or it is no field element.
    """
    if not shamir.in_range(share):
        raise Malformed("a share that is no field element")
    value = int.from_bytes(share, "little")
    if owner == holder:
        return value
    box = sealed[owner].get(holder)
    if box is None:
        raise Malformed(f"a share of {name(owner)}, which it does not hold")
    at = 0 if what == "seed" else keys.DEALT
    if keys.dealt(tag, owner, holder, what, share) != box[at : at + keys.DEALT]:
        raise Malformed(f"another share of {name(owner)} than it was dealt")
    return value
