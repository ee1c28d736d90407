"""What a channel, a hybrid or a mechanism promises, as data from which every sentence is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from privfl.core.coalition import Coalition
from privfl.core.opened import Opened, Rows, Total
from privfl.core.protocol import Party
from privfl.core.types import ClientId, PartyId, Vector, client_of, client_party
from privfl.core.update import Bounded, RoundPlan

T = TypeVar("T")
Power: TypeAlias = Literal["nothing", "abort", "choose", "shift", "read"]
"""What a lie can do, from least to most: nothing (the liar's own bounded contribution aside), end
the round, choose whose contributions count, shift the result by what nobody contributed, or read a
single update.
"""
POWERS: tuple[Power, ...] = ("nothing", "abort", "choose", "shift", "read")
DOES: Mapping[Power, str] = {
    "nothing": "nothing comes of it for the others",
    "abort": "can end the round",
    "choose": "can choose whose contributions count",
    "shift": "can shift the result",
    "read": "can read a single update",
}
"""What comes of a lie, in words."""
FOLLOWS = "follows the protocol, and looks"
"""What those do who read by no lie."""
Fidelity: TypeAlias = Literal["real", "ideal"]
"""Whether the protocol runs, or a simulator's trusted party computes what it would."""
UNFORGED = "mail that nobody forges on its way (mail: signed sees to it)"
"""What a protocol assumes of bare mail; of signed letters it assumes `TRUE_KEYS` instead."""
TRUE_KEYS = "a directory with everybody's true keys"
OUTSIDER: PartyId = "outsider"
"""Whoever taps every wire. Mail to the server is signed and not sealed, so a tap stands in for the
server wherever the server's mail, and no secret of its own, is what a coalition needs; but for
protocols that seal it themselves.
"""

Cast: TypeAlias = Mapping[PartyId, Party]
"""Parties by name."""


def _as_they_are(honest: Cast) -> Cast:
    return honest


def _as_trained(update: Bounded) -> Bounded:
    return update


def _the_protocol(plan: RoundPlan, honest: Cast) -> Cast:
    return honest


def _as_opened(opened: Opened[Rows | Total] | None) -> Opened[Rows | Total] | None:
    return opened


def _nothing(published: Opened[Rows | Total] | None) -> Mapping[ClientId, Vector]:
    return {}


@dataclass(frozen=True, slots=True)
class Liars:
    """What the parties of one lie do in place of the protocol; a field that is left out is honest.

    ``set_up`` and ``enter`` are given the honest parties of those who lie, in the key set-up and in
    the round, and return the ones that take their places. ``update``: what a lying client hands to
    its own party. ``publish``: what a lying server says it opened. ``took``: single updates [d] of
    others as the liars have computed them when the round is over, also from what was published.
    """

    set_up: Callable[[Cast], Cast] = _as_they_are
    update: Callable[[Bounded], Bounded] = _as_trained
    enter: Callable[[RoundPlan, Cast], Cast] = _the_protocol
    publish: Callable[[Opened[Rows | Total] | None], Opened[Rows | Total] | None] = _as_opened
    took: Callable[[Opened[Rows | Total] | None], Mapping[ClientId, Vector]] = _nothing


@dataclass(frozen=True, slots=True)
class Lie(Generic[T]):
    """One way to lie: who, the most that it can do, what it does in words, and the lie itself.

    ``how`` makes what tells it, once: `Liars` of a channel, a lying mechanism of a mechanism.
    `privfl.testing.what_it_does` plays it through the real parties and measures what came of it.
    ``leaves_out``: what comes of it is that clients are left out, and nothing else.
    """

    who: Coalition
    can: Power
    does: str
    how: Callable[[], T] = field(repr=False, compare=False)
    leaves_out: bool = False

    def describe(self) -> str:
        """The lie in a sentence."""
        who = self.who.describe()
        return f"{who[0].upper()}{who[1:]}, if it {self.does}: {DOES[self.can]}."


@dataclass(frozen=True, slots=True)
class Guarantee(Generic[T]):
    """Who may collude, who may lie and what the lie can do, what leaks, what is assumed.

    ``reads``: the least coalitions that read a ``hidden`` value (a single update) when all follow
    the protocol; any smaller coalition reads no more than the result and what leaks. ``lies``: ways
    not to follow it, each with the most that it can do. ``leaks``: what is shown beside the result.
    ``assumes``: what must hold, in words. ``shows``: what the server reads in an honest round,
    where "{count}" stands for how many updates, "{rows}" for how many rows and "{disclosed}" for
    what is disclosed by name. ``tapped``: whether mail to the server can be read on its way.
    ``unsigned``: what whoever carries the mail can do by writing in others' names where letters are
    not signed, where a claim about lying parties would be nothing without signatures.
    ``settings``: the mode, and the numbers that a cohort of n makes of
    thresholds and quorums, by name.

    >>> said = Guarantee((Coalition.of("decryptor/0"),), (), ("who takes part",), ())
    >>> said.describe()
    'Single updates are read by decryptor/0. Leaks: who takes part. Assumes: nothing.'
    """

    reads: tuple[Coalition, ...]
    lies: tuple[Lie[T], ...]
    leaks: tuple[str, ...]
    assumes: tuple[str, ...]
    shows: str = "every update"
    hidden: str = "single updates"
    fidelity: Fidelity = "real"
    settings: Callable[[int], Mapping[str, str]] = field(
        default=lambda n: {}, repr=False, compare=False
    )
    tapped: bool = True
    unsigned: str = ""

    def victims(self, who: Collection[PartyId], plan: RoundPlan) -> frozenset[ClientId]:
        """Whose single updates a coalition reads in a round that all follow; `OUTSIDER` in it
        stands in for the server where mail to the server is ``tapped``.
        """
        seen = {*who, "server"} if OUTSIDER in who and self.tapped else set(who)
        return frozenset[ClientId]().union(*(c.victims(seen, plan) for c in self.reads))

    def liars(self) -> dict[str, Power]:
        """The most that one party can do by lying alone, by party in words."""
        alone = {lie.who.describe(): lie.who for lie in self.lies if lie.who.some is None}
        return {
            words: max((lie.can for lie in self.lies if lie.who == who), key=POWERS.index)
            for words, who in alone.items()
            if len(who.parties) == 1
        }

    def one_liar(self, plan: RoundPlan) -> str:
        """What the server or one helper gets of a round by lying alone, in words: the most that any
        of them can do, and who.

        >>> lie = Lie(Coalition.of("server"), "shift", "adds to the sum", lambda: Liars())
        >>> said = Guarantee((Coalition.of("server", "dealer"),), (lie,), (), ())
        >>> said.one_liar(RoundPlan(0, (1, 2), d=1, l2=1.0))
        'can shift the result (server)'
        """
        if self.victims({"server"}, plan):
            return "reads every update, without a lie"
        told: dict[PartyId, Power] = {}
        for lie in self.lies:
            who = "".join(lie.who.parties) if len(lie.who.parties) == 1 else ""
            if who and lie.who.some is None and client_of(who) is None:
                told[who] = max(told.get(who, "nothing"), lie.can, key=POWERS.index)
        most: Power = max(told.values(), key=POWERS.index, default="nothing")
        return f"{DOES[most]} ({', '.join(who for who, can in told.items() if can == most)})"

    def server_reads(
        self, count: int | None = None, rows: int | None = None, disclosed: Iterable[str] = ()
    ) -> str:
        """What the server reads of a round, in words: of so many updates, in so many ``rows``, with
        what was ``disclosed`` by name; of any round where nothing is said.

        >>> sums = Guarantee((), (), (), (), shows="only the sum of {count} updates")
        >>> sums.server_reads(), sums.server_reads(5)
        ("only the sum of a round's updates", 'only the sum of 5 updates')
        """
        named = ", ".join(sorted(disclosed))
        return self.shows.format(
            count="a round's" if count is None else count,
            rows="the" if rows is None else rows,
            disclosed=named or ("what leaks" if count is None else "nothing else"),
        )

    def needing(self, fraction: float | None) -> Guarantee[T]:
        """The same where a round needs this fraction of its cohort: where it needs everybody, a lie
        that leaves a client out ends it.

        >>> garbage = Lie(Coalition.of("client/0"), "nothing", "lies", lambda: Liars(), True)
        >>> said = Guarantee((), (garbage,), (), ())
        >>> said.needing(0.5).liars(), said.needing(1.0).liars()
        ({'a client': 'nothing'}, {'a client': 'abort'})
        """
        if fraction is None or fraction < 1:
            return self
        ends = "; everybody is needed, so the round ends"
        told = [
            replace(lie, can="abort", does=lie.does + ends) if lie.leaves_out else lie
            for lie in self.lies
        ]
        return replace(self, lies=tuple(told))

    def under(self, noise: Guarantee[Any] | None) -> Guarantee[T]:
        """The same of a channel that carries noise: what the noise assumes is assumed as well."""
        if noise is None:
            return self
        return replace(self, assumes=(*self.assumes, *noise.assumes))

    def signed(self) -> Guarantee[T]:
        """The same where every letter is signed by its sender (`crypto.post`): nobody forges mail
        as long as the directory is true.

        >>> Guarantee((), (), (), (UNFORGED, "a clip")).signed().assumes
        ("a directory with everybody's true keys", 'a clip')
        """
        held = [TRUE_KEYS if assumed == UNFORGED else assumed for assumed in self.assumes]
        return replace(self, assumes=tuple(dict.fromkeys(held)), unsigned="")

    @property
    def measured(self) -> bool:
        """Whether bytes and seconds that were measured are those of the protocol."""
        return self.fidelity == "real"

    def read_by(self, plan: RoundPlan | None = None) -> str:
        """Who reads single updates, in words: with the numbers of a round where one is given."""
        return ", or ".join(coalition.describe(plan) for coalition in self.reads) or "nobody"

    def told(self, plan: RoundPlan | None = None) -> list[dict[str, str]]:
        """Who can do what: one line for each coalition that reads and for each lie, with the
        numbers of a round where one is given.
        """
        lines = [
            {
                "who": coalition.describe(plan),
                "does": FOLLOWS,
                "can": f"read {self.hidden}",
            }
            for coalition in self.reads
        ]
        return lines + [
            {"who": lie.who.describe(plan), "does": lie.does, "can": DOES[lie.can]}
            for lie in sorted(self.lies, key=lambda lie: -POWERS.index(lie.can))
        ]

    def record(self, n: int) -> dict[str, Any]:
        """The guarantee for a cohort of n as plain data, for a run's summary and its report."""
        return {
            "fidelity": self.fidelity,
            "settings": dict(self.settings(n)),
            "who can do what": self.told(RoundPlan(0, tuple(range(n)), d=1, l2=1.0)),
            "in sentences": self.describe(),
            "leaks": list(self.leaks),
            "assumes": list(self.assumes),
            **({"over unsigned mail": self.unsigned} if self.unsigned else {}),
        }

    def adversaries(self, plan: RoundPlan) -> tuple[frozenset[PartyId], ...]:
        """Whom to ask what they see: every party that a coalition or a lie is made of, alone and
        with a client, and the least coalitions that read.
        """
        parties = {"server", *(p for lie in self.lies for p in lie.who.parties)}
        parties |= {p for coalition in self.reads for p in coalition.parties}
        helpers = sorted(party for party in parties - {"server"} if client_of(party) is None)
        client = client_party(plan.cohort[0])
        asked = [
            frozenset({OUTSIDER}),
            *(frozenset({party}) for party in ("server", *helpers, client)),
            *(frozenset({party, client}) for party in ("server", *helpers)),
            *(coalition.example(plan) for coalition in self.reads),
        ]
        return tuple(dict.fromkeys(asked))

    def describe(self) -> str:
        """The guarantee in sentences, the gravest lies first."""
        said = [IDEAL] if self.fidelity == "ideal" else []
        said.append(f"{self.hidden[0].upper()}{self.hidden[1:]} are read by {self.read_by()}.")
        if self.tapped and any("server" in coalition.parties for coalition in self.reads):
            said.append("Whoever taps the wires to the server reads what its mail shows.")
        said += [lie.describe() for lie in sorted(self.lies, key=lambda l: -POWERS.index(l.can))]
        said.append(f"Leaks: {', '.join(self.leaks) or 'nothing'}.")
        said.append(f"Assumes: {', '.join(self.assumes) or 'nothing'}.")
        if self.unsigned:
            said.append(self.unsigned)
        return " ".join(said)


IDEAL = (
    "IDEAL: no cryptography runs; a simulator's trusted party computes what the protocol would"
    " open, and costs measured of it say nothing about the protocol."
)
