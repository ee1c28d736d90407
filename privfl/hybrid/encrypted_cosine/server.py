"""The server: it computes on ciphertexts, learns scores, and opens one weighted sum."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, field

import numpy as np
import torch

from privfl.core import (
    Abort,
    Buffer,
    ClientId,
    KeepsSecrets,
    Mail,
    Opened,
    PartyId,
    RoundPlan,
    Total,
    Vector,
    client_party,
)
from privfl.crypto.he.collecting import collect, enough
from privfl.crypto.he.lattice.residues import Words
from privfl.crypto.he.wire import Refused, SignedMessage, pack, unpack
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, Ring
from privfl.hybrid.encrypted_cosine.mail import (
    CIPHERTEXT,
    OPENED,
    QUESTIONS,
    SCORES,
    SUM,
    Note,
    checked,
    numbers_from_bytes,
    opened_from,
    unbox,
)
from privfl.hybrid.encrypted_cosine.packing import packing
from privfl.hybrid.encrypted_cosine.parameters import PROBES, CosineParameters, Integers
from privfl.hybrid.encrypted_cosine.products import Products, products, signs, weighted_sum, zero
from privfl.hybrid.encrypted_cosine.queries import question, to_bytes
from privfl.hybrid.encrypted_cosine.weighing import (
    CosineScores,
    Floats,
    Trust,
    cosines,
    integer_weights,
    lengths,
    too_long,
)

_TIMER = b"wait"
_CLOSED = "the message came after the ciphertexts were closed"
_PATIENCE = 2
"""Exchanges until an answer is there: the question travels in one, the answer in the next."""
Asked = tuple[ClientId, int, int]
"""A question: about whom (-1: a probe), along which direction, under which mask."""


@dataclass(repr=False)
class Memory(KeepsSecrets):
    """What the server's member keeps beside its keys: the last aggregate."""

    previous: Vector | None = None


@dataclass(repr=False)
class CosineServerRound(KeepsSecrets):
    """Collect; ask for masked scores; weigh; ask for the masked sum; check it against the scores;
    open it.

    ``reference`` is an integer vector [d] of the common length, None where there is none yet; rows
    get the length ``length``.
    """

    ring: Ring
    plan: RoundPlan
    trust: Trust
    memory: Memory
    reference: Integers | None
    length: float
    seed: bytes = b""
    messages: dict[ClientId, SignedMessage] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    awaited: bytes = CIPHERTEXT
    waited: int = 0
    asked: list[Asked] = field(default_factory=list)
    squared: list[Asked] = field(default_factory=list)
    scores: CosineScores | None = None
    weights: dict[ClientId, int] = field(default_factory=dict)
    note: Note | None = None
    disclosed: dict[str, torch.Tensor] = field(default_factory=dict)
    opened: Opened[Total] | None = None

    @property
    def result(self) -> Opened[Total] | None:
        """The weighted sum, once it is opened."""
        return self.opened

    def step(self, mail: Mail) -> Mail:
        """Take clients' ciphertexts; then the key holder's two answers."""
        if self.opened is not None or not mail:
            return {}
        self._collect(mail)
        if self.awaited == CIPHERTEXT:
            return self._ask_for_scores()
        try:
            if KEY_HOLDER in mail and not self._twice(mail[KEY_HOLDER]):
                answer = checked(self.ring, mail[KEY_HOLDER], KEY_HOLDER, self.awaited, self.plan)
                return self._ask_for_sum(answer) if self.awaited == SCORES else self._open(answer)
        except (Refused, ValueError) as refused:
            raise Abort(
                f"the key holder's answer cannot be used: {refused}", blamed=KEY_HOLDER
            ) from refused
        self.waited += 1
        if self.waited >= _PATIENCE:
            raise Abort(
                f"{KEY_HOLDER} did not answer server: one of them is silent, or their mail is lost,"
                " and nothing tells which"
            )
        return {"server": _TIMER}

    def _twice(self, body: Buffer) -> bool:
        """Whether the post brings the scores again."""
        return self.awaited == OPENED and SignedMessage.read(body).kind == SCORES

    def _collect(self, mail: Mail) -> None:
        late = "" if self.awaited == CIPHERTEXT else _CLOSED
        collect(mail, self.plan, self.messages, self.excluded, self._add, late)

    def _add(self, client: ClientId, body: Buffer) -> None:
        message = checked(self.ring, body, client_party(client), CIPHERTEXT, self.plan)
        due, chunks = self.ring.setting.chunks(self.plan), unpack(_body(message))
        if len(chunks) != due:
            raise Refused(f"{len(chunks)} ciphertexts where {due} were due")
        self.messages[client] = message

    def _chunks(self) -> dict[ClientId, list[memoryview]]:
        return {c: unpack(_body(self.messages[c])) for c in self.plan.cohort if c in self.messages}

    def _enough(self, count: int, did: str) -> None:
        enough(count, did, self.ring.setting.min_clients, self.plan, self.excluded)

    def _directions(self, number: int) -> Integers:
        """Chunk ``number`` of the public vectors: random signs, the constant vector for Pearson,
        the reference.
        """
        setting, degree = self.ring.setting, self.ring.setting.lattice.degree
        width = min(degree, self.plan.d - number * degree)
        rows = [signs(self.seed, number, setting.projections, width)]
        if setting.similarity == "pearson":
            rows.append(np.ones((1, width), dtype=np.int64))
        if self.reference is not None:
            rows.append(self.reference[None, number * degree : number * degree + width])
        return np.concatenate(rows)

    def _ask_for_scores(self) -> Mail:
        self._enough(len(self.messages), "sent a usable ciphertext")
        ring, setting = self.ring, self.ring.setting
        self.seed = secrets.token_bytes(
            32
        )  # not before the ciphertexts are in: a vector made for known signs would pass them
        computed = products(
            setting.lattice, self._chunks(), self._directions, square=setting.norms == "exact"
        )
        for client, reason in computed.refused.items():
            self.excluded[client_party(client)] = reason
            del self.messages[client]
        self._enough(len(self.messages), "sent a usable ciphertext")
        dots, squares = self._questions(computed, setting)
        heads = pack([self.messages[c].without([0]).to_bytes() for c in self.messages])
        parts = (heads, to_bytes(setting.lattice, dots), to_bytes(setting.lattice, squares))
        self.awaited, self.waited = SCORES, 0
        body = SignedMessage.signed(
            ring.identity, QUESTIONS, ring.topic(self.plan), "server", parts
        ).to_bytes()
        return {KEY_HOLDER: body, "server": _TIMER}

    def _questions(self, computed: Products, setting: CosineParameters) -> tuple[Words, Words]:
        """Every product under a mask of its own, in an order that tells the key holder nothing,
        probes among them.
        """
        ring, lattice = self.ring, setting.lattice
        pending = [
            (c, i, product)
            for c, sums in computed.dots.items()
            for i, product in enumerate(sums)
            if product is not None
        ]
        pending += [(-1, 0, zero(ring.key())) for _ in range(PROBES)]
        random.SystemRandom().shuffle(pending)
        squares = (
            [(c, 0, computed.squares[c]) for c in computed.dots] if setting.norms == "exact" else []
        )
        self.asked = [(c, i, secrets.randbelow(setting.t)) for c, i, _ in pending]
        self.squared = [(c, i, secrets.randbelow(setting.t)) for c, i, _ in squares]
        asked = [
            question(lattice, p[2], a[2], setting.flood_bits)
            for p, a in zip(pending, self.asked, strict=True)
        ]
        squared = [
            question(lattice, p[2], a[2], setting.flood_bits)
            for p, a in zip(squares, self.squared, strict=True)
        ]
        nothing = np.empty((0, 1 + 2 * lattice.degree), dtype=np.uint64)
        return np.stack(asked), np.stack(squared) if squared else nothing

    def _ask_for_sum(self, answer: SignedMessage) -> Mail:
        self.scores = scores = self._scores(answer)
        ring, setting, plan = self.ring, self.ring.setting, self.plan
        refused = too_long(scores, setting, plan.d)
        self.excluded |= {client_party(client): reason for client, reason in refused.items()}
        accepted = np.array([client not in refused for client in scores.clients])
        similar = (
            np.zeros(len(accepted)) if self.reference is None else cosines(scores, self.reference)
        )
        trusted = np.ones(len(accepted)) if self.reference is None else self.trust(similar)
        integers = np.zeros(len(accepted), dtype=np.int64)
        integers[accepted], per = integer_weights(
            trusted[accepted], setting, fixed=self.trust.fixed
        )
        self.weights = dict(zip(scores.clients, integers.tolist(), strict=True))
        self.disclosed = _disclosed(
            scores, similar, integers / per if per else integers.astype(np.float64), setting
        )
        count = int((integers > 0).sum())
        if count == 0:  # the model stays
            return self._opened(Total(torch.zeros(plan.d), float(len(accepted)), len(accepted)))
        self._enough(count, "are trusted")
        divisor = per * float(accepted.sum()) if self.trust.fixed else float(integers.sum())
        self.note = Note(
            secrets.token_bytes(32), self.length / (divisor * setting.unit), count, plan.d
        )
        total = weighted_sum(
            ring.key(), self._chunks(), self.weights, self.note.masks(setting), setting.flood_bits
        )
        topic = ring.topic(plan)
        parts = (self.note.sealed(ring, topic), count.to_bytes(4, "little"), pack(total))
        self.awaited, self.waited = OPENED, 0
        return {
            KEY_HOLDER: SignedMessage.signed(ring.identity, SUM, topic, "server", parts).to_bytes(),
            "server": _TIMER,
        }

    def _scores(self, answer: SignedMessage) -> CosineScores:
        setting = self.ring.setting
        if len(parts := unbox(self.ring, answer)) != 2:
            raise Refused("scores of another form")
        factor = packing(setting.lattice).factor
        clients = tuple(self._chunks())
        table = {c: [0] * (setting.directions - (self.reference is None)) for c in clients}
        squares: dict[ClientId, int] = {}
        for asked, body, into in ((self.asked, parts[0], None), (self.squared, parts[1], squares)):
            found = numbers_from_bytes(body, len(asked), setting.t).tolist()
            for (client, index, mask), number in zip(asked, found, strict=True):
                value = (number - mask) * factor % setting.t
                if client < 0:
                    if value:
                        raise Refused("it answered a question of known answer wrong")
                elif into is None:
                    table[client][index] = value
                else:
                    into[client] = value
        rows = setting.centred(np.array([table[c] for c in clients], dtype=np.int64))
        k = setting.projections
        return CosineScores(
            clients,
            dots=None if self.reference is None else rows[:, -1],
            projections=rows[:, :k],
            sums=rows[:, k] if setting.similarity == "pearson" else None,
            squares=np.array([squares[c] for c in clients], dtype=np.int64) if squares else None,
            totals=self._totals() if setting.similarity == "pearson" else None,
        )

    def _totals(self) -> Integers:
        """The sum of the entries of each random vector."""
        setting = self.ring.setting
        found = np.zeros(setting.projections, dtype=np.int64)
        for number in range(setting.chunks(self.plan)):
            found += self._directions(number)[: setting.projections].sum(axis=1)
        return found

    def _open(self, answer: SignedMessage) -> Mail:
        setting = self.ring.setting
        note, polynomials = opened_from(self.ring, answer)
        if note != self.note or self.scores is None:
            raise Refused("it belongs to another sum")
        integers = note.unmasked(setting, polynomials)
        self._check(integers, self.scores, setting)
        return self._opened(note.total(integers))

    def _check(self, integers: Integers, scores: CosineScores, setting: CosineParameters) -> None:
        """The sum must have along every direction what its clients had: a key holder that changes a
        coordinate knows no direction.

        They agree exactly where clients encrypt integers. One that encrypts fractions moves every
        rounding by less than one, and must not end the round by that.
        """
        degree = setting.lattice.degree
        weights = np.array([self.weights[c] for c in scores.clients], dtype=np.int64)
        columns = [
            scores.projections,
            *(x[:, None] for x in (scores.sums, scores.dots) if x is not None),
        ]
        apart = -(weights @ np.concatenate(columns, axis=1)) % setting.t
        allowed = np.full(len(apart), weights.sum())
        for number in range(setting.chunks(self.plan)):
            directions = self._directions(number)
            apart = (
                apart + directions @ integers[number * degree : (number + 1) * degree]
            ) % setting.t
            allowed += np.abs(directions).sum(axis=1)
        if (np.abs(setting.centred(apart)) > allowed).any():
            raise Refused("the opened sum does not agree with the scores")

    def _opened(self, total: Total) -> Mail:
        survivors = tuple(c for c in self.messages if client_party(c) not in self.excluded)
        ordered = tuple(c for c in self.plan.cohort if c in survivors)
        self.opened = Opened(total, ordered, disclosed=self.disclosed, excluded=dict(self.excluded))
        if bool(total.value.any()):
            self.memory.previous = total.mean()
        return {}


def _body(message: SignedMessage) -> Buffer:
    if len(parts := message.whole()) != 1:
        raise Refused("ciphertexts of another form")
    return parts[0]


def _disclosed(
    scores: CosineScores, similar: Floats, weights: Floats, setting: CosineParameters
) -> dict[str, torch.Tensor]:
    """All that the server learned beside the sum; rows in the order of ``client``."""
    shown = {
        "client": torch.tensor(scores.clients, dtype=torch.int64),
        "norm": torch.from_numpy(lengths(scores, setting).astype(np.float32)),
        "projection": torch.from_numpy((scores.projections / setting.unit).astype(np.float32)),
        "weight": torch.from_numpy(weights.astype(np.float32)),
    }
    if scores.dots is not None:
        shown["cosine"] = torch.from_numpy(similar.astype(np.float32))
    if scores.sums is not None:
        shown["sum"] = torch.from_numpy((scores.sums / setting.unit).astype(np.float32))
    return shown
