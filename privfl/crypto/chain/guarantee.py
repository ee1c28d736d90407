"""What a chain promises, as it is set."""

from __future__ import annotations

from collections.abc import Callable

from privfl.core import (
    ClientId,
    Coalition,
    Guarantee,
    Liars,
    Quota,
    RoundPlan,
    Some,
    client_party,
)
from privfl.crypto import lies
from privfl.crypto.chain.lies import breaks_off, passes_garbage, puts_among, puts_between

CLOSED = (
    "the sum itself, which closes the chain to a ring: who knows it knows the mask if it is the"
    " last, and what the last one sent if it is the first, so with the second or the last but one"
    " it reads as the server does"
)


def chain_guarantee(quorum: Callable[[int], int]) -> Guarantee[Liars]:
    """The guarantee of a chain with this quorum."""

    def fewest(plan: RoundPlan) -> int:
        return quorum(plan.n)

    return Guarantee(
        reads=(
            Coalition.of("server", some=Some("the client beside the first or the last", _ends)),
            Coalition(some=Some("the two clients beside another one", _between)),
        ),
        lies=(
            puts_between(fewest),
            puts_among(fewest),
            lies.publishes_another(),
            lies.shuts_out(fewest, "quorum"),
            lies.skips_its_clip("shift", "nobody sees a single input"),
            breaks_off(),
            passes_garbage(),
            lies.sends_garbage(),
        ),
        leaks=(
            "who takes part",
            "to two clients with others between them, the sum of these; to the server with a client"
            ", the sums before and after it",
            CLOSED,
            lies.DIGITS,
            lies.LAST,
            lies.CHOSEN,
        ),
        assumes=("a directory with everybody's true keys", lies.ENTERED, lies.MAIL),
        shows="only the sum of {count} updates",
        settings=lambda n: {"quorum": f"{quorum(n)} clients, fewer are never summed"},
        tapped=False,
    )


def _ends(plan: RoundPlan) -> dict[ClientId, Quota]:
    """Who with the server reads the first client, and the last."""
    first, second, before, last = (plan.cohort[i] for i in (0, 1, -2, -1))
    return {
        first: Quota(1, (client_party(second),)),
        last: Quota(1, (client_party(before),)),
    }


def _between(plan: RoundPlan) -> dict[ClientId, Quota]:
    """Who read each of the others."""
    chain = plan.cohort
    return {
        client: Quota(2, (client_party(chain[i]), client_party(chain[i + 2])))
        for i, client in enumerate(chain[1:-1])
    }
