"""What every protocol of a cohort asks alike: whether a round is entered again, whose place a
message claims, which keys a party has, and whether enough clients are left.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from privfl.core import (
    ClientId,
    ConfigError,
    KnownKeys,
    PartyId,
    RoundPlan,
    client_of,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives.fields import Malformed

_NAMED = 8


@dataclass
class Entered:
    """The rounds that a member entered, each part of one once."""

    parts: set[tuple[bytes, int, str]] = field(default_factory=set)

    def why_not(self, plan: RoundPlan) -> str | None:
        """Note that a round is entered; or why it must not be, where it was before.

        >>> entered, plan = Entered(), RoundPlan(0, (1, 2), d=3, l2=1.0)
        >>> entered.why_not(plan), bool(entered.why_not(plan))
        (None, True)
        """
        this = (plan.session, plan.number, plan.part)
        if this in self.parts:
            return (
                f"round {plan.number} was entered before: two answers about the same updates could"
                " open one of them"
            )
        self.parts.add(this)
        return None


def member_of(plan: RoundPlan, who: PartyId) -> ClientId:
    """The client that a party is.

    Raises:
        Malformed: it is none of the cohort's.
    """
    client = client_of(who)
    if client is None or client not in plan.cohort:
        raise Malformed("not in the cohort")
    return client


def place_of(plan: RoundPlan, client: ClientId) -> int:
    """A client's place in the cohort.

    Raises:
        ConfigError: it has none.
    """
    if client not in plan.cohort:
        raise ConfigError(f"round {plan.number}: client {client} is not in the cohort.")
    return plan.cohort.index(client)


def own_place(plan: RoundPlan, client: ClientId, position: int) -> None:
    """Refuse a message that claims another's place in the cohort.

    Raises:
        Malformed: it does.
    """
    if position >= plan.n or plan.cohort[position] != client:
        raise Malformed("it claims another client's place")


def boxes_of(directory: KnownKeys, who: PartyId) -> tuple[bytes, ...]:
    """The keys [32 bytes] to which boxes for a party are sealed.

    Raises:
        ConfigError: the directory knows none.
    """
    boxes = directory.boxes(who)
    if not boxes:
        raise ConfigError(
            f"the directory knows no key of {who}: enter its identity before a round begins."
        )
    return boxes


def enough(plan: RoundPlan, quorum: int, stage: str, left: Collection[int]) -> None:
    """Refuse to go on with fewer contributions, by place, than the quorum.

    Raises:
        StageAbort: fewer are left; it names who is lost.
    """
    if len(left) < quorum:
        lost = [client_party(client) for i, client in enumerate(plan.cohort) if i not in left]
        why = (
            f"{len(left)} of {plan.n} clients are left, and the threshold is {quorum}; lost:"
            f" {', '.join(lost[:_NAMED])}"
        )
        raise StageAbort(stage, why, who=lost)
