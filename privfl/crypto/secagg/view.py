"""What a coalition can compute from a round's wire and its own secrets, really computed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from privfl.core import (
    ClientId,
    ConfigError,
    KeepsSecrets,
    Mail,
    Received,
    RoundPlan,
    Rows,
    Total,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Backend, Words, backend, fields, mask
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import RINGS, lift
from privfl.crypto.secagg import boxes, keys, wire
from privfl.crypto.secagg.pairs import Pairs
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings, degree_for
from privfl.crypto.secagg.replay import KnownAhead, ToldOfKeys, replayed, rounds_in
from privfl.crypto.secagg.unmask import Unmasking
from privfl.crypto.sharing import shamir

Kept = Mapping[bytes, Pairs]
NOTHING = KnownAhead()
_SILENT = 100
"""How many clients a round may have for each that spoke: a liar's facts name any number, and to
look for the share holders of a million takes a minute.
"""


@dataclass(repr=False)
class SecAggCoalitionView(KeepsSecrets):
    """The server's mail of one round with the secrets of the clients that collude: replayed through
    the honest server's own party, so that what it refused is refused here.
    """

    settings: SecAggSettings
    members: Sequence[Kept]
    known: KnownAhead = NOTHING
    tag: bytes = b""
    plan: RoundPlan | None = None
    ring: int = 32
    ids: dict[int, ClientId] = field(default_factory=dict)
    publics: dict[int, bytes] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    commitments: dict[int, bytes] = field(default_factory=dict)
    vectors: dict[int, Words] = field(default_factory=dict)
    seeds: dict[int, dict[int, int]] = field(default_factory=dict)
    secrets: dict[int, dict[int, int]] = field(default_factory=dict)
    points: dict[int, dict[int, int]] = field(default_factory=dict)
    total: Total | None = None

    @classmethod
    def of(
        cls,
        settings: SecAggSettings,
        received: Received,
        members: Sequence[Kept],
        known: KnownAhead = NOTHING,
    ) -> SecAggCoalitionView:
        """Replay the server's mail: as the round that most of its senders were in, and where two
        claim one place in the cohort, with the one in it with whom more can be read.
        """
        views = []
        for mail, facts, cohort in rounds_in(received.get("server", ())):
            view = cls(settings, members, known)
            try:
                view._replay(mail, facts, cohort, received)
            except (ConfigError, Malformed):  # of such a cohort there is no round
                continue
            if view.total is not None:
                return view
            views.append(view)
        return max(views, key=lambda view: len(view.vectors), default=cls(settings, members))

    def _replay(
        self,
        mails: Sequence[Mail],
        facts: bytes,
        cohort: Mapping[int, ClientId],
        received: Received,
    ) -> None:
        said, _ = fields.read_facts(memoryview(facts))
        senders = {who for mail in mails for who in mail if who != "server"}
        if said.n > _SILENT * len(senders):
            raise Malformed("a cohort of whom hardly anybody spoke")
        frames = [
            wire.FORMAT.read(body)
            for mail in mails
            for who, body in mail.items()
            if who != "server"
        ]
        self.tag = frames[0].tag
        names = {place: who for place, (who, _) in self.known.ahead.get(self.tag, {}).items()}
        named = {**cohort, **names}
        everybody = tuple(named.get(i, -1 - i) for i in range(said.n))
        plan = replace(said, cohort=everybody)
        degree, self.ids = degree_for(self.settings, plan.n), dict(enumerate(everybody))
        self.ring = Counter(frame.ring for frame in frames).most_common(1)[0][0]
        length = self.settings.code.length(plan)
        if self.ring not in RINGS or length > max(len(frame.content) for frame in frames):
            raise Malformed("vectors that nobody sent: no more is kept free than came")
        self.plan = plan
        now = SecAggParameters(self.tag, plan.n, degree, 2, self.ring, length, self.settings.active)
        told = ToldOfKeys.of(received, self.tag, now)
        party = replayed(self.settings, now, plan, facts, mails, self.known, told)
        for mail in mails:
            before = frozenset(party.summed)
            with contextlib.suppress(StageAbort):
                party.step(mail)
            for i in party.summed - before:
                content = fields.after_facts(wire.read(mail[client_party(everybody[i])])[3], facts)
                packed = content[: length * self.ring // 8]
                self.vectors[i] = fields.unpack(packed, self.ring, length)
        self.publics, self.sealed, self.commitments = party.adverts, party.sealed, party.commitments
        self.seeds, self.secrets, self.points = party.seeds, party.secrets, party.points
        self.total = None if party.result is None else party.result.what

    def opened(self) -> Rows | Total | None:
        """Rows where the coalition can open any, else the total where the round ended, or where
        the coalition's own shares end it; else nothing.
        """
        if self.plan is None or len(self.vectors) < 2:
            return None
        degree = degree_for(self.settings, self.plan.n)
        now = SecAggParameters(
            self.tag,
            self.plan.n,
            degree,
            2,
            self.ring,
            self.settings.code.length(self.plan),
            self.settings.active,
        )
        library = backend(self.settings.backend)
        unmasking = Unmasking(
            now,
            self.publics,
            self.commitments,
            self._partners(now).__getitem__,
            self._name,
            self.seeds,
            self.secrets,
        )
        own = {
            held.position: replace(held, publics=dict(self.publics), fresh={}, roots={})
            for kept in self.members
            for tag, held in kept.items()
            if tag == self.tag
        }
        self._read_shares(own)
        rows = self._rows(now, unmasking, own, library)
        if rows is not None or self.total is not None:
            return self.total if rows is None else rows
        total = np.zeros(now.length, dtype=now.dtype)
        for vector in self.vectors.values():
            np.add(total, vector, out=total)
        try:
            unmasking.open(
                total, self.vectors.keys(), self.sealed.keys() - self.vectors.keys(), library
            )
        except (StageAbort, KeyError):
            return None
        return self.settings.code.decode(lift(total, now.ring), self.plan, len(self.vectors))

    def _read_shares(self, own: Mapping[int, Pairs]) -> None:
        """Open every sealed share that is addressed to a member of the coalition."""
        for receiver, held in own.items():
            dealt = {
                sender: sealed_boxes[receiver]
                for sender, sealed_boxes in self.sealed.items()
                if receiver in sealed_boxes and sender in self.publics
            }
            for sender, plain in held.open(dealt).items():
                for known, raw in (
                    (self.seeds, plain[: shamir.SIZE]),
                    (self.secrets, plain[shamir.SIZE :]),
                ):
                    if shamir.in_range(raw):
                        point = self.points.get(sender, {}).get(receiver, receiver + 1)
                        known.setdefault(sender, {})[point] = shamir.from_bytes(raw)

    def _rows(
        self,
        now: SecAggParameters,
        unmasking: Unmasking,
        own: Mapping[int, Pairs],
        library: Backend,
    ) -> Rows | None:
        """The single updates of which every mask is known: the own seed, and from one end or the
        other each neighbour's.
        """
        if not own:
            return None
        agreements = {p: library.agreement(held.keys.s) for p, held in own.items()}
        for owner in self.sealed.keys() - agreements.keys():
            try:
                agreements[owner] = library.agreement(unmasking.secret(owner, library))
            except (StageAbort, KeyError):
                continue
        values, weights, ids = [], [], []
        for owner in sorted(self.vectors.keys() - own.keys()):
            others = unmasking.partners(owner)
            if not all(
                owner in agreements or other in agreements
                for other in others
                if other in self.sealed
            ):
                continue
            try:
                masks = [(keys.self_seed(unmasking.seed(owner), self.tag), -1)]
            except (StageAbort, KeyError):
                continue
            for other in others:
                if other in self.sealed:
                    one, two = (owner, other) if owner in agreements else (other, owner)
                    shared = agreements[one](self.publics[two][-32:])
                    masks.append(
                        (
                            keys.pair_seed(shared, self.tag, owner, other),
                            -keys.pair_sign(owner, other),
                        )
                    )
            vector = np.array(self.vectors[owner], dtype=now.dtype)
            mask(vector, masks, library)
            if self.plan is not None:
                single = self.settings.code.decode(lift(vector, now.ring), self.plan, 1)
                values.append(single.value / single.weight if single.weight else single.value)
                weights.append(single.weight)
                ids.append(self.ids[owner])
        return Rows(torch.stack(values), torch.tensor(weights), tuple(ids)) if values else None

    def _partners(self, now: SecAggParameters) -> dict[int, frozenset[int]]:
        if not now.active:
            return {i: frozenset(now.neighbours(i)) for i in self.sealed}
        return boxes.partners(self.sealed)

    def _name(self, position: int) -> str:
        return client_party(self.ids[position])
