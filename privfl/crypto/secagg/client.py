"""A client's part: advertise keys, share secrets, send one masked vector, answer once for the
survivors.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    Bounded,
    Buffer,
    KeepsSecrets,
    KnownKeys,
    Mail,
    PartyKeys,
    RoundPlan,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Backend, BackendName, Words, backend, fields, mask
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg import keys, wire
from privfl.crypto.secagg.graph import pick
from privfl.crypto.secagg.keys import KEYS, SEALED, SIGNATURE, Agreement, RoundKeys
from privfl.crypto.secagg.parameters import SecAggParameters, SecAggSettings, unit_l2
from privfl.crypto.secagg.stage import STAGE, Kind
from privfl.crypto.sharing import shamir


def ring_vector(
    settings: SecAggSettings, update: Bounded, plan: RoundPlan, parameters: SecAggParameters
) -> Words:
    """A contribution in the ring [d + 1], with its share of the noise.

    Raises:
        BadUpdate: as `FixedPoint.encode`.
    """
    if settings.noise is None:
        narrow = settings.code.encode(update, plan, dtype=np.int32)
        return narrow.view(np.uint32).astype(parameters.dtype, copy=False)
    wide = settings.code.encode(update, plan).astype(np.int64, copy=False)
    wide[:-1] = settings.noise.add(
        wide[:-1], unit_l2(settings, plan), parameters.quorum, settings.noise_source
    )
    return wide.astype(parameters.dtype)


@dataclass(repr=False)
class SecAggClientParty(KeepsSecrets):
    """One client in one round. Each message is answered once; a second, different one of its kind
    is an equivocation and ends the party.

    It never reveals both shares of one client, only answers for a set of at least the quorum that
    it is in itself, and against an active server only after t holders of its own shares signed the
    same set.
    """

    parameters: SecAggParameters
    cohort: tuple[int, ...]
    position: int
    keys: RoundKeys
    identity: PartyKeys
    directory: KnownKeys
    library_name: BackendName
    epoch: bytes
    facts: bytes
    vector: Words | None
    refused: str | None = None
    speaks_first: bool = True
    next_advert: bytes = b""
    expects: Kind = Kind.KEYS
    answered: dict[int, bytes] = field(default_factory=dict)
    adverts: dict[int, bytes] = field(default_factory=dict)
    holders: tuple[int, ...] = ()
    agreed: dict[int, bytes] = field(default_factory=dict)
    seed_shares: dict[int, bytes] = field(default_factory=dict)
    key_shares: dict[int, bytes] = field(default_factory=dict)
    sharing: frozenset[int] = frozenset()
    survivors: frozenset[int] = frozenset()
    statement: bytes = b""

    def step(self, mail: Mail) -> Mail:
        """Answer the server; everybody else's mail is ignored."""
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
            return {"server": self._answer(kind, content)}
        except Malformed as malformed:
            raise StageAbort(
                STAGE[self.expects], f"the server's message cannot be used: {malformed}", "server"
            ) from None

    def _start(self) -> Mail:
        self.speaks_first = False
        return {
            "server": self._write(
                Kind.ADVERTISE, self.keys.public, self._signed(self.epoch, self.keys.public)
            )
        }

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
        """Split the secret key and the mask seed among the neighbours, sealed to each."""
        parameters, library = self.parameters, self._library
        width = KEYS + (SIGNATURE if parameters.active else 0)
        adverts, rest = fields.read_table(content, width, parameters.n)
        fields.ends(rest)
        adverts.pop(self.position, None)
        if not parameters.chosen and not adverts.keys() <= set(
            parameters.neighbours(self.position)
        ):
            raise Malformed("keys of clients that are no neighbours")
        if (
            len({bytes(a[:KEYS]) for a in adverts.values()} | {self.keys.public})
            != len(adverts) + 1
        ):
            raise StageAbort("share_keys", "two clients have the same keys", "server")
        chosen = (
            pick(sorted(adverts), parameters.degree.k)
            if parameters.chosen
            else tuple(sorted(adverts))
        )
        self.holders = tuple(sorted((*chosen, self.position)))
        self._enough(len(self.holders), "share_keys", "advertised keys")
        self.adverts = {other: bytes(advert) for other, advert in adverts.items()}
        for other in chosen:
            self._check(other)
        points = [holder + 1 for holder in self.holders]
        seeds = shamir.split(shamir.from_bytes(self.keys.b), points, parameters.degree.t)
        secret = shamir.split(shamir.from_bytes(self.keys.s), points, parameters.degree.t)
        agree = library.agreement(self.keys.c)
        self.agreed = {other: self._agree(agree, other, 0) for other in chosen}
        sealed: dict[int, Buffer] = {}
        for other in chosen:
            plain = shamir.to_bytes(seeds[other + 1]) + shamir.to_bytes(secret[other + 1])
            key = keys.share_key(self.agreed[other], parameters.tag, self.position, other)
            nonce = secrets.token_bytes(12)
            sealed[other] = nonce + library.seal(
                key, nonce, plain, keys.bound_to(parameters.tag, self.position, other)
            )
        self.seed_shares[self.position] = shamir.to_bytes(seeds[self.position + 1])
        self.key_shares[self.position] = shamir.to_bytes(secret[self.position + 1])
        self.expects = Kind.INBOX
        bound = keys.commitment(parameters.tag, self.position, self.keys.b)
        return self._write(Kind.SHARES, bound, fields.table(sealed))

    def _masked(self, content: memoryview) -> bytes:
        """Open the shares of the others, and send the vector under all masks."""
        parameters, library = self.parameters, self._library
        sharing, rest = fields.read_bit_set(content, parameters.n)
        inbox, rest = fields.read_table(rest, SEALED, parameters.n)
        fields.ends(rest)
        if self.position not in sharing:
            raise StageAbort(
                "masked_input", "the server says that this client shared no keys", "server"
            )
        self._enough(len(sharing & set(self.holders)), "masked_input", "shared keys")
        expected = sharing & set(self.holders) - {self.position}
        if (
            (inbox.keys() != expected)
            if not parameters.chosen
            else not inbox.keys() <= sharing & self.adverts.keys()
        ):
            raise Malformed(
                "shares of clients that shared none with this one, or none of clients that did"
            )
        agree = library.agreement(self.keys.c)
        for other, sealed in inbox.items():
            if other not in self.agreed:
                self._check(other)
                self.agreed[other] = self._agree(agree, other, 0)
            key = keys.share_key(self.agreed[other], parameters.tag, other, self.position)
            plain = library.unseal(
                key,
                bytes(sealed[:12]),
                bytes(sealed[12:]),
                keys.bound_to(parameters.tag, other, self.position),
            )
            if (
                plain is not None and len(plain) == 2 * shamir.SIZE
            ):  # a lying client's: the other holders' will do
                self.seed_shares[other], self.key_shares[other] = (
                    plain[: shamir.SIZE],
                    plain[shamir.SIZE :],
                )
        agree = library.agreement(self.keys.s)
        seeds = [(keys.self_seed(self.keys.b, parameters.tag), 1)]
        for other in sorted(expected | inbox.keys()):
            seed = keys.pair_seed(
                self._agree(agree, other, 32), parameters.tag, self.position, other
            )
            seeds.append((seed, keys.pair_sign(self.position, other)))
        vector, self.vector = self.vector, None
        if vector is None:
            raise StageAbort("masked_input", "the vector was sent before", "server")
        mask(vector, seeds, library)
        self.sharing, self.expects = sharing, Kind.SURVIVORS
        return self._write(Kind.MASKED, self.facts, fields.pack(vector, parameters.ring))

    def _survivors(self, content: memoryview) -> bytes:
        survivors, rest = fields.read_bit_set(content, self.parameters.n)
        fields.ends(rest)
        if self.position not in survivors:
            raise StageAbort(
                "consistency", "the server says that this client dropped out, and asks it", "server"
            )
        if not survivors <= self.sharing:
            raise StageAbort(
                "consistency", "the server lists survivors that never shared keys", "server"
            )
        if len(survivors) < self.parameters.quorum:
            raise StageAbort(
                "consistency",
                f"{len(survivors)} survivors where at least {self.parameters.quorum} are summed",
                "server",
            )
        self._enough(len(survivors & set(self.holders)), "consistency", "survived")
        self.survivors = survivors
        if not self.parameters.active:
            return self._unmask()
        self.statement = keys.survivors_statement(self.parameters.tag, content)
        self.expects = Kind.SIGNATURES
        return self._write(Kind.CONSISTENCY, self.identity.sign(self.statement))

    def _signatures(self, content: memoryview) -> bytes:
        signatures, rest = fields.read_table(content, SIGNATURE, self.parameters.n)
        fields.ends(rest)
        signed = 1 + sum(
            other in self.holders
            and other in self.survivors
            and other != self.position
            and self._verify(other, self.statement, signature)
            for other, signature in signatures.items()
        )
        self._enough(signed, "unmask", "signed the same survivor set")
        return self._unmask()

    def _unmask(self) -> bytes:
        """One share of each client whose shares this one holds: of the seed where it survived, of
        the key where it dropped out.
        """
        seeds = {
            other: share for other, share in self.seed_shares.items() if other in self.survivors
        }
        gone = {
            other: share
            for other, share in self.key_shares.items()
            if other in self.sharing and other not in self.survivors
        }
        self.seed_shares, self.key_shares, self.adverts, self.agreed = {}, {}, {}, {}
        return self._write(Kind.UNMASK, fields.table(seeds), fields.table(gone), self.next_advert)

    def _enough(self, count: int, stage: str, did: str) -> None:
        if count < self.parameters.degree.t:
            raise StageAbort(
                stage,
                f"{count} of this client's share holders {did}, and the threshold is"
                f" {self.parameters.degree.t}",
            )

    def _check(self, other: int) -> None:
        """Against an active server: the keys are signed by the identity that the directory
        knows.
        """
        if self.parameters.active:
            advert = self.adverts[other]
            signed = keys.advertisement(self.epoch, self.cohort[other], advert[:KEYS])
            if not self._verify(other, signed, advert[KEYS:]):
                raise StageAbort(
                    "share_keys",
                    f"the keys of client {self.cohort[other]} are not signed by its identity",
                    "server",
                )

    def _verify(self, other: int, message: bytes, signature: Buffer) -> bool:
        known = self.directory.keys(client_party(self.cohort[other]))
        return any(
            self._library.verify(public, message, bytes(signature)) for public in reversed(known)
        )

    def _agree(self, agree: Agreement, other: int, offset: int) -> bytes:
        try:
            return agree(bytes(self.adverts[other][offset : offset + 32]))
        except ValueError:
            raise StageAbort(
                "share_keys", "an unusable public key", client_party(self.cohort[other])
            ) from None

    def _signed(self, epoch: bytes, public: bytes) -> bytes:
        if not self.parameters.active:
            return b""
        return self.identity.sign(keys.advertisement(epoch, self.cohort[self.position], public))

    def _write(self, kind: Kind, *parts: Buffer) -> bytes:
        return wire.write(kind, self.parameters.ring, self.position, self.parameters.tag, *parts)

    @property
    def _library(self) -> Backend:
        return backend(self.library_name)
