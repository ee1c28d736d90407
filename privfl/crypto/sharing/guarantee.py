"""What additive sharing promises, as it is set, and the lies of its second servers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from privfl.core import Coalition, ConfigError, Guarantee, Liars, Lie, Party, PartyId
from privfl.crypto import lies
from privfl.crypto.primitives import fields
from privfl.crypto.ring import word
from privfl.crypto.sharing.parameters import SUM
from privfl.crypto.sharing.server import HelperParty

SHIFT = 20_000
"""What a lying server adds to the first value of its sum, in steps of the fixed point."""


def sharing_guarantee(
    others: tuple[PartyId, ...], quorum: Callable[[int], int]
) -> Guarantee[Liars]:
    """The guarantee of shares over ``server`` and these other servers."""
    return Guarantee(
        reads=(Coalition.of("server", *others),),
        lies=(
            *lies.of_any_sum(lambda plan: quorum(plan.n), "quorum"),
            lies.leaves_one(lambda plan: quorum(plan.n), "quorum", others[0]),
            Lie(Coalition.of(others[0]), "shift", "adds to its sum", lies.each(adds)),
            lies.falls_silent(others[0], "abort"),
            lies.skips_its_clip("shift", "nobody sees a single input"),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", lies.DIGITS, lies.LAST, lies.CHOSEN),
        assumes=("a directory with the other servers' true keys", lies.ENTERED, lies.MAIL),
        shows="only the sum of {count} updates",
        settings=lambda n: {
            "servers": str(1 + len(others)),
            "quorum": f"{quorum(n)} clients, fewer are never summed",
        },
    )


def adds(honest: Party) -> Party:
    """A second server whose sum is not that of its shares.

    Raises:
        ConfigError: it stands in for another party than a second server.
    """
    if not isinstance(honest, HelperParty):
        raise ConfigError(f"{type(honest).__name__} is no second server of additive sharing.")
    now = honest.round

    def change(to: PartyId, body: bytes) -> bytes:
        if not now.repeats(body, SUM):
            return body
        _, packed = now.read(body, SUM)
        total = fields.unpack(packed, now.ring, now.length).copy()
        total[:1] += np.array(SHIFT, dtype=word(now.ring))
        return now.write(SUM, 0, fields.pack(total, now.ring))

    return lies.Alters(honest, change)
