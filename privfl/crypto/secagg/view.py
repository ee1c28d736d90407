"""What a coalition can compute from a round's wire and its own secrets, really computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from privfl.core import ClientId, Received, RoundPlan, Rows, Total, client_of, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Backend, Words, backend, fields, mask
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import lift
from privfl.crypto.secagg import keys, wire
from privfl.crypto.secagg.keys import SEALED
from privfl.crypto.secagg.pairs import Pairs
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings, degree_for
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.secagg.unmask import Unmasking
from privfl.crypto.sharing import shamir

Kept = Mapping[bytes, Pairs]


@dataclass
class SecAggCoalitionView:
    """The server's mail of one round, read again, with the secrets of the clients that collude."""

    settings: SecAggSettings
    members: Sequence[Kept]
    tag: bytes = b""
    plan: RoundPlan | None = None
    ring: int = 32
    ids: dict[int, ClientId] = field(default_factory=dict)
    publics: dict[int, bytes] = field(default_factory=dict)
    sealed: dict[int, dict[int, memoryview]] = field(default_factory=dict)
    commitments: dict[int, bytes] = field(default_factory=dict)
    vectors: dict[int, Words] = field(default_factory=dict)
    seeds: dict[int, dict[int, int]] = field(default_factory=dict)
    secrets: dict[int, dict[int, int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, settings: SecAggSettings, received: Received, members: Sequence[Kept]
    ) -> SecAggCoalitionView:
        """Sort the server's mail; what cannot be read is passed over, as the server does."""
        tap = cls(settings, members)
        for mail in received.get("server", ()):
            for who, body in mail.items():
                client = client_of(who)
                try:
                    kind, position, tag, content = wire.read(body)
                    if client is not None and (not tap.tag or tag == tap.tag):
                        tap.tag = tag
                        tap.ring = wire.FORMAT.read(body).ring
                        tap._take(kind, position, content)
                        tap.ids[position] = client
                except (Malformed, ValueError):
                    continue
        return tap

    def _take(self, kind: Kind, position: int, content: memoryview) -> None:
        n = 1 << 32 if self.plan is None else self.plan.n
        if kind is Kind.ADVERTISE:
            self.publics.setdefault(position, bytes(content[: 32 if self.settings.active else 64]))
        elif kind is Kind.SHARES:
            self.commitments.setdefault(position, bytes(content[:32]))
            self.sealed.setdefault(position, fields.read_table(content[32:], SEALED, n)[0])
        elif kind is Kind.MASKED:
            self.plan, packed = fields.read_facts(content)
            length = self.settings.code.length(self.plan)
            size = length * self.ring // 8
            self.vectors.setdefault(position, fields.unpack(packed[:size], self.ring, length))
        elif kind is Kind.UNMASK:
            seeds, rest = fields.read_table(content, shamir.SIZE, n)
            gone, _ = fields.read_table(rest, shamir.SIZE, n)
            for known, shares in ((self.seeds, seeds), (self.secrets, gone)):
                for owner, raw in shares.items():
                    known.setdefault(owner, {})[position + 1] = shamir.from_bytes(raw)

    def opened(self) -> Rows | Total | None:
        """Rows where the coalition can open any, else the total where the round ended, else
        nothing.
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
        if rows is not None:
            return rows
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
            boxes = {
                sender: sealed_boxes[receiver]
                for sender, sealed_boxes in self.sealed.items()
                if receiver in sealed_boxes and sender in self.publics
            }
            for sender, plain in held.open(boxes).items():
                for known, raw in (
                    (self.seeds, plain[: shamir.SIZE]),
                    (self.secrets, plain[shamir.SIZE :]),
                ):
                    if shamir.in_range(raw):
                        known.setdefault(sender, {})[receiver + 1] = shamir.from_bytes(raw)

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
        toward: dict[int, set[int]] = {
            i: set(sealed_boxes) for i, sealed_boxes in self.sealed.items()
        }
        for sender, sealed_boxes in self.sealed.items():
            for receiver in sealed_boxes:
                toward.setdefault(receiver, set()).add(sender)
        return {i: frozenset(others) for i, others in toward.items()}

    def _name(self, position: int) -> str:
        return client_party(self.ids[position])
