"""The server's part: it carries sealed shares, adds masked vectors, and learns the sum when enough
survivors answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from privfl.core import (
    Buffer,
    ClientId,
    KeepsSecrets,
    KnownKeys,
    Mail,
    Opened,
    PartyId,
    RoundPlan,
    Total,
    client_of,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import Backend, BackendName, Words, backend, fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.weak_keys import unusable
from privfl.crypto.ring import add_up, lift
from privfl.crypto.secagg import boxes, keys, passing, wire
from privfl.crypto.secagg.keys import SIGNATURE, WORD
from privfl.crypto.secagg.masked import read_masked, read_words
from privfl.crypto.secagg.parameters import SecAggParameters
from privfl.crypto.secagg.shares import as_dealt
from privfl.crypto.secagg.stage import STAGE, Kind
from privfl.crypto.secagg.unmask import Unmasking
from privfl.crypto.sharing import shamir

_TIMER = b"wait"
"""A note to itself: where everybody that is asked may be silent, it brings the server back an
exchange later.
"""


@dataclass(repr=False)
class SecAggServerParty(KeepsSecrets):
    """The server in one round. It goes on with whoever answered in time, and stops rather than sum
    fewer than the quorum.

    Whoever sends what cannot be used is excluded by name and from then on ignored. ``carried`` are
    next round's keys that came with an earlier round's last message, by client; ``collected``
    gathers those for the next. ``signed``: it checks who signed keys, as only a replay does not.
    """

    parameters: SecAggParameters
    plan: RoundPlan
    code: FixedPoint
    directory: KnownKeys
    library_name: BackendName
    epoch: bytes
    facts: bytes
    carry: bool
    carried: dict[ClientId, bytes]
    collected: dict[ClientId, bytes]
    expects: Kind = Kind.ADVERTISE
    started: bool = False
    signed: bool = True
    waits: int = 0
    adverts: dict[int, bytes] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    commitments: dict[int, bytes] = field(default_factory=dict)
    arrived: list[memoryview] = field(default_factory=list)
    folded: set[int] = field(default_factory=set)
    total: Words | None = None
    summed: set[int] = field(default_factory=set)
    drawn: dict[int, frozenset[int]] = field(default_factory=dict)
    points: dict[int, dict[int, int]] = field(default_factory=dict)
    words: dict[int, dict[int, bytes]] = field(default_factory=dict)
    confirmed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    seeds: dict[int, dict[int, int]] = field(default_factory=dict)
    secrets: dict[int, dict[int, int]] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    result: Opened[Total] | None = None

    def step(self, mail: Mail) -> Mail:
        """Collect a stage's messages, and when they are there go on to the next."""
        if not self.started:
            self.started = True
            if self.carry:
                return self._recall()
        if not mail or self.result is not None:
            return {}
        fresh = self._collect(mail)
        if "server" in mail and self.waits and self.expects in (Kind.ADVERTISE, Kind.MASKED):
            self.waits -= 1
            if self.waits and not fresh:
                return {"server": _TIMER}
        elif not fresh and any(
            client_party(client) not in self.excluded for client in self.plan.cohort
        ):
            return {}
        return self._advance()

    def _recall(self) -> Mail:
        """Begin with the keys that came with the last round, and call for those that did not."""
        position = {client: i for i, client in enumerate(self.plan.cohort)}
        for client, advert in self.carried.items():
            if client in position:
                with contextlib.suppress(Malformed):
                    self._advertise(position[client], memoryview(advert))
        missing = [client for client, i in position.items() if i not in self.adverts]
        if not missing:
            return self._advance()
        self.waits = 2
        return {
            **{client_party(client): self._write(Kind.CALL) for client in missing},
            "server": _TIMER,
        }

    def _collect(self, mail: Mail) -> bool:
        """Take in what belongs to the stage; whether anything did."""
        take: Callable[[int, memoryview], None] = {
            Kind.ADVERTISE: self._advertise,
            Kind.SHARES: self._shares,
            Kind.MASKED: self._masked,
            Kind.CONSISTENCY: self._consistency,
            Kind.UNMASK: self._unmask,
        }[self.expects]
        fresh = False
        positions = {client: i for i, client in enumerate(self.plan.cohort)}
        for who, body in mail.items():
            if who == "server":
                continue
            client = client_of(who)
            try:
                if client is None or client not in positions:
                    raise Malformed("not in the cohort")
                kind, claimed, _, content = wire.read(body, self.parameters.tag)
                if claimed != positions[client]:
                    raise Malformed(
                        "it claims the place of"
                        f" {client_party(self.plan.cohort[claimed % self.plan.n])}"
                    )
                if kind is not self.expects or who in self.excluded or not self._awaited(claimed):
                    # a late or repeated message: its sender has dropped out of this stage, or was
                    # heard
                    continue
                take(claimed, content)
                fresh = True
            except Malformed as malformed:
                self.excluded.setdefault(who, f"stage {STAGE[self.expects]}: {malformed}")
        return fresh

    def _heard(self) -> Collection[int]:
        """Whose message of this stage has come."""
        stages: dict[Kind, Collection[int]] = {
            Kind.ADVERTISE: self.adverts,
            Kind.SHARES: self.sealed,
            Kind.MASKED: self.summed,
            Kind.CONSISTENCY: self.confirmed,
            Kind.UNMASK: self.answered,
        }
        return stages[self.expects]

    def _awaited(self, position: int) -> bool:
        """Whether this client is still in the round and has not been heard at this stage."""
        before: dict[Kind, Collection[int]] = {
            Kind.ADVERTISE: range(self.plan.n),
            Kind.SHARES: self.adverts,
            Kind.MASKED: self.sealed,
            Kind.CONSISTENCY: self.summed,
            Kind.UNMASK: self.confirmed if self.parameters.active else self.summed,
        }
        return position not in self._heard() and position in before[self.expects]

    def _advertise(self, position: int, content: memoryview) -> None:
        now = self.parameters
        signed = SIGNATURE if now.active else 0
        public, rest = bytes(content[: now.key_bytes]), content[now.key_bytes + signed :]
        if len(content) < now.key_bytes + signed:
            raise Malformed(f"an advertisement of {len(content)} bytes")
        if unusable(public[:32]) or unusable(public[-32:]):
            raise Malformed("an unusable public key")
        if now.active and self.signed:
            client = self.plan.cohort[position]
            statement = keys.advertisement(self.epoch, client, public)
            signature = bytes(content[now.key_bytes : now.key_bytes + signed])
            known = reversed(self.directory.keys(client_party(client)))
            if not any(self._library.verify(key, statement, signature) for key in known):
                raise Malformed("keys that its identity did not sign")
        if now.chosen:
            drawn, rest = fields.read_some(rest, now.degree.k, now.n)
            if position in drawn:
                raise Malformed("a client that drew itself")
            self.drawn[position] = drawn
            self.points[position] = now.points(position, drawn)
        fields.ends(rest)
        self.adverts[position] = public

    def _holders(self, position: int) -> frozenset[int]:
        """Whom a client that advertised shares its secrets with, but for itself."""
        if self.parameters.chosen:
            return self.drawn[position].intersection(self.adverts)
        return frozenset(self.parameters.neighbours(position)).intersection(self.adverts)

    def point(self, owner: int, holder: int) -> int:
        """Where on its owner's polynomial a holder's share lies."""
        return self.points[owner][holder] if self.parameters.chosen else holder + 1

    def _shares(self, position: int, content: memoryview) -> None:
        bound, rest = bytes(content[:32]), content[32:]
        sealed, rest = boxes.read(self.parameters, rest)
        fields.ends(rest)
        due = self._holders(position)
        enough = self.parameters.degree.t - 1 if self.parameters.active else len(due)
        if len(bound) != 32 or not sealed.keys() <= due or len(sealed) < enough:
            raise Malformed("shares for others than its neighbours, or not for all of them")
        self.sealed[position] = {other: bytes(sealed_box) for other, sealed_box in sealed.items()}
        self.commitments[position] = bound

    def _masked(self, position: int, content: memoryview) -> None:
        listeners = self._listeners(position)
        if position in self.folded:
            words = read_words(self.parameters, listeners, content)
        else:
            packed, words = read_masked(self.parameters, self.facts, listeners, content)
            self.arrived.append(packed)
        if self.parameters.active:
            self.words[position] = words
        self.summed.add(position)

    def fold(self, sender: PartyId, body: Buffer) -> Buffer | None:
        """Add a vector up when it is written (`core.streaming.Folds`); its words come later."""
        if self.expects is not Kind.MASKED or sender in self.excluded:
            return None
        try:
            kind, position, _, content = wire.read(body, self.parameters.tag)
            fits = kind is Kind.MASKED and self._awaited(position) and position not in self.folded
            if not fits or self._name(position) != sender:
                return None
            listeners = self._listeners(position)
            packed, words = read_masked(self.parameters, self.facts, listeners, content)
        except Malformed:
            return None
        self._add_up(packed)
        self.folded.add(position)
        now, listed = self.parameters, (words[other] for other in listeners if words)
        return wire.write(Kind.MASKED, now.ring, position, now.tag, *listed)

    def _listeners(self, position: int) -> list[int]:
        return sorted(self.sealed[position].keys() & self.sealed.keys())

    def _consistency(self, position: int, content: memoryview) -> None:
        owners = sorted(owner for owner in self.summed if position in self.words[owner])
        if len(content) != WORD * len(owners):
            raise Malformed("words for clients whose shares it does not hold, or not for all")
        self.confirmed[position] = {
            owner: bytes(content[i * WORD : (i + 1) * WORD]) for i, owner in enumerate(owners)
        }

    def _unmask(self, position: int, content: memoryview) -> None:
        seeds, rest = fields.read_table(content, shamir.SIZE, self.parameters.n)
        gone, rest = fields.read_table(rest, shamir.SIZE, self.parameters.n)
        if not self.carry:
            fields.ends(rest)
        if not seeds.keys() <= self.summed or not gone.keys() <= self.sealed.keys() - self.summed:
            raise Malformed("a seed's share of a dropped client, or a key's share of a survivor")
        dealt = partial(as_dealt, self.parameters.tag, self.sealed, self._name, position)
        of_seeds = {i: dealt(i, "seed", bytes(s)) for i, s in seeds.items()}
        of_keys = {i: dealt(i, "key", bytes(s)) for i, s in gone.items()}
        for known, shares in ((self.seeds, of_seeds), (self.secrets, of_keys)):
            for owner, share in shares.items():
                known.setdefault(owner, {})[self.point(owner, position)] = share
        self.answered.add(position)
        if self.carry:
            self.collected[self.plan.cohort[position]] = bytes(rest)

    def _advance(self) -> Mail:
        """Go on with whoever is left."""
        here = self._heard()
        least = (
            self.parameters.degree.t
            if self.expects in (Kind.CONSISTENCY, Kind.UNMASK)
            else self.parameters.quorum
        )
        if len(here) < least:
            lost = [
                client_party(client) for i, client in enumerate(self.plan.cohort) if i not in here
            ]
            why = (
                f"{len(here)} of {self.plan.n} clients are left, and the threshold is {least};"
                f" lost: {', '.join(lost[:8])}" + (" ..." if len(lost) > 8 else "")
            )
            blamed = next(iter(self.excluded), None)
            raise StageAbort(STAGE[self.expects], why, blamed, lost)
        if self.expects is Kind.ADVERTISE:
            self.expects = Kind.SHARES
            return self._keys()
        if self.expects is Kind.SHARES:
            self.expects = Kind.MASKED
            if not self.carry:
                return self._inboxes()
            self.waits = 2
            return {**self._inboxes(), "server": _TIMER}
        if self.expects is Kind.MASKED:
            if not self.folded <= self.summed:
                raise StageAbort("masked_input", "a vector was added up that never arrived")
            self._add_up(*self.arrived)
            self.arrived = []
            self.expects = Kind.CONSISTENCY if self.parameters.active else Kind.UNMASK
            listed = fields.most(self.summed, self.parameters.n)
            if not self.parameters.active:
                message = self._write(Kind.SURVIVORS, listed)
                return {self._name(i): message for i in sorted(self.summed)}
            return self._passed_on(Kind.SURVIVORS, self.words, self.summed, listed)
        if self.expects is Kind.CONSISTENCY:
            self.expects = Kind.UNMASK
            return self._passed_on(Kind.SIGNATURES, self.confirmed, self.confirmed.keys())
        self._open()
        return {}

    def _add_up(self, *packed: memoryview) -> None:
        if self.total is None:
            self.total = np.zeros(self.parameters.length, dtype=self.parameters.dtype)
        add_up(self.total, packed, self.parameters.ring)

    def _passed_on(
        self,
        kind: Kind,
        words: Mapping[int, Mapping[int, bytes]],
        to: Collection[int],
        *head: Buffer,
    ) -> Mail:
        """What clients said to each other, to each of these what is meant for it."""
        meant = passing.by_listener(words, to)
        return {
            self._name(i): self._write(kind, *head, fields.table(meant[i])) for i in sorted(meant)
        }

    def _keys(self) -> Mail:
        if self.parameters.complete:
            everybody = self._write(Kind.KEYS, fields.table(self.adverts))
            return {self._name(i): everybody for i in sorted(self.adverts)}

        # a client that lost its carried keys must see it
        own = [{i} if self.carry else set[int]() for i in range(self.plan.n)]
        return {
            self._name(i): self._write(
                Kind.KEYS, fields.table({j: self.adverts[j] for j in self._holders(i) | own[i]})
            )
            for i in sorted(self.adverts)
        }

    def _inboxes(self) -> Mail:
        sharing = fields.most(self.sealed, self.parameters.n)
        inboxes = passing.inboxes(self.parameters, self.adverts, self.sealed)
        return {
            self._name(i): self._write(Kind.INBOX, sharing, inbox)
            for i, inbox in sorted(inboxes.items())
        }

    def _open(self) -> None:
        if self.total is None:
            raise StageAbort("unmask", "nothing was summed")
        gone = self.sealed.keys() - self.summed
        unmasking = Unmasking(
            self.parameters,
            self.adverts,
            self.commitments,
            self._partners(),
            self._name,
            self.seeds,
            self.secrets,
        )
        unmasking.open(self.total, self.summed, gone, self._library)
        for liar, lie in unmasking.byzantine.items():
            self.excluded.setdefault(self._name(liar), f"stage unmask: {lie}")
        survivors = tuple(client for i, client in enumerate(self.plan.cohort) if i in self.summed)
        opened = self.code.decode(lift(self.total, self.parameters.ring), self.plan, len(survivors))
        self.result = Opened(opened, survivors, excluded=dict(self.excluded))

    def _partners(self) -> Callable[[int], frozenset[int]]:
        if not self.parameters.active:
            return lambda owner: frozenset(self.parameters.neighbours(owner))
        toward = boxes.partners(self.sealed)
        return lambda owner: toward.get(owner, frozenset())

    def _name(self, position: int) -> PartyId:
        return client_party(self.plan.cohort[position])

    def _write(self, kind: Kind, *parts: Buffer) -> bytes:
        return wire.write(kind, self.parameters.ring, 0, self.parameters.tag, *parts)

    @property
    def _library(self) -> Backend:
        return backend(self.library_name)
