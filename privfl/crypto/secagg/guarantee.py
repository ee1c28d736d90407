"""What secure aggregation promises, as it is set: who reads single updates, what lies can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from privfl.core import (
    TRUE_KEYS,
    ClientId,
    Coalition,
    Guarantee,
    Liars,
    Lie,
    PartyId,
    Quota,
    Received,
    RoundPlan,
    Rows,
    Some,
    Total,
    client_party,
)
from privfl.crypto import lies
from privfl.crypto.lies import CHOSEN, DIGITS, ENTERED, LAST, MAIL
from privfl.crypto.secagg.graph import Degree
from privfl.crypto.secagg.lies import deals_wrong_shares, keeps_its_secrets, swaps_keys
from privfl.crypto.secagg.pairs import Pairs
from privfl.crypto.secagg.parameters import SecAggParameters

Opens = Callable[[Received, Sequence[Mapping[bytes, Pairs]]], Rows | Total | None]
"""What a coalition opens from its mail and from the secrets that its clients kept."""


def secagg_guarantee(
    parameters: Callable[[RoundPlan], SecAggParameters],
    degree: Callable[[int], Degree],
    quorum: Callable[[int], int],
    *,
    active: bool,
    forgets: bool,
    corrupt: float,
    opens: Opens,
    figures: Callable[[int], str],
) -> Guarantee[Liars]:
    """The guarantee of a real run, semi-honest or ``active``; ``forgets``: clients keep nothing of
    a round.
    """
    what = "{t} of the {k} clients that share keys with a client"
    holders = Coalition.of("server", some=Some(what, _around(parameters)))
    told = [
        Lie(
            Coalition.of("server"),
            "choose" if active else "read",
            "swaps the keys of a client's neighbours for its own"
            + (", which the client notices and leaves" if active else ""),
            swaps_keys,
            active,
        ),
        *lies.of_any_sum(lambda plan: quorum(plan.n), "quorum"),
        lies.skips_its_clip("shift", "nobody sees a single input"),
        Lie(
            Coalition.of("client/0"),
            "abort",
            "deals shares that do not open",
            deals_wrong_shares,
        ),
        lies.sends_garbage(),
    ]
    if forgets:
        told.insert(0, Lie(holders, "read", "keeps the round's secrets", keeps_its_secrets(opens)))
    return Guarantee(
        reads=() if forgets else (holders,),
        lies=tuple(told),
        leaks=("who takes part", DIGITS, LAST, CHOSEN),
        assumes=(
            *((TRUE_KEYS,) if active else ("a server that follows the protocol",)),
            ENTERED,
            MAIL,
            *(("clients that forget a round's secrets when it ends",) if forgets else ()),
        ),
        shows="only the sum of {count} updates",
        settings=lambda n: {
            **_settings(degree(n), quorum(n), "active" if active else "semi_honest", corrupt),
            "privacy fails": figures(n),
        },
    )


def ideal_guarantee(
    trusted: PartyId,
    degree: Callable[[int], Degree],
    quorum: Callable[[int], int],
    mode: str,
    corrupt: float,
) -> Guarantee[Liars]:
    """The guarantee of an ideal run: of the trusted party's functionality, and of nothing else."""
    return Guarantee(
        reads=(Coalition.of(trusted),),
        lies=(
            lies.publishes_another(),
            lies.skips_its_clip("shift", "nobody checks a single input"),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", DIGITS, LAST),
        assumes=("a trusted party, which only a simulator has",),
        shows="only the sum of {count} updates",
        fidelity="ideal",
        settings=lambda n: _settings(degree(n), quorum(n), mode, corrupt),
    )


def _around(
    parameters: Callable[[RoundPlan], SecAggParameters],
) -> Callable[[RoundPlan], Mapping[ClientId, Quota]]:
    def around(plan: RoundPlan) -> dict[ClientId, Quota]:
        now = parameters(plan)
        everybody = range(plan.n)  # clients that draw their neighbours themselves tell nobody whom
        return {
            client: Quota(
                min(now.degree.t, now.degree.k),
                tuple(
                    client_party(plan.cohort[j])
                    for j in (everybody if now.chosen else now.neighbours(i))
                    if j != i
                ),
            )
            for i, client in enumerate(plan.cohort)
        }

    return around


def _settings(degree: Degree, quorum: int, mode: str, corrupt: float) -> dict[str, str]:
    return {
        "mode": mode,
        "share holders": f"{degree.k} of the other clients for each client",
        "corrupt": f"{corrupt:.0%} of the cohort may collude with the server",
        "quorum": f"{quorum} clients, fewer are never summed",
        "threshold": f"{degree.t} of a client's {degree.shares} shares open its secrets",
    }
