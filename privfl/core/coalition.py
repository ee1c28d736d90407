"""Coalitions of parties, as data: who is in them, and how many of whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from privfl.core.types import ClientId, PartyId, client_of, client_party
from privfl.core.update import RoundPlan


class Quota(NamedTuple):
    """So many of these parties, whichever."""

    least: int
    among: tuple[PartyId, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """So many of the parties around a client, whichever they are.

    ``what`` says which, in words ("any 2 of 3 decryptors"), where "{t}" and "{k}" stand for how
    many of how many; ``around`` says for every client of a round how many of whom are enough
    against this client.
    """

    what: str
    around: Callable[[RoundPlan], Mapping[ClientId, Quota]] = field(repr=False, compare=False)

    @classmethod
    def of(cls, least: int, among: Iterable[PartyId], what: str) -> Some:
        """The same parties around every client.

        >>> two = Some.of(2, ("decryptor/0", "decryptor/1", "decryptor/2"), "any 2 of 3 decryptors")
        >>> two.around(RoundPlan(0, (7,), d=1, l2=1.0))[7].least
        2
        """
        quota = Quota(least, tuple(among))
        return cls(what, lambda plan: dict.fromkeys(plan.cohort, quota))

    @classmethod
    def others(cls, least: Callable[[int], int], what: str) -> Some:
        """So many of the other clients, from the size of the cohort.

        >>> Some.others(lambda n: n - 1, "all others").around(RoundPlan(0, (1, 2), d=1, l2=1.0))
        {1: Quota(least=1, among=('client/2',)), 2: Quota(least=1, among=('client/1',))}
        """

        def around(plan: RoundPlan) -> dict[ClientId, Quota]:
            return {
                client: Quota(
                    least(plan.n), tuple(client_party(c) for c in plan.cohort if c != client)
                )
                for client in plan.cohort
            }

        return cls(what, around)

    def describe(self, plan: RoundPlan | None = None) -> str:
        """Which parties, in words: with the numbers of a round, or with letters for them.

        >>> some = Some.others(lambda n: n - 1, "{t} of the {k} others")
        >>> some.describe(), some.describe(RoundPlan(0, (1, 2, 3), d=1, l2=1.0))
        ('t of the k others', '2 of the 2 others')
        """
        quotas = [] if plan is None else list(self.around(plan).values())
        if not quotas:
            return self.what.format(t="t", k="k")
        return self.what.format(
            t=_span(quota.least for quota in quotas), k=_span(len(q.among) for q in quotas)
        )


def _span(counts: Iterable[int]) -> str:
    seen = sorted(set(counts))
    return str(seen[0]) if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"


@dataclass(frozen=True, slots=True)
class Coalition:
    """Parties that act together: all of ``parties``, and ``some`` of others.

    >>> both = Coalition.of("server", "server/1")
    >>> plan = RoundPlan(0, (1, 2), d=1, l2=1.0)
    >>> both.describe(), sorted(both.victims({"server", "server/1", "client/2"}, plan))
    ('server with server/1', [1])
    """

    parties: frozenset[PartyId] = frozenset()
    some: Some | None = None

    @classmethod
    def of(cls, *parties: PartyId, some: Some | None = None) -> Coalition:
        """These parties, and some of others."""
        return cls(frozenset(parties), some)

    def victims(self, who: Collection[PartyId], plan: RoundPlan) -> frozenset[ClientId]:
        """The clients outside of ``who`` against whom ``who`` is such a coalition."""
        if not self.parties <= set(who):
            return frozenset()
        honest = [client for client in plan.cohort if client_party(client) not in who]
        if self.some is None:
            return frozenset(honest)
        quotas = self.some.around(plan)
        return frozenset(
            client
            for client in honest
            if client in quotas
            and len(set(quotas[client].among).intersection(who)) >= quotas[client].least
        )

    def example(self, plan: RoundPlan) -> frozenset[PartyId]:
        """One such coalition of a round, the least: against the last client against whom there is
        one.
        """
        if self.some is None:
            return self.parties
        client, quota = list(self.some.around(plan).items())[-1]
        free = [p for p in quota.among if p not in self.parties and p != client_party(client)]
        return self.parties.union(free[: quota.least - len(self.parties.intersection(quota.among))])

    def describe(self, plan: RoundPlan | None = None) -> str:
        """The coalition in words, with the numbers of a round where one is given."""
        named = sorted(self.parties, key=lambda party: (party != "server", party))
        words = [_name(party) for party in named]
        if self.some is not None:
            words.append(self.some.describe(plan))
        return " with ".join(words)


def _name(party: PartyId) -> str:
    return "a client" if client_of(party) is not None else party
