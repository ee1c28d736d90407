"""What secure aggregation in groups promises: what `SecAgg` does in each group, and what groups
add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from privfl.core import (
    TRUE_KEYS,
    Cast,
    ClientId,
    Coalition,
    ConfigError,
    Guarantee,
    KeepsSecrets,
    Liars,
    Lie,
    Mail,
    Opened,
    Quota,
    RoundPlan,
    Rows,
    Some,
    Vector,
    client_party,
)
from privfl.crypto import lies
from privfl.crypto.secagg import Degree
from privfl.crypto.secagg.lies import deals_wrong_shares, swapper
from privfl.hybrid.bucketed_secagg.coin import PRESENT, CoinServer
from privfl.hybrid.bucketed_secagg.server import BucketedServerParty

Groups = Callable[[RoundPlan], Sequence[Sequence[ClientId]]]
HABITS = "over rounds, what is lasting in a client's updates (sums of changing groups solve for it)"


def bucketed_guarantee(
    groups: Groups | None,
    size: int,
    degree: Callable[[int], Degree],
    quorum: Callable[[int], int],
    *,
    active: bool,
) -> Guarantee[Liars]:
    """The guarantee of groups of ``size``, in each of which ``degree(n).t`` shares open secrets,
    and sums of fewer than ``quorum(n)`` stay closed; ``groups``: None for a joint coin.
    """
    enough, alone = min(degree(size).t, size - 1), quorum(size) - 1
    what = f"enough others of a client's group ({enough} in a group of {size})"
    told = "a client's neighbours" if active else "a client's group"
    leaves = Lie(
        Coalition.of("server", some=Some(_friends(alone, size), _around(groups, size, alone))),
        "read",
        "says of all others of a group but one that they dropped out",
        leaves_one_of_a_group,
    )
    return Guarantee(
        reads=(Coalition.of("server", some=Some(what, _around(groups, size, enough, degree))),),
        lies=(
            Lie(
                Coalition.of("server"),
                "choose" if active else "read",
                f"swaps the keys of {told} for its own"
                + (", which the client notices and leaves" if active else ""),
                swaps_keys_in_a_group(),
            ),
            *((leaves,) if alone < enough else ()),
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
            TRUE_KEYS if active else "a server that follows the protocol",
            *(
                (f"a cohort of whom {PRESENT:.0%} are there when its groups are drawn",)
                if groups is None
                else (
                    "a seed of the groups that was agreed before a cohort was known, and a server"
                    " that does not pick cohorts by it",
                )
            ),
            lies.ENTERED,
            lies.MAIL,
        ),
        shows="the means of {rows} groups of clients",
        settings=lambda n: {
            "mode": "active" if active else "semi_honest",
            "groups drawn by": "a joint coin" if groups is None else "a seed",
            "groups": f"{n // size} of {size} clients or more",
            "quorum": f"{quorum(size)} clients of a group, fewer are never summed",
            "threshold": f"{degree(size).t} of a group's {size} open a client's secrets",
        },
    )


def _friends(least: int, size: int) -> str:
    return f"one fewer than a quorum of a client's group ({least} in a group of {size})"


def _around(
    groups: Groups | None,
    size: int,
    least: int,
    degree: Callable[[int], Degree] | None = None,
) -> Callable[[RoundPlan], Mapping[ClientId, Quota]]:
    """So many of the others of each client's group, ``degree`` giving the number for larger groups;
    of the whole cohort where nobody knows the groups before the round.
    """

    def of(group: Sequence[ClientId]) -> dict[ClientId, Quota]:
        n = len(group)
        many = least + n - size if degree is None else min(degree(n).t, n - 1)
        among = {c: tuple(client_party(other) for other in group if other != c) for c in group}
        return {c: Quota(min(many, n - 1), among[c]) for c in group}

    def around(plan: RoundPlan) -> dict[ClientId, Quota]:
        if groups is None:
            return {c: Quota(least, quota.among) for c, quota in of(plan.cohort).items()}
        return {c: quota for group in groups(plan) for c, quota in of(group).items()}

    return around


def leaves_one_of_a_group() -> Liars:
    """A server that hears its own clients and one more: of all groups that one alone opens."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        last = client_party(lies.victim(plan, honest))
        server = honest["server"]
        return {**honest, "server": lies.Hears(server, lambda sender: sender in (*honest, last))}

    return Liars(enter=enter)


@dataclass(repr=False)
class SwapsOnceDrawn(KeepsSecrets):
    """A server whose groups are not drawn yet: it swaps keys in the group that its victim gets."""

    honest: CoinServer
    who: ClientId
    took: dict[ClientId, Vector]
    done: bool = False

    def step(self, mail: Mail) -> Mail:
        """What the server says, its victim's group in the hands of a swapper."""
        out = self.honest.step(mail)
        if self.honest.party is not None and not self.done:
            _swap(self.honest.party, self.who, self.took)
            self.done = True
        return out

    @property
    def result(self) -> Opened[Rows] | None:
        """What the others' groups opened."""
        return self.honest.result


def _swap(server: BucketedServerParty, who: ClientId, took: dict[ClientId, Vector]) -> None:
    at = next(i for i, group in enumerate(server.groups) if who in group)
    server.servers[at] = swapper(server.servers[at], who, took)


def swaps_keys_in_a_group() -> Callable[[], Liars]:
    """The server, which swaps the keys of the last client's group.

    Raises:
        ConfigError: the party is no server of groups.
    """

    def how() -> Liars:
        took: dict[ClientId, Vector] = {}

        def enter(plan: RoundPlan, honest: Cast) -> Cast:
            who, server = lies.victim(plan, honest), honest["server"]
            if isinstance(server, CoinServer):
                return {**honest, "server": SwapsOnceDrawn(server, who, took)}
            if not isinstance(server, BucketedServerParty):
                raise ConfigError(f"{type(server).__name__} is no server of groups.")
            _swap(server, who, took)
            return honest

        return Liars(enter=enter, took=lambda published: took)

    return how
