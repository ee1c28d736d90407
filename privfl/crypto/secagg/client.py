"""A client's part: advertise keys, share secrets, send one masked vector, answer once for the
survivors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    BadUpdate,
    Bounded,
    Buffer,
    KeepsSecrets,
    Mail,
    PartyId,
    PartyKeys,
    RoundPlan,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.own_noise import own_noise
from privfl.crypto.primitives import Words, backend, fields, mask
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import ring_words
from privfl.crypto.secagg import boxes, keys, wire
from privfl.crypto.secagg.graph import pick
from privfl.crypto.secagg.keys import WORD, RoundKeys
from privfl.crypto.secagg.pairs import Pairs
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings, unit_l2
from privfl.crypto.secagg.stage import STAGE, Kind
from privfl.crypto.sharing import shamir


def ring_vector(
    settings: SecAggSettings, update: Bounded, plan: RoundPlan, parameters: SecAggParameters
) -> Words:
    """A contribution in the ring [d + words], with its share of the noise.

    Raises:
        BadUpdate: as `FixedPoint.encode`.
    """
    if settings.noise is None:
        return ring_words(settings.code, update, plan, parameters.ring)
    wide = settings.code.encode(update, plan).astype(np.int64, copy=False)
    values = wide[: plan.d]
    source = own_noise(settings.noise_source, plan, client_party(update.client))
    wide[: plan.d] = settings.noise.add(values, unit_l2(settings, plan), parameters.quorum, source)
    return wide.astype(parameters.dtype)


@dataclass(repr=False)
class SecAggClientParty(KeepsSecrets):
    """One client in one round. Each message is answered once; a second, different one of its kind
    is an equivocation and ends the party.

    It never reveals both shares of one client, and only answers for a set of at least the quorum
    that it is in itself. Against an active server it draws its share holders from the whole cohort
    before it is told anybody's keys, so that one who does not advertise has dropped out and is
    replaced by nobody; it answers only after t of its holders said that they hold the same set of
    survivors, and the same set of those who shared keys, to be the round's; and gives a share of a
    seed only to open a vector whose sender said that it masked for the latter set.

    ``later`` makes the vector where there is none yet, once it is due; where it makes none, the
    party falls silent.
    """

    pairs: Pairs
    identity: PartyKeys
    epoch: bytes
    facts: bytes
    vector: Words | None
    refused: str | None = None
    speaks_first: bool = True
    next_advert: bytes = b""
    expects: Kind = Kind.KEYS
    answered: dict[int, bytes] = field(default_factory=dict)
    drawn: tuple[int, ...] = ()
    holders: tuple[int, ...] = ()
    seed_shares: dict[int, bytes] = field(default_factory=dict)
    key_shares: dict[int, bytes] = field(default_factory=dict)
    sharing: frozenset[int] = frozenset()
    survivors: frozenset[int] = frozenset()
    masked: bytes = b""
    agreed: bytes = b""
    later: Callable[[], Words | None] | None = None
    vouched: set[int] = field(default_factory=set)
    over: tuple[str, str, PartyId | None, tuple[PartyId, ...]] | None = None

    def step(self, mail: Mail) -> Mail:
        """Answer the server; everybody else's mail is ignored. A party that gave up stays so."""
        if self.over is None:
            try:
                return self._step(mail)
            except StageAbort as abort:
                self.over = (abort.stage, abort.why, abort.blamed, abort.who)
                self.seed_shares, self.key_shares, self.vector = {}, {}, None
        raise StageAbort(*self.over)

    def _step(self, mail: Mail) -> Mail:
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.cohort[self.position]))
        body = mail.get("server")
        if body is None:
            return self._start() if self.speaks_first else {}
        try:
            kind, _, _, content = wire.read(body, self.parameters.tag)
            if self._answered(kind, body):
                return {}
            if kind not in (self.expects, Kind.CALL):
                raise StageAbort(
                    STAGE[self.expects],
                    f"the server sent {kind.name} where {self.expects.name} was due",
                    "server",
                )
            answer = self._answer(kind, content)
            return {"server": answer} if answer else {}
        except Malformed as malformed:
            raise StageAbort(
                STAGE[self.expects], f"the server's message cannot be used: {malformed}", "server"
            ) from None

    def _start(self) -> Mail:
        self.speaks_first = False
        parameters, public, drawn = self.parameters, self.keys.public, b""
        if parameters.chosen:
            # once: a server that calls again is given no second draw to choose from
            self.drawn = self.drawn or pick(parameters.n, parameters.degree.k, self.position)
            drawn = fields.some(self.drawn, parameters.n)
        signed = b""
        if parameters.active:
            client = self.cohort[self.position]
            signed = self.identity.sign(keys.advertisement(self.epoch, client, public))
        return {"server": self._write(Kind.ADVERTISE, public, signed, drawn)}

    def _answered(self, kind: Kind, body: Buffer) -> bool:
        """Whether this very message was answered before: the network may double it, the server may
        not change it.
        """
        digest = hashlib.sha256(body).digest()
        known = self.answered.setdefault(kind, digest)
        if known is not digest and known != digest:
            raise StageAbort(
                STAGE[kind], f"the server sent two different {kind.name} messages", "server"
            )
        return known is not digest

    def _answer(self, kind: Kind, content: memoryview) -> bytes:
        if kind is Kind.CALL:
            return bytes(self._start()["server"])
        if kind is Kind.KEYS:
            return self._share(content)
        if kind is Kind.INBOX:
            return self._masked(content)
        if kind is Kind.SURVIVORS:
            return self._survivors(content)
        return self._signatures(content)

    def _share(self, content: memoryview) -> bytes:
        """Split the secret key and the mask seed among the holders, sealed to each."""
        parameters = self.parameters
        adverts, rest = fields.read_table(content, parameters.key_bytes, parameters.n)
        fields.ends(rest)
        if adverts.pop(self.position, self.keys.public) != self.keys.public:
            raise StageAbort(
                "share_keys",
                "the server has other keys of this client's, which it has lost: it drops out",
            )
        due = self.drawn if parameters.chosen else parameters.neighbours(self.position)
        if not adverts.keys() <= set(due):
            raise Malformed("keys of clients that hold no shares of this one's")
        self.pairs.meet(adverts)
        self.holders = tuple(sorted((*adverts, self.position)))
        self._enough(len(self.holders), "share_keys", "advertised keys")
        agreed: dict[int, tuple[int, int]] = {}
        if parameters.active:
            reached = self.pairs.reach(sorted(adverts))
            self.holders = tuple(sorted((*reached, self.position)))
            self._enough(len(self.holders), "share_keys", "are in the directory")
            agreed = {i: self.pairs.common(i) for i in reached[: parameters.degree.t - 1]}
        plain = self.dealing(agreed)
        self._keep(self.position, plain.pop(self.position))
        boxed = self.pairs.seal(plain, agreed)
        self.expects = Kind.INBOX
        bound = keys.commitment(parameters.tag, self.position, self.keys.b)
        return self._write(Kind.SHARES, bound, boxes.write(parameters, boxed))

    def dealing(self, agreed: Mapping[int, tuple[int, int]]) -> dict[int, bytes]:
        """A share of the seed and one of the key for each holder: ``agreed`` ones, and the others
        on the polynomials through these; without any, on polynomials that are drawn.
        """
        t, points = (
            self.parameters.degree.t,
            self.parameters.points(self.position, self.drawn or self.holders),
        )
        out = dict.fromkeys(self.holders, b"")
        for i, secret in enumerate((self.keys.b, self.keys.s)):
            whole, shares = shamir.from_bytes(secret), {}
            known = {points[holder]: both[i] for holder, both in agreed.items()}
            rest = [points[holder] for holder in self.holders if holder not in agreed]
            if agreed:
                shares = {**known, **shamir.through(whole, known, rest)}
            else:
                shares = shamir.split(whole, rest, t)
            for holder in out:
                out[holder] += shamir.to_bytes(shares[points[holder]])
        return out

    def _masked(self, content: memoryview) -> bytes:
        """Open the shares of the others, and send the vector under all masks."""
        parameters = self.parameters
        sharing, rest = fields.read_most(content, parameters.n)
        added = parameters.key_bytes if parameters.chosen else 0
        inbox, rest = boxes.read(parameters, rest, added)
        fields.ends(rest)
        if self.position not in sharing:
            raise StageAbort(
                "masked_input", "the server says that this client shared no keys", "server"
            )
        self._enough(len(sharing & set(self.holders)), "masked_input", "shared keys")
        expected = sharing & set(self.holders) - {self.position}
        known = sharing if parameters.chosen else sharing & self.pairs.publics.keys()
        if (
            not inbox.keys() <= known - {self.position}
            if parameters.active
            else inbox.keys() != expected
        ):
            raise Malformed(
                "shares of clients that shared none with this one, or none of clients that did"
            )
        if parameters.chosen:
            self.pairs.meet({other: row[:added] for other, row in inbox.items()})
        dealt = {other: row[added:] for other, row in inbox.items()}
        for other, plain in self.pairs.open(dealt).items():
            self._keep(other, plain)
        seeds = [(keys.self_seed(self.keys.b, parameters.tag), 1)]
        masks = self.pairs.mask_seeds(sorted(expected | inbox.keys()))
        seeds += [(seed, keys.pair_sign(self.position, other)) for other, seed in masks.items()]
        vector, self.vector = self.vector, None
        if self.later is not None:
            later, self.later = self.later, None
            vector = self._made(later)
            if vector is None:
                return b""
        if vector is None:
            raise StageAbort("masked_input", "the vector was sent before", "server")
        mask(vector, seeds, backend(self.pairs.library_name))
        self.sharing, self.expects = sharing, Kind.SURVIVORS
        packed = fields.pack(vector, parameters.ring)
        if not parameters.active:
            return self._write(Kind.MASKED, self.facts, packed)
        self.masked = hashlib.sha256(fields.bit_set(sharing, parameters.n)).digest()
        words = self.pairs.say("masked", expected, self.masked)
        return self._write(Kind.MASKED, self.facts, packed, *(words[i] for i in sorted(words)))

    def _made(self, later: Callable[[], Words | None]) -> Words | None:
        try:
            return later()
        except BadUpdate as bad:
            who = client_party(self.cohort[self.position])
            raise StageAbort("enter", str(bad), who) from None

    def _keep(self, owner: int, plain: bytes) -> None:
        """Keep shares, if they are any: of what is none, its holder would be blamed; of a liar's
        the other holders' will do.
        """
        seed, key = plain[: shamir.SIZE], plain[shamir.SIZE :]
        if shamir.in_range(seed) and shamir.in_range(key):
            self.seed_shares[owner], self.key_shares[owner] = seed, key

    def _survivors(self, content: memoryview) -> bytes:
        parameters = self.parameters
        survivors, rest = fields.read_most(content, parameters.n)
        words: dict[int, memoryview] = {}
        if parameters.active:
            words, rest = fields.read_table(rest, WORD, parameters.n)
        fields.ends(rest)
        if self.position not in survivors:
            raise StageAbort(
                "consistency", "the server says that this client dropped out, and asks it", "server"
            )
        if not survivors <= self.sharing:
            raise StageAbort(
                "consistency", "the server lists survivors that never shared keys", "server"
            )
        if len(survivors) < parameters.quorum:
            raise StageAbort(
                "consistency",
                f"{len(survivors)} survivors where at least {parameters.quorum} are summed",
                "server",
            )
        self._enough(len(survivors & set(self.holders)), "consistency", "survived")
        self.survivors = survivors
        if not parameters.active:
            return self._unmask()
        self.vouched = self.pairs.heard("masked", words, self.masked)
        listed = fields.bit_set(survivors, parameters.n)
        self.agreed = self.masked + hashlib.sha256(listed).digest()
        self.expects = Kind.SIGNATURES
        said = self.pairs.say("survivors", words, self.agreed)
        return self._write(
            Kind.CONSISTENCY, *(said.get(owner, bytes(WORD)) for owner in sorted(words))
        )

    def _signatures(self, content: memoryview) -> bytes:
        words, rest = fields.read_table(content, WORD, self.parameters.n)
        fields.ends(rest)
        asked = self.survivors.intersection(self.holders) - {self.position}
        heard = {other: word for other, word in words.items() if other in asked}
        confirmed = self.pairs.heard("survivors", heard, self.agreed)
        self._enough(1 + len(confirmed), "unmask", "confirmed the same sets")
        return self._unmask()

    def _unmask(self) -> bytes:
        """One share of each client whose shares this one holds: of the seed where it survived, of
        the key where it dropped out.
        """
        known = self.survivors
        if self.parameters.active:
            known = known & (self.vouched | {self.position})
        seeds = {other: share for other, share in self.seed_shares.items() if other in known}
        gone = {
            other: share
            for other, share in self.key_shares.items()
            if other in self.sharing and other not in self.survivors
        }
        self.seed_shares, self.key_shares = {}, {}
        return self._write(Kind.UNMASK, fields.table(seeds), fields.table(gone), self.next_advert)

    def _enough(self, count: int, stage: str, did: str) -> None:
        if count < self.parameters.degree.t:
            raise StageAbort(
                stage,
                f"{count} of this client's share holders {did}, and the threshold is"
                f" {self.parameters.degree.t}",
            )

    def _write(self, kind: Kind, *parts: Buffer) -> bytes:
        return wire.write(kind, self.parameters.ring, self.position, self.parameters.tag, *parts)

    @property
    def parameters(self) -> SecAggParameters:
        """The round's public parameters."""
        return self.pairs.now

    @property
    def cohort(self) -> tuple[int, ...]:
        """The round's clients, by position."""
        return self.pairs.cohort

    @property
    def position(self) -> int:
        """The client's place in the cohort."""
        return self.pairs.position

    @property
    def keys(self) -> RoundKeys:
        """The client's secrets of the round."""
        return self.pairs.keys
