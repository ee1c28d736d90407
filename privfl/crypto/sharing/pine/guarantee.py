"""What sharing with proved norms promises, and the lies of its second server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from privfl.core import Buffer, Coalition, ConfigError, Guarantee, Liars, Lie, Party, PartyId
from privfl.crypto import lies
from privfl.crypto.primitives import fields
from privfl.crypto.sharing.guarantee import SHIFT
from privfl.crypto.sharing.pine.field64 import add, decode, encode
from privfl.crypto.sharing.pine.parameters import HELD, SUM, PineParameters
from privfl.crypto.sharing.pine.server import PineHelperParty

VERDICTS = "whose proof does not hold: that it, or one of the servers, lied"


def pine_guarantee(other: PartyId, quorum: Callable[[int], int]) -> Guarantee[Liars]:
    """The guarantee of shares between ``server`` and this other server, with proved norms."""
    return Guarantee(
        reads=(Coalition.of("server", other),),
        lies=(
            *lies.of_any_sum(lambda plan: quorum(plan.n), "quorum"),
            lies.leaves_one(lambda plan: quorum(plan.n), "quorum", other),
            Lie(Coalition.of(other), "shift", "adds to its sum", lies.each(adds)),
            Lie(
                Coalition.of(other),
                "choose",
                "answers wrongly for a proof, which excludes that client",
                lies.each(rejects),
                True,
            ),
            lies.falls_silent(other, "abort"),
            lies.skips_its_clip("nothing", "no proof of it holds", refused=True),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", VERDICTS, lies.LAST, lies.CHOSEN),
        assumes=(
            "a directory with both servers' true keys",
            "for the proved norms, that BOTH servers follow the protocol (for privacy, one)",
            lies.ENTERED,
            lies.MAIL,
        ),
        shows="only the sum of {count} updates, each of a proved norm",
        settings=lambda n: {
            "servers": "2",
            "proof": "PINE over Field64: 100 products with coins, 2 proofs beside the norm's",
            "quorum": f"{quorum(n)} clients, fewer are never summed: both servers count",
        },
    )


def adds(honest: Party) -> Party:
    """A second server whose sum is not that of its shares.

    Raises:
        ConfigError: it stands in for another party than the second server.
    """

    def change(now: PineParameters, summed: bytes, packed: memoryview) -> tuple[Buffer, ...]:
        total = decode(packed, now.length)
        total[:1] = add(total[:1], np.array([SHIFT], dtype=np.uint64))
        return summed, encode(total)

    return _altered(honest, SUM, change)


def rejects(honest: Party) -> Party:
    """A second server that says nonsense of the last report that it heard.

    Raises:
        ConfigError: it stands in for another party than the second server.
    """

    def change(now: PineParameters, held: bytes, rest: memoryview) -> tuple[Buffer, ...]:
        table, reasons = fields.read_table(rest, now.said, now.plan.n)
        said = {place: bytes(row) for place, row in table.items()}
        said[max(said)] = bytes(now.said)
        return held, fields.table(said), reasons

    return _altered(honest, HELD, change)


def _altered(
    honest: Party,
    kind: int,
    change: Callable[[PineParameters, bytes, memoryview], tuple[Buffer, ...]],
) -> Party:
    """A second server whose letters of one kind say what ``change`` makes of their set of clients
    and of the rest.
    """
    if not isinstance(honest, PineHelperParty):
        raise ConfigError(f"{type(honest).__name__} is no second server of additive sharing.")
    now = honest.round

    def altered(to: PartyId, body: bytes) -> bytes:
        if not now.repeats(body, kind):
            return body
        _, content = now.read(body, kind)
        named, rest = fields.read_bit_set(content, now.plan.n)
        return now.write(kind, 0, *change(now, fields.bit_set(named, now.plan.n), rest))

    return lies.Alters(honest, altered)
