"""Lies in secure aggregation, told by real parties: a server that puts its own keys in the place of
a client's neighbours, a client whose shares open nothing, clients that keep what they should not.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    Abort,
    Buffer,
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Opened,
    Party,
    PartyId,
    Received,
    RoundPlan,
    Rows,
    Total,
    Vector,
    client_party,
)
from privfl.crypto.frame import HEADER
from privfl.crypto.lies import Alters, TakesNotes, each, victim
from privfl.crypto.primitives import Words, backend, fields, mask
from privfl.crypto.ring import lift
from privfl.crypto.secagg import boxes, keys, wire
from privfl.crypto.secagg.client import SecAggClientParty
from privfl.crypto.secagg.keys import AGREED, SEALED, SIGNATURE, WORD, RoundKeys
from privfl.crypto.secagg.pairs import Pairs
from privfl.crypto.secagg.server import SecAggServerParty
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.sharing import shamir

Kept = Mapping[bytes, Pairs]
Took = dict[ClientId, Vector]


@dataclass(repr=False)
class KeySwapper(KeepsSecrets):
    """A server that talks to one client in the names of all its neighbours, with keys of its own:
    their shares of the client's seed and key are sealed to it, and their masks are its own to take
    off. It tells the others that the client dropped out.
    """

    honest: SecAggServerParty
    position: int
    took: Took
    own: dict[int, RoundKeys] = field(default_factory=dict)
    public: bytes = b""
    shares: dict[int, int] = field(default_factory=dict)
    vector: Words | None = None

    @property
    def result(self) -> Opened[Total] | None:
        """What the honest server opened without the client."""
        return self.honest.result

    def step(self, mail: Mail) -> Mail:
        """The honest server's mail to all others, and its own to the client."""
        who = client_party(self.honest.plan.cohort[self.position])
        rest = {sender: body for sender, body in mail.items() if sender != who}
        out: dict[PartyId, Buffer] = {}
        with contextlib.suppress(Abort):  # too few others: it goes on with its victim
            out = {
                to: body
                for to, body in self.honest.step(rest).items()
                if to != who or wire.read(body)[0] is Kind.CALL
            }
        answer = self._answer(mail[who]) if who in mail else None
        return out if answer is None else {**out, who: answer}

    def _answer(self, body: Buffer) -> bytes | None:
        now = self.honest.parameters
        kind, _, _, content = wire.read(body)
        if kind is Kind.ADVERTISE:
            library = backend(self.honest.library_name)
            self.public = bytes(content[: now.key_bytes])
            others: Iterable[int] = now.neighbours(self.position)
            if now.chosen:
                drawn = content[now.key_bytes + SIGNATURE :]
                others = fields.read_some(drawn, now.degree.k, now.n)[0]
            self.own = {j: RoundKeys.fresh(library, active=now.active) for j in others}
            adverts = {j: mine.public for j, mine in self.own.items()}
            return self._write(Kind.KEYS, fields.table(adverts))
        if kind is Kind.SHARES:
            self._open(content)
            size = AGREED if now.active else SEALED
            forged: dict[int, Buffer] = {
                j: (mine.public if now.chosen else b"") + secrets.token_bytes(size)
                for j, mine in self.own.items()
            }
            everybody, added = fields.most(range(now.n), now.n), len(self.public) * now.chosen
            return self._write(Kind.INBOX, everybody, boxes.write(now, forged, added))
        if kind is Kind.MASKED:
            packed = fields.after_facts(content, self.honest.facts)
            vector = fields.unpack(packed[: now.length * now.ring // 8], now.ring, now.length)
            self.vector = np.array(vector, dtype=now.dtype)
            words = [self._forged()] if now.active else []
            return self._write(Kind.SURVIVORS, fields.most(range(now.n), now.n), *words)
        if kind is Kind.CONSISTENCY:
            return self._write(Kind.SIGNATURES, self._forged())
        if kind is Kind.UNMASK:
            own, _ = fields.read_table(content, shamir.SIZE, now.n)
            self.shares[self.position + 1] = shamir.from_bytes(own[self.position])
            self._unmask()
        return None

    def _forged(self) -> bytes:
        """Words in the names of all neighbours, which it can only guess."""
        return fields.table({j: secrets.token_bytes(WORD) for j in self.own})

    def _open(self, content: memoryview) -> None:
        """Shares of the client's seed, as it sealed them to its supposed neighbours; in an active
        round they are nothing to it without the neighbours' lasting keys.
        """
        now, library = self.honest.parameters, backend(self.honest.library_name)
        sealed, _ = boxes.read(now, content[32:])
        self.own = {j: self.own[j] for j in sealed}
        if now.active:
            return
        for j, box in sealed.items():
            agreed = library.agreement(self.own[j].c)(self.public[:32])
            plain = library.unseal(
                keys.share_key(agreed, now.tag, self.position, j),
                bytes(box[:12]),
                bytes(box[2 * keys.DEALT :]),
                keys.bound_to(now.tag, self.position, j),
            )
            if plain is not None:
                self.shares[j + 1] = shamir.from_bytes(plain[: shamir.SIZE])

    def _unmask(self) -> None:
        now, library, vector = (
            self.honest.parameters,
            backend(self.honest.library_name),
            self.vector,
        )
        if vector is None:
            return
        seed = shamir.to_bytes(shamir.combine(self.shares))
        masks = [(keys.self_seed(seed, now.tag), -1)]
        for j, mine in self.own.items():
            agreed = library.agreement(mine.s)(self.public[-32:])
            pair = keys.pair_seed(agreed, now.tag, self.position, j)
            masks.append((pair, -keys.pair_sign(self.position, j)))
        mask(vector, masks, library)
        plan = self.honest.plan
        single = self.honest.code.decode(lift(vector, now.ring), plan, 1)
        self.took[plan.cohort[self.position]] = single.mean()

    def _write(self, kind: Kind, *parts: Buffer) -> bytes:
        now = self.honest.parameters
        return wire.write(kind, now.ring, 0, now.tag, *parts)


def swaps_keys() -> Liars:
    """The server of one secure aggregation as a `KeySwapper`."""
    took: Took = {}

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {"server": swapper(honest["server"], victim(plan, honest), took)}

    return Liars(enter=enter, took=lambda published: took)


def swapper(server: Party, client: ClientId, took: Took) -> KeySwapper:
    """A server that swaps the keys of this client's neighbours.

    Raises:
        ConfigError: it is no server of secure aggregation.
    """
    if not isinstance(server, SecAggServerParty):
        raise ConfigError(f"{type(server).__name__} is no server of secure aggregation.")
    return KeySwapper(server, server.plan.cohort.index(client), took)


def deals_wrong_shares() -> Liars:
    """A client that deals random bytes: it survives, and nobody can open its seed.

    Raises:
        ConfigError: once it takes the place of a party that is no client of secure aggregation.
    """

    def lies(honest: Party) -> Alters:
        if not isinstance(honest, SecAggClientParty):
            raise ConfigError(f"{type(honest).__name__} is no client of secure aggregation.")
        now = honest.parameters

        def garbled(to: PartyId, body: bytes) -> bytes:
            kind, _, _, content = wire.read(body)
            if kind is not Kind.SHARES:
                return body
            rows, _ = boxes.read(now, content[32:])
            # no row begins with a commitment that fits, and shares stay elements of the field
            wrong: dict[int, Buffer] = {
                j: secrets.token_bytes(AGREED) + bytes(row[AGREED:]) for j, row in rows.items()
            }
            return body[: HEADER.size + 32] + boxes.write(now, wrong)

        return Alters(honest, garbled)

    return each(lies)()


def keeps_its_secrets(
    opens: Callable[[Received, Sequence[Kept]], Rows | Total | None],
) -> Callable[[], Liars]:
    """Clients that keep the keys of a round which the honest code forgets, and tell the server."""

    def how() -> Liars:
        kept: list[Kept] = []
        notes: list[TakesNotes] = []

        def enter(plan: RoundPlan, honest: Cast) -> Cast:
            made: dict[PartyId, Party] = {}
            for who, party in honest.items():
                if isinstance(party, SecAggClientParty):
                    kept.append({party.parameters.tag: party.pairs})
                made[who] = TakesNotes(party) if who == "server" else party
            notes.extend(p for p in made.values() if isinstance(p, TakesNotes))
            return made

        def took(published: Opened[Rows | Total] | None) -> Took:
            seen = opens({"server": notes[0].mail}, kept)
            if not isinstance(seen, Rows) or seen.ids is None:
                return {}
            return dict(zip(seen.ids, seen.values, strict=True))

        return Liars(enter=enter, took=took)

    return how
