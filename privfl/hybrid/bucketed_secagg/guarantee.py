"""What secure aggregation in groups promises: what `SecAgg` does in each group, and what groups
add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from privfl.core import (
    Cast,
    ClientId,
    Coalition,
    ConfigError,
    Guarantee,
    Liars,
    Lie,
    Quota,
    RoundPlan,
    Some,
    Vector,
    client_party,
)
from privfl.crypto import lies
from privfl.crypto.secagg import Degree
from privfl.crypto.secagg.lies import deals_wrong_shares, swapper
from privfl.hybrid.bucketed_secagg.server import BucketedServerParty

Groups = Callable[[RoundPlan], Sequence[Sequence[ClientId]]]
HABITS = "over rounds, what is lasting in a client's updates (sums of changing groups solve for it)"


def bucketed_guarantee(
    groups: Groups,
    size: int,
    degree: Callable[[int], Degree],
    quorum: Callable[[int], int],
) -> Guarantee[Liars]:
    """The guarantee of groups of ``size``, in each of which ``degree(n).t`` shares open secrets."""
    enough = min(degree(size).t, size - 1)
    what = f"enough others of a client's group ({enough} in a group of {size})"
    return Guarantee(
        reads=(Coalition.of("server", some=Some(what, _around(groups, degree))),),
        lies=(
            Lie(
                Coalition.of("server"),
                "read",
                "swaps the keys of a client's group for its own",
                swaps_keys_in_a_group(groups),
            ),
            lies.publishes_another(),
            lies.skips_its_clip("shift", "nobody sees an input: its group's mean is what it likes"),
            Lie(
                Coalition.of("client/0"),
                "choose" if quorum(size) < size else "nothing",
                "deals shares that do not open, so that its group is left out",
                deals_wrong_shares,
            ),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", "every group's mean", "who is in which group", HABITS),
        assumes=(
            "a server that follows the protocol",
            "a seed of the groups that was agreed before a cohort was known",
            lies.ENTERED,
            lies.MAIL,
        ),
        shows="the means of {rows} groups of clients",
        settings=lambda n: {
            "mode": "semi_honest",
            "groups": f"{n // size} of {size} clients or more",
            "quorum": f"{quorum(size)} clients of a group, fewer are never summed",
            "threshold": f"{degree(size).t} of a group's {size} open a client's secrets",
        },
    )


def _around(
    groups: Groups, degree: Callable[[int], Degree]
) -> Callable[[RoundPlan], Mapping[ClientId, Quota]]:
    def around(plan: RoundPlan) -> dict[ClientId, Quota]:
        return {
            client: Quota(
                min(degree(len(group)).t, len(group) - 1),
                tuple(client_party(other) for other in group if other != client),
            )
            for group in groups(plan)
            for client in group
        }

    return around


def swaps_keys_in_a_group(groups: Groups) -> Callable[[], Liars]:
    """The server, which swaps the keys of the last client's group.

    Raises:
        ConfigError: the party is no server of groups.
    """

    def how() -> Liars:
        took: dict[ClientId, Vector] = {}

        def enter(plan: RoundPlan, honest: Cast) -> Cast:
            who = lies.victim(plan, honest)
            at = next(i for i, group in enumerate(groups(plan)) if who in group)
            server = honest["server"]
            if not isinstance(server, BucketedServerParty):
                raise ConfigError(f"{type(server).__name__} is no server of groups.")
            server.servers[at] = swapper(server.servers[at], who, took)
            return honest

        return Liars(enter=enter, took=lambda published: took)

    return how
