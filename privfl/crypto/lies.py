"""Lies that can be told in any protocol: silence, garbage, a contribution that is too long, a
result that nobody opened, clients shut out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import torch

from privfl.core import (
    UNFORGED,
    Bounded,
    Cast,
    ClientId,
    Coalition,
    KeepsSecrets,
    Liars,
    Lie,
    Mail,
    Opened,
    Party,
    PartyId,
    Power,
    RoundPlan,
    Rows,
    Silent,
    Some,
    Total,
    client_of,
    client_party,
)

DIGITS = "where clients weigh differently, the sum of each digit of their weights"
"""More than the weights' sum says: how often low digits carry."""
LAST = "the sum itself: who knows all contributions but one reads that one"
CHOSEN = "which clients are summed, a set that the server can pick anew in every round"
ENTERED = "every party enters a round and part once"
MAIL = UNFORGED
TIMES = 10.0
"""How many times too long a contribution is that skips its clip."""


@dataclass(repr=False)
class Alters(KeepsSecrets):
    """The honest party, whose letters are changed before they leave: by receiver and body."""

    honest: Party
    change: Callable[[PartyId, bytes], bytes]

    def step(self, mail: Mail) -> Mail:
        """What the honest party says, changed."""
        return {to: self.change(to, bytes(body)) for to, body in self.honest.step(mail).items()}


@dataclass(repr=False)
class Hears(KeepsSecrets):
    """The honest party, which is handed only the mail that ``keep`` lets through."""

    honest: Party
    keep: Callable[[PartyId], bool]
    begun: bool = field(default=False)

    def step(self, mail: Mail) -> Mail:
        """What the honest party makes of the rest; nothing where there is none."""
        rest = {who: body for who, body in mail.items() if self.keep(who)}
        if self.begun and not rest:
            return {}
        self.begun = True
        return self.honest.step(rest)


@dataclass(repr=False)
class TakesNotes(KeepsSecrets):
    """The honest party, all of whose mail is kept."""

    honest: Party
    mail: list[Mail] = field(default_factory=list)

    def step(self, mail: Mail) -> Mail:
        """What the honest party says."""
        self.mail.append({who: bytes(body) for who, body in mail.items()})
        return self.honest.step(mail)


def each(how: Callable[[Party], Party]) -> Callable[[], Liars]:
    """Every liar's party in the round replaced by what this makes of it."""
    return lambda: Liars(enter=lambda plan, honest: {w: how(p) for w, p in honest.items()})


def falls_silent(who: PartyId, can: Power) -> Lie[Liars]:
    """A party that takes no part in the round."""
    return Lie(Coalition.of(who), can, "falls silent", each(lambda honest: Silent()))


def sends_garbage(who: PartyId = "client/0", can: Power = "nothing") -> Lie[Liars]:
    """A party whose letters are bytes that mean nothing."""
    how = each(lambda honest: Alters(honest, lambda to, body: b"\xff" * len(body)))
    return Lie(Coalition.of(who), can, "sends garbage, and is left out by name", how, True)


def skips_its_clip(can: Power, why: str, *, refused: bool = False) -> Lie[Liars]:
    """A client whose contribution is far longer than the round allows; ``why`` it can do what it
    can. ``refused``: it is left out.
    """
    return Lie(
        Coalition.of("client/0"),
        can,
        f"skips its clip ({why})",
        lambda: Liars(
            update=lambda honest: Bounded.claimed(
                honest.client, TIMES * honest.delta, honest.l2, honest.weight
            )
        ),
        refused,
    )


def publishes_another() -> Lie[Liars]:
    """A server that says that it opened something else: nobody but itself sees what it opened."""
    return Lie(
        Coalition.of("server"),
        "shift",
        "publishes another result than it opened",
        lambda: Liars(publish=_moved),
    )


def _moved(opened: Opened[Rows | Total] | None) -> Opened[Rows | Total] | None:
    if opened is None:
        return None
    what = opened.what
    if isinstance(what, Total):
        return replace(opened, what=replace(what, value=what.value + _foreign(what.value)))
    return replace(opened, what=replace(what, values=what.values + _foreign(what.values[0])))


def _foreign(like: torch.Tensor) -> torch.Tensor:
    """A vector that no mean of contributions is near to."""
    shift = torch.zeros_like(like)
    shift[0] = 10 * (1 + float(like.norm()))
    return shift


def shuts_out(least: Callable[[RoundPlan], int], rule: str, who: PartyId = "server") -> Lie[Liars]:
    """A party that goes on with the fewest clients whom it may, and with whom it likes; ``rule``
    says in words how many these are.
    """
    return Lie(
        Coalition.of(who),
        "choose",
        f"shuts clients out, and goes on with as few as the rules allow ({rule})",
        with_the_fewest(lambda plan: min(least(plan), plan.n - 1), who),  # one at least
        True,
    )


def leaves_one(least: Callable[[RoundPlan], int], rule: str, who: PartyId = "server") -> Lie[Liars]:
    """The same party with colluding clients, one fewer than the least that are summed: what opens,
    less what they sent, is one client's.
    """

    def all_but_one(n: int) -> int:
        return least(RoundPlan(0, tuple(range(n)), d=1, l2=1.0)) - 1

    return Lie(
        Coalition.of(who, some=Some.others(all_but_one, f"{rule} - 1 colluding clients")),
        "read",
        "shuts out all others but one",
        with_the_fewest(least, who),
    )


def of_any_sum(
    least: Callable[[RoundPlan], int], rule: str
) -> tuple[Lie[Liars], Lie[Liars], Lie[Liars]]:
    """What a server can do wherever it hears who is there and a sum opens: leave clients out, alone
    or with others' help, and publish what it likes.
    """
    return (
        leaves_one(least, rule),
        publishes_another(),
        shuts_out(least, rule),
    )


def with_the_fewest(
    least: Callable[[RoundPlan], int], who: PartyId = "server"
) -> Callable[[], Liars]:
    """A party that hears its own clients and as few others as are summed."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        own = {c for c in map(client_of, honest) if c is not None}
        kept = _first(plan, own, least(plan))
        return {
            **honest,
            who: Hears(honest[who], lambda sender: client_of(sender) in (None, *kept)),
        }

    return lambda: Liars(enter=enter)


def _first(plan: RoundPlan, own: Collection[ClientId], count: int) -> tuple[ClientId, ...]:
    """So many clients, one's own first and then the last of the cohort."""
    others = [client for client in reversed(plan.cohort) if client not in own]
    return (*own, *others[: count - len(own)])


def victim(plan: RoundPlan, liars: Collection[PartyId]) -> ClientId:
    """Whom liars pick where they pick one: the last client that is none of them."""
    return next(c for c in reversed(plan.cohort) if client_party(c) not in liars)
