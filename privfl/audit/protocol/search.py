"""Random search of lying servers against active secure aggregation: every honest client's real
party is shown a world of the server's choice, and what the server and its friends then know is
worked out.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from privfl.core import (
    Abort,
    Bounded,
    Buffer,
    ClientMember,
    ConfigError,
    KeepsSecrets,
    RoundPlan,
    Total,
    client_party,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import backend, fields
from privfl.crypto.secagg import boxes, graph, wire
from privfl.crypto.secagg.channel import SecAgg
from privfl.crypto.secagg.client import SecAggClientParty
from privfl.crypto.secagg.keys import DEALT, SIGNATURE, WORD, RoundKeys
from privfl.crypto.secagg.pairs import LastingPairs, Pairs
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.sharing import shamir

D = 2


@dataclass(repr=False)
class HonestClient(KeepsSecrets):
    """One honest client's party, what it said, and with whom it masked under which key."""

    party: SecAggClientParty
    boxes: dict[int, bytes] = field(default_factory=dict)
    spoken: dict[int, dict[int, bytes]] = field(default_factory=dict)
    partners: frozenset[int] = frozenset()
    vectors: int = 0

    @property
    def place(self) -> int:
        """Its place in the cohort."""
        return self.party.position

    def ask(self, rng: random.Random, kind: Kind, *parts: Buffer) -> memoryview | None:
        """What it answers to a letter, which is now and then doubled, spoilt, or followed by
        another; None where it has left.
        """
        now = self.party.parameters
        letter = wire.write(kind, now.ring, 0, now.tag, *parts)
        if rng.random() < 0.002:
            at = rng.randrange(len(letter))
            letter = letter[:at] + bytes([letter[at] ^ 1 << rng.randrange(8)]) + letter[at + 1 :]
        again = letter[:-1] + bytes([letter[-1] ^ 1]) if rng.random() < 0.5 else letter
        answers = [self._said(letter)]
        if rng.random() < 0.01:
            answers.append(self._said(again))
        return next((answer for answer in answers if answer is not None), None)

    def _said(self, letter: bytes) -> memoryview | None:
        try:
            said = self.party.step({"server": letter}).get("server")
        except Abort:
            return None
        if said is None:
            return None
        kind, _, _, content = wire.read(said)
        self.vectors += kind is Kind.MASKED
        return content


@dataclass(repr=False)
class LyingServer(KeepsSecrets):
    """A server with friends among the clients, which draws for every honest client a world: who
    advertised, whose keys are its own, who shared keys, who survived. It forwards all true words
    that fit, and its friends say to everybody whatever fits.
    """

    rng: random.Random
    channel: SecAgg
    plan: RoundPlan
    everybody: Enrolled[Total]
    honest: list[HonestClient]
    friends: tuple[int, ...]
    own: dict[int, RoundKeys] = field(default_factory=dict)
    seeds: dict[int, set[int]] = field(default_factory=dict)
    keys: dict[int, set[int]] = field(default_factory=dict)
    talks: dict[tuple[int, int], Pairs] = field(default_factory=dict)

    def play(self) -> None:
        """The round, as every honest client is shown it."""
        rng, n = self.rng, self.plan.n
        worlds = [self._world() for _ in range(rng.choice([1, 1, 2, 2, 3]))]
        shared = rng.random() < 0.5  # every world lists the same who shared keys
        listed = [self._listed(world if not shared else worlds[0]) for world in worlds]
        alive = [self._alive(*both) for both in zip(worlds, listed, strict=True)]
        lives = {one.place: rng.randrange(len(worlds)) for one in self.honest}
        for one in self.honest:
            inside = [w for w, world in enumerate(worlds) if one.place in world]
            if inside and rng.random() < 0.98:
                lives[one.place] = rng.choice(inside)
        library = backend(self.channel.backend)
        self.own = {i: RoundKeys.fresh(library, active=True) for i in range(n)}
        self._adverts(worlds, lives)
        self._inboxes(listed, lives)
        self._survivors(alive, lives)

    def _world(self) -> frozenset[int]:
        """Friends, and so many honest ones as are about enough to finish, or anybody."""
        rng, need = self.rng, self.channel.degree(self.plan.n)
        size = round(self.plan.n * need.t / need.shares) - len(self.friends) + rng.randint(-2, 1)
        places = [one.place for one in self.honest]
        drawn = rng.random()
        if drawn < 0.3:
            size = len(places)
        elif drawn < 0.4:
            size = rng.randint(1, len(places))
        return frozenset(rng.sample(places, max(1, min(size, len(places))))) | {*self.friends}

    def _listed(self, world: frozenset[int]) -> frozenset[int]:
        rng, kept = self.rng, self.rng.choice([1.0, 1.0, 0.5, 0.0])
        others = [i for i in range(self.plan.n) if i not in world]
        return world | {i for i in others if rng.random() < kept}

    def _alive(self, world: frozenset[int], listed: frozenset[int]) -> frozenset[int]:
        """Survivors: those of the world, padded with others who are said to share keys; now and
        then one of them is said to be gone.
        """
        rng, quorum = self.rng, self.channel.fewest(self.plan.n)
        alive = set(world & listed)
        pad = sorted(listed - alive)
        rng.shuffle(pad)
        alive |= set(pad[: max(0, quorum - len(alive))] if rng.random() < 0.7 else pad)
        if rng.random() < 0.3:
            alive -= set(rng.sample(sorted(alive), min(len(alive), rng.choice([1, 1, 2]))))
        return frozenset(alive)

    def _adverts(self, worlds: list[frozenset[int]], lives: Mapping[int, int]) -> None:
        """Tell everybody keys; some are the server's own."""
        rng = self.rng
        swaps, filters = rng.choice([0.0, 0.0, 0.0, 0.4]), rng.choice([0.0, 0.0, 0.0, 0.5])
        true = {one.place: one.party.keys.public for one in self.honest}
        true |= {i: self.own[i].public for i in self.friends}
        drawn = {one.place: self._draw(one) for one in self.honest}
        for one in self.honest:
            shown = {}
            for other in drawn[one.place]:
                inside = other in worlds[lives[one.place]]
                if inside or rng.random() >= filters:
                    swapped = not inside and rng.random() < swaps
                    shown[other] = self.own[other].public if swapped else true[other]
            said = one.ask(rng, Kind.KEYS, fields.table(shown))
            if said is not None:
                rows, _ = boxes.read(one.party.parameters, said[32:])
                one.boxes = {i: bytes(row) for i, row in rows.items()}

    def _draw(self, one: HonestClient) -> Collection[int]:
        """The share holders of a client: everybody, or those whom it drew."""
        now, n = one.party.parameters, self.plan.n
        said = one.party.step({})["server"] if one.party.speaks_first else b""
        if not now.chosen:
            return [i for i in range(n) if i != one.place]
        return fields.read_some(wire.read(said)[3][now.key_bytes + SIGNATURE :], now.degree.k, n)[0]

    def _inboxes(self, listed: list[frozenset[int]], lives: Mapping[int, int]) -> None:
        """Hand out boxes, those of friends among them, and hear the masked vectors."""
        n, added = self.plan.n, self.channel.parameters(self.plan).chosen
        loses = self.rng.choice([0.0, 0.0, 0.0, 0.1])
        for one in self.honest:
            inbox: dict[int, Buffer] = {}
            for other in self.honest:
                if one.place in other.boxes and self.rng.random() >= loses:
                    public = other.party.keys.public if added else b""
                    inbox[other.place] = public + other.boxes[one.place]
            for friend in self.friends:
                self._hears(one, friend)
                talk = self.talks[friend, one.place]
                talk.reach([one.place])
                sealed = talk.seal({one.place: self._junk()})
                if one.place in sealed:
                    public = self.own[friend].public if added else b""
                    inbox[friend] = public + sealed[one.place]
            told = listed[lives[one.place]] | {one.place}
            inbox = {i: row for i, row in inbox.items() if i in told}
            mine = frozenset(inbox)
            now = one.party.parameters
            rows = boxes.write(now, inbox, now.key_bytes if added else 0)
            said = one.ask(self.rng, Kind.INBOX, fields.most(told, n), rows)
            if said is not None:
                holders = told & set(one.party.holders) - {one.place}
                one.partners = frozenset(holders | mine)
                self._words(one, Kind.MASKED, said, holders)

    def _words(
        self, one: HonestClient, kind: Kind, said: memoryview, listeners: Collection[int]
    ) -> None:
        order = [
            i for i in sorted(listeners) if kind is Kind.CONSISTENCY or i in one.party.pairs.roots
        ]
        tail = said[len(said) - WORD * len(order) :]
        one.spoken[kind] = {
            other: bytes(tail[i * WORD : (i + 1) * WORD]) for i, other in enumerate(order)
        }

    def _hears(self, one: HonestClient, friend: int) -> None:
        """A friend opens what this client sealed to it."""
        who = client_party(self.plan.cohort[friend])
        talk = self.talks[friend, one.place] = Pairs(
            one.party.parameters,
            self.plan.cohort,
            friend,
            self.own[friend],
            LastingPairs(self.everybody.keys[who]),
            self.everybody.directory,
            self.channel.backend,
        )
        talk.meet({one.place: one.party.keys.public})
        box = one.boxes.get(friend)
        if box is not None and talk.open({one.place: box}):
            self.seeds.setdefault(one.place, set()).add(friend)
            self.keys.setdefault(one.place, set()).add(friend)

    def _survivors(self, alive: list[frozenset[int]], lives: Mapping[int, int]) -> None:
        """Ask who agrees, pass it on, and hear the shares."""
        rng, n = self.rng, self.plan.n
        for one in self.honest:
            words = self._true(Kind.MASKED, one)
            words |= self._friendly("masked", one, one.party.masked)
            told = alive[lives[one.place]] | ({one.place} if rng.random() < 0.5 else set())
            said = one.ask(rng, Kind.SURVIVORS, fields.most(told, n), fields.table(words))
            if said is not None:
                self._words(one, Kind.CONSISTENCY, said, words)
        for one in self.honest:
            words = self._true(Kind.CONSISTENCY, one)
            words |= self._friendly("survivors", one, one.party.agreed)
            said = one.ask(rng, Kind.SIGNATURES, fields.table(words))
            if said is None:
                continue
            seeds, rest = fields.read_table(said, shamir.SIZE, n)
            gone, _ = fields.read_table(rest, shamir.SIZE, n)
            for known, given in ((self.seeds, seeds), (self.keys, gone)):
                for owner in given:
                    known.setdefault(owner, set()).add(one.place)

    def _true(self, kind: Kind, to: HonestClient) -> dict[int, Buffer]:
        return {
            one.place: one.spoken[kind][to.place]
            for one in self.honest
            if to.place in one.spoken.get(kind, {})
        }

    def _friendly(
        self, what: Literal["masked", "survivors"], to: HonestClient, statement: bytes
    ) -> dict[int, Buffer]:
        words: dict[int, Buffer] = {}
        for friend in self.friends:
            talk = self.talks.get((friend, to.place))
            if talk is not None:
                for word in talk.say(what, [to.place], statement).values():
                    words[friend] = word
        return words

    def _junk(self) -> bytes:
        return shamir.to_bytes(self.rng.getrandbits(200)) + shamir.to_bytes(DEALT)

    def smallest_sum(self) -> int | None:
        """Of how few honest clients the server and its friends know a sum, taken differences of
        sums together; None where they know none.

        A masked vector is its client's update, its own mask, and a mask with each partner. A mask
        is known where its seed is: t shares of it, or of the key of one end, or an end of the
        server's own. What is known of the updates is spanned by the sums over the parts of the
        cohort that unknown masks hold together, where every such mask is in both ends' vectors and
        all own masks are known.
        """
        t = self.channel.degree(self.plan.n).t
        sent = {one.place: one for one in self.honest if one.vectors}
        open_keys = {i for i in sent if len(self.keys.get(i, ())) >= t}
        open_keys |= {one.place for one in self.honest if len(self.keys.get(one.place, ())) >= t}
        true = {one.place: one.party.keys.public for one in self.honest}
        edges: dict[int, set[int]] = {}
        for place, one in sent.items():
            edges[place] = {
                other
                for other in one.partners
                if one.party.pairs.publics.get(other) == true.get(other, b"")
                and not {place, other} & open_keys
            }
        smallest, left = None, set(sent)
        while left:
            part, todo = set(), [left.pop()]
            while todo:
                place = todo.pop()
                part.add(place)
                todo += [i for i in edges[place] if i in sent and i not in part]
                todo += [i for i in left if place in edges[i] and i not in part]
            left -= part
            paired = all(j in sent and i in edges[j] for i in part for j in edges[i])
            if paired and all(len(self.seeds.get(i, ())) >= t for i in part):
                smallest = len(part) if smallest is None else min(smallest, len(part))
        return smallest


def lying_server(seed: int, extra: int = 0) -> str:
    """What came of one round with a lying server and as many friends as the channel's corrupt
    fraction, and so many more: "a sum", "nothing", or what is broken.
    """
    rng = random.Random(seed)  # noqa: S311  which rounds are tried is no secret
    channel, plan = _drawn(rng)
    bad = graph.part_of(plan.n, channel.corrupt)
    friends = tuple(rng.sample(range(plan.n), min(bad + extra, plan.n - 1)))
    everybody = Enrolled.fresh(channel, plan.cohort)
    honest = {p: everybody.clients[c] for p, c in enumerate(plan.cohort) if p not in friends}
    bait = RoundPlan(plan.number, plan.cohort, D, 1.0, session=plan.session, models=("b" * 64,))
    baited = rng.choice(sorted(honest)) if rng.random() < 0.1 else None
    asked = [
        HonestClient(_enter(member, bait if place == baited else plan, plan.cohort[place]))
        for place, member in honest.items()
    ]
    server = LyingServer(rng, channel, plan, everybody, asked, friends)
    server.play()
    if any(one.vectors > 1 for one in asked):
        return "two vectors under one key"
    for place, member in honest.items():
        again = HonestClient(_enter(member, plan, plan.cohort[place]))
        if again.ask(rng, Kind.CALL) is not None:
            return "a round was entered twice"
    found = server.smallest_sum()
    if found is None:
        return "nothing"
    fewest = channel.fewest(plan.n) - bad
    return "a sum" if found >= fewest else f"a sum of {found} honest, and {fewest} are claimed"


def _enter(member: ClientMember, plan: RoundPlan, client: int) -> SecAggClientParty:
    party = member.enter(plan, Bounded(client, torch.zeros(D), 1.0))
    if not isinstance(party, SecAggClientParty):
        raise ConfigError(f"{type(party).__name__} is no client of secure aggregation.")
    return party


def _drawn(rng: random.Random) -> tuple[SecAgg, RoundPlan]:
    while True:
        large = rng.random() < 0.03
        n = rng.randint(30, 100) if large else rng.randint(3, 12)
        sparse, corrupt = rng.random() < 0.5, rng.choice([0.0, 0.1, 0.2, 0.34])
        degree = rng.randint(min(4, n), n) if sparse else n
        channel = SecAgg(
            mode="active", graph=degree if sparse else "complete", corrupt=corrupt, bits=8
        )
        plan = RoundPlan(rng.randint(0, 9), tuple(range(n)), D, 1.0, session=b"search")
        try:
            found = channel.degree(n)
        except ConfigError:
            continue
        private, _ = graph.fails(n, found, corrupt, channel.drop, True)
        if private <= -20:  # a graph that fails more often may be broken by chance
            return channel, plan
