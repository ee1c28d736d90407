"""The scored suite: lying servers and clients against secure aggregation, carried out through the
real parties; per attack who refused it, at which message, and what leaked.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from privfl.audit.protocol.clients import DealsWrongly, Garbles
from privfl.audit.protocol.islands import IslandServer
from privfl.audit.protocol.servers import AsksEarly, Edit, EditsLetters, told
from privfl.core import (
    NO_FAULTS,
    Bounded,
    ClientId,
    ConfigError,
    Faults,
    Opener,
    Outcome,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    Total,
    client_party,
    drive,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import graph, wire
from privfl.crypto.secagg.channel import SecAgg
from privfl.crypto.secagg.client import SecAggClientParty
from privfl.crypto.secagg.server import SecAggServerParty
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.sharing import shamir

D = 4
VICTIM = 0
DOWN = (Kind.KEYS, Kind.INBOX, Kind.SURVIVORS, Kind.SIGNATURES)
UP = (Kind.ADVERTISE, Kind.SHARES, Kind.MASKED, Kind.CONSISTENCY, Kind.UNMASK)


@dataclass(frozen=True, slots=True)
class ScoredAttack:
    """What came of one attack. ``leaked`` is "nothing", "a sum of m of n" (m at least the quorum:
    what an honest round shows), or what should not be: "a sum of m, below the quorum", "a single
    update", "both secrets of a client". ``broken``: whether it is one of these.
    """

    attack: str
    n: int
    refused_by: str
    at: str
    leaked: str
    broken: bool

    def row(self) -> dict[str, Any]:
        """A line of the table."""
        return {
            "attack": self.attack,
            "n": self.n,
            "refused by": self.refused_by,
            "at": self.at,
            "leaked": self.leaked,
            "broken": self.broken,
        }


@dataclass(frozen=True)
class AttackedRound:
    """A round of n clients of a channel, and as many tries at it as there are attacks."""

    channel: SecAgg
    n: int

    @property
    def plan(self) -> RoundPlan:
        """The round."""
        return RoundPlan(0, tuple(range(self.n)), D, 1.0, session=b"suite", models=("a" * 64,))

    def enrolled(self) -> Enrolled[Total]:
        """Everybody, with new identities."""
        return Enrolled.fresh(self.channel, self.plan.cohort)

    def parties(
        self, everybody: Enrolled[Total], plan: Callable[[ClientId], RoundPlan] | None = None
    ) -> dict[PartyId, Party]:
        """The clients' parties, each in the plan that it was told."""
        asked = plan or (lambda client: self.plan)
        return {
            client_party(c): m.enter(asked(c), Bounded(c, torch.full((D,), 0.1), 1.0))
            for c, m in everybody.clients.items()
        }

    def server(self, everybody: Enrolled[Total]) -> SecAggServerParty:
        """The honest server's party.

        Raises:
            ConfigError: the channel is an ideal run, of which there is nothing to attack.
        """
        server = everybody.server.enter(self.plan)
        if not isinstance(server, SecAggServerParty):
            raise ConfigError(
                "channel.fidelity: ideal has no parties that could lie: set channel.fidelity: real."
            )
        return server

    def attacked(
        self,
        attack: str,
        lie: Callable[[SecAggServerParty], Opener[Total]],
        faults: Faults = NO_FAULTS,
        plan: Callable[[ClientId], RoundPlan] | None = None,
    ) -> ScoredAttack:
        """A round with this server and these faults, scored."""
        everybody = self.enrolled()
        parties = self.parties(everybody, plan)
        outcome = drive(lie(self.server(everybody)), parties, faults, keep_bodies=True)
        return self.score(attack, outcome, everybody)

    def score(
        self, attack: str, outcome: Outcome[Total], everybody: Enrolled[Total]
    ) -> ScoredAttack:
        """What an outcome says of an attack."""
        quorum = self.channel.fewest(self.n)
        seen = self.channel.decode(outcome.received({"server"}), {"server": everybody.server})
        leaked, broken = "nothing", False
        if isinstance(seen, Rows):
            leaked, broken = "a single update", True
        elif isinstance(seen, Total):
            broken = seen.count < quorum
            leaked = f"a sum of {seen.count}" + (", below the quorum" if broken else "")
        both = both_secrets(outcome, self.n, self.channel.degree(self.n).t)
        if both:
            leaked, broken = f"both secrets of {both} clients", True
        by, at = _refusals(outcome)
        return ScoredAttack(attack, self.n, by, at, leaked, broken)


def both_secrets(outcome: Outcome[Total], n: int, t: int) -> int:
    """Of how many clients the server was given t shares of the seed and t of the key."""
    seeds: Counter[int] = Counter()
    gone: Counter[int] = Counter()
    for message in outcome.messages:
        if message.receiver != "server" or not message.body:
            continue
        try:
            kind, _, _, content = wire.read(message.body)
            if kind is Kind.UNMASK:
                of_seeds, rest = fields.read_table(content, shamir.SIZE, n)
                of_keys, _ = fields.read_table(rest, shamir.SIZE, n)
                seeds.update(of_seeds.keys())
                gone.update(of_keys.keys())
        except fields.Malformed:
            continue
    return sum(seeds[c] >= t and gone[c] >= t for c in range(n))


def _refusals(outcome: Outcome[Total]) -> tuple[str, str]:
    who: list[str] = []
    clients = [a for w, a in outcome.aborts.items() if w != "server"]
    if clients:
        who.append(f"{len(clients)} clients")
    if outcome.opened is not None and outcome.opened.excluded:
        who.append("the server, by name")
    elif "server" in outcome.aborts:
        who.append("the server")
    stages = Counter(str(a).partition(":")[0].removeprefix("stage ") for a in clients)
    if not stages and "server" in outcome.aborts:
        stages = Counter([str(outcome.aborts["server"]).partition(":")[0].removeprefix("stage ")])
    if not stages and outcome.opened is not None:
        stages = Counter(
            why.partition(":")[0].removeprefix("stage ") for why in outcome.opened.excluded.values()
        )
    return ", ".join(who) or "nobody", ", ".join(sorted(stages)) or "-"


def attacks(channel: SecAgg, n: int) -> Iterator[ScoredAttack]:
    """Every attack of the suite on one channel and cohort, scored."""
    scene = AttackedRound(channel, n)
    yield scene.attacked("none: an honest round", lambda honest: honest)
    yield from _islands(scene)
    for kind in DOWN[: 4 if channel.active else 3]:
        yield scene.attacked(f"server: garbage for {kind.name}", _edits(_garbage(kind)))
    yield from _sets(scene)
    yield scene.attacked("server: models that differ", lambda h: h, plan=_baited(scene.plan))
    yield from _early(scene)
    yield _replayed(scene)
    liar = client_party(VICTIM)
    for kind in UP if channel.active else (*UP[:3], UP[4]):
        faults = Faults(byzantine={liar: _garbles(kind)})
        yield scene.attacked(f"client: garbage as {kind.name}", lambda h: h, faults)
    dealt = Faults(byzantine={liar: lambda p: DealsWrongly(_own(p), lambda h, s: b"\xff" * 64)})
    yield scene.attacked("client: shares outside of the field", lambda h: h, dealt)


def _own(party: Party) -> SecAggClientParty:
    if not isinstance(party, SecAggClientParty):
        raise ConfigError(f"{type(party).__name__} is no client of secure aggregation.")
    return party


def _noise(body: bytes) -> bytes:
    return body[: fields.HEADER] + secrets.token_bytes(len(body) - fields.HEADER)


def _edits(edit: Edit) -> Callable[[SecAggServerParty], EditsLetters]:
    return lambda honest: EditsLetters(honest, edit)


def _asks(kind: Kind, ask: Callable[[PartyId], bytes]) -> Callable[[SecAggServerParty], AsksEarly]:
    return lambda honest: AsksEarly(honest, kind, ask)


def _garbles(kind: Kind) -> Callable[[Party], Party]:
    return lambda party: Garbles(_own(party), kind, _noise)


def _garbage(kind: Kind) -> Edit:
    return lambda to, sent, body: _noise(body) if sent is kind else body


def _islands(scene: AttackedRound) -> Iterator[ScoredAttack]:
    """The server's friends are the corrupt share of the cohort, its last clients."""
    n, plan, channel = scene.n, scene.plan, scene.channel
    bad = range(n - graph.part_of(n, channel.corrupt), n)
    half = (n - len(bad)) // 2
    shown: Mapping[str, list[range]] = {
        "one victim among its friends": [range(VICTIM, VICTIM + 1)],
        "islands of 8": [range(8)],
        "two halves": [range(half), range(half, n - len(bad))],
    }
    for name, islands in shown.items():
        if sum(map(len, islands)) > n - len(bad):
            continue
        everybody = scene.enrolled()
        honest = scene.parties(everybody)

        def friends(everybody: Enrolled[Total] = everybody) -> Mapping[PartyId, Party]:
            made = {}
            for c in bad:
                who = client_party(c)
                member = channel.client(c, everybody.keys[who], everybody.directory)
                made[who] = member.enter(plan, Bounded(c, torch.zeros(D), 1.0))
            return made

        server = IslandServer.of(partial(scene.server, everybody), islands, friends)
        asked = {client_party(c): honest[client_party(c)] for island in islands for c in island}
        outcome = drive(server, asked)
        opened = [
            len({client_party(c) for c in o.survivors} & asked.keys())
            for o in server.opened
            if o is not None
        ]
        fewest = channel.fewest(n) - len(bad)
        broken = bool(opened) and (len(opened) > 1 or min(opened) < fewest)
        by, at = _refusals(outcome)
        if by == "nobody" and not opened:
            by = "nobody: too few to share keys"
        leaked = " and ".join(f"a sum of {count} honest" for count in opened) or "nothing"
        yield ScoredAttack(f"server: {name}", n, by, at, leaked, broken)


def _sets(scene: AttackedRound) -> Iterator[ScoredAttack]:
    """Lies about who shared keys and who survived, told to some and not to others."""
    n, victim = scene.n, client_party(VICTIM)
    some = {client_party(c) for c in range(0, n, 2)}
    everybody = frozenset(range(n))

    def lists(kind: Kind, to_whom: Callable[[PartyId], bool], listed: frozenset[int]) -> Any:
        def edit(to: PartyId, sent: Kind, body: bytes) -> bytes:
            return told(body, listed, n) if sent is kind and to_whom(to) else body

        return lambda honest: EditsLetters(honest, edit)

    one_less = everybody - {VICTIM}
    last_less = everybody - {n - 1}
    yield scene.attacked(
        "server: two survivor sets", lists(Kind.SURVIVORS, lambda to: to in some, last_less)
    )
    yield scene.attacked(
        "server: a living client listed dead, to others",
        lists(Kind.SURVIVORS, lambda to: to != victim, one_less),
    )
    yield scene.attacked(
        "server: a survivor set below the quorum",
        lists(Kind.SURVIVORS, lambda to: True, frozenset(range(scene.channel.fewest(n) - 1))),
    )
    gone = Faults(silent_from={victim: 4})
    dead = scene.attacked(
        "server: a dead client listed alive",
        lists(Kind.SURVIVORS, lambda to: True, everybody),
        gone,
    )
    yield dead
    yield scene.attacked(
        "server: two sets of who shared keys", lists(Kind.INBOX, lambda to: to in some, last_less)
    )


def _baited(plan: RoundPlan) -> Callable[[ClientId], RoundPlan]:
    bait = RoundPlan(
        plan.number, plan.cohort, plan.d, plan.l2, session=plan.session, models=("b" * 64,)
    )
    return lambda client: bait if client == VICTIM else plan


def _early(scene: AttackedRound) -> Iterator[ScoredAttack]:
    now, n = scene.channel.parameters(scene.plan), scene.n

    def ask(to: PartyId) -> bytes:
        empty = fields.table({})
        return wire.write(Kind.SURVIVORS, now.ring, 0, now.tag, fields.most(range(n), n), empty)

    for kind in (Kind.KEYS, Kind.INBOX):
        yield scene.attacked(f"server: asks to unmask beside {kind.name}", _asks(kind, ask))


def _replayed(scene: AttackedRound) -> ScoredAttack:
    """The same plan again, in which somebody is told to have left: the difference of the two sums
    would be one client's update.
    """
    everybody = scene.enrolled()
    drive(scene.server(everybody), scene.parties(everybody))
    faults = Faults(silent_from={client_party(VICTIM): 0})
    outcome = drive(scene.server(everybody), scene.parties(everybody), faults, keep_bodies=True)
    found = scene.score("server: the same round twice", outcome, everybody)
    again = outcome.opened is not None
    return ScoredAttack(
        found.attack,
        found.n,
        found.refused_by,
        found.at,
        "two sums of one round" if again else found.leaked,
        again or found.broken,
    )
