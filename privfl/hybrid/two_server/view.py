"""What a coalition can compute from its mail, its keys and its randomness: really computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import Buffer, KeepsSecrets, Member, PartyId, PartyKeys, Received, Rows, Total
from privfl.crypto import cohort
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.words import U64, expand, signed, unpack
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import BitSeeds, Flips, opened_bits
from privfl.hybrid.two_server.malicious.letters import parted, parted_row, read_rows
from privfl.hybrid.two_server.malicious.server import FixedFirstServer
from privfl.hybrid.two_server.members import DealerMember, FirstMember, SecondMember
from privfl.hybrid.two_server.parameters import (
    DEAL,
    FORMAT,
    MASKED,
    PIECE,
    SEED,
    STEPS,
    TwoServerParameters,
)
from privfl.hybrid.two_server.row_letters import unveiled
from privfl.hybrid.two_server.rows import Veil, cuts
from privfl.hybrid.two_server.sealing import SEED_SIZE, open_masked, open_steps, read_vector
from privfl.hybrid.two_server.server import FirstServer
from privfl.hybrid.two_server.sign_rows import step_of


@dataclass(repr=False)
class TwoServerCoalitionView(KeepsSecrets):
    """A coalition's mail and what its members hold: the rounds they were in, the first server's
    randomness, the others' keys.
    """

    received: Received
    rounds: Mapping[bytes, TwoServerParameters]
    again: Mapping[bytes, FirstServer | FixedFirstServer]
    second: PartyKeys | None
    dealer: PartyKeys | None

    def opened(self) -> Rows | Total | None:
        """Rows for two of the three, the result for the first server, nothing for anybody else."""
        tags = Counter(tag for party in self.received for *_, tag, _ in self._messages(party))
        for tag, _ in tags.most_common():  # a letter of another round may have been replayed
            if tag in self.rounds:
                found = self._rows(self.rounds[tag]) or self._result(tag)
                if found is not None:
                    return found
        return None

    def _messages(self, party: PartyId) -> Iterator[tuple[PartyId, int, int, bytes, memoryview]]:
        for sender, body in self._mail(party):
            try:
                kind, _, position, tag, content = FORMAT.read(body)
            except Malformed:
                continue
            yield sender, kind, position, tag, content

    def _mail(self, party: PartyId) -> Iterator[tuple[PartyId, Buffer]]:
        for mail in self.received.get(party, ()):
            yield from mail.items()

    def _result(self, tag: bytes) -> Total | None:
        """The first server's own part, played again with its own randomness on its own mail."""
        if tag not in self.again:
            return None
        party = self.again[tag].anew()
        try:
            for mail in self.received.get("server", ()):
                party.step(mail)
        except StageAbort:  # as the party itself gave up
            return None
        return None if party.result is None else party.result.what

    def _rows(self, now: TwoServerParameters) -> Rows | None:
        seeds, masked = self._seeds(now), self._masked(now)
        values, weights, ids = [], [], []
        for i in sorted(seeds.keys() & masked.keys()):
            vector = masked[i]
            if now.signs:
                bits = opened_bits(
                    vector.astype(np.uint8) ^ next(BitSeeds([seeds[i]]).packed(now)), now.plan.d
                )
                values.append(
                    torch.from_numpy((1.0 - 2.0 * bits).astype(np.float32)) * step_of(now)
                )
                weights.append(1.0)
                ids.append(now.plan.cohort[i])
                continue
            whole = signed(
                vector + expand(seeds[i], now.length, now.library)[: len(vector)], now.ring
            )
            weight = (
                now.plan.max_weight * float(whole[-1]) / now.code.top
                if len(whole) > now.plan.d
                else 1.0
            )
            share = weight / now.plan.max_weight if len(whole) > now.plan.d and weight else 1.0
            values.append(
                torch.from_numpy((whole[: now.plan.d] / (now.scale * share)).astype(np.float32))
            )
            weights.append(weight)
            ids.append(now.plan.cohort[i])
        return Rows(torch.stack(values), torch.tensor(weights), tuple(ids)) if values else None

    def _seeds(self, now: TwoServerParameters) -> dict[int, bytes]:
        """The masks' seeds by place: from the clients' sealed_boxes to the second server, or from
        its sealed_box to the dealer.
        """
        if now.malicious:
            to_second = self._told(now, "server/1", self.second)
            to_dealer = self._told(now, "dealer", self.dealer)
            return {i: seeds[SEED_SIZE:] for i, seeds in to_dealer.items()} | {
                i: seeds[:SEED_SIZE] for i, seeds in to_second.items()
            }
        found: dict[int, bytes] = {}
        for party, keys, wanted in (
            ("server/1", self.second, SEED),
            ("dealer", self.dealer, DEAL),
        ):
            for sender, kind, position, tag, content in self._messages(party):
                if keys is None or tag != now.tag or kind != wanted or sender == "server":
                    continue
                try:
                    if kind == SEED:
                        cohort.own_place(now.plan, cohort.member_of(now.plan, sender), position)
                        context = now.bound_to("seed", str(position))
                        seed = open_one(content, SEED_SIZE, keys, context)
                        found.setdefault(position, seed)
                    elif kind == DEAL:
                        members, plain = self._dealt(now, "server/1", content, keys)
                        parts = (
                            plain[i : i + SEED_SIZE]
                            for i in range(SEED_SIZE, len(plain), SEED_SIZE)
                        )
                        found |= dict(zip(sorted(members), parts, strict=True))
                except Malformed:
                    continue
        return found

    def _told(
        self, now: TwoServerParameters, party: PartyId, keys: PartyKeys | None
    ) -> dict[int, bytes]:
        """What clients that fix their rows sealed to the second server or to the dealer, by
        place.
        """
        found: dict[int, bytes] = {}
        for sender, kind, position, tag, content in self._messages(party):
            if keys is None or tag != now.tag or kind != SEED:
                continue
            with suppress(Malformed):
                cohort.own_place(now.plan, cohort.member_of(now.plan, sender), position)
                context = now.bound_to("seed", str(position))
                found.setdefault(position, open_one(content, 2 * SEED_SIZE, keys, context))
        return found

    def _flipped(
        self, now: TwoServerParameters, places: list[int], key: bytes, veil: Veil
    ) -> dict[int, U64]:
        """The first server's masked signs, from the first step that it sent to the second server
        and its own dealt bits.

        Raises:
            Malformed: what it sent is no such step.
        """
        for sender, kind, number, tag, content in self._messages("server/1"):
            if sender == "server" and kind == STEPS and tag == now.tag and number == 1:
                first = _split_steps(open_steps(now, key, b"1", now.write(STEPS, number, content)))
                if len(first) != len(places) * now.body:
                    raise Malformed("a step of another length")
                bodies = np.frombuffer(first, np.uint8).reshape(len(places), now.body)
                flips = Flips(veil.seed).bits(now, len(places))
                return {
                    i: (body ^ flip).astype(np.uint64)
                    for i, body, flip in zip(places, bodies, flips, strict=True)
                }
        return {}

    def _dealt(
        self, now: TwoServerParameters, who: PartyId, content: memoryview, keys: PartyKeys
    ) -> tuple[frozenset[int], bytes]:
        members, sealed_boxes = fields.read_bit_set(content, now.plan.n)
        size = SEED_SIZE if who == "server" else SEED_SIZE * (1 + len(members))
        return members, open_one(sealed_boxes, size, keys, now.bound_to("deal", who))

    def _masked(self, now: TwoServerParameters) -> dict[int, U64]:
        """The masked vectors by place: as the first server got them, or from the second server's
        and the dealer's mail together.
        """
        found: dict[int, U64] = {}
        for sender, body in self._mail("server"):
            try:
                position, packed = read_vector(now, sender, body)
            except Malformed:  # what the server could not use either
                continue
            if now.malicious:
                seed, _, row = parted(packed)
                found.setdefault(position, with_first_mask(now, seed, row))
                continue
            masked = (
                np.frombuffer(packed, np.uint8).astype(np.uint64)
                if now.signs
                else unpack(packed, now.ring, now.length)
            )
            found.setdefault(position, masked)
        return self._unveiled(now) | found

    def _unveiled(self, now: TwoServerParameters) -> dict[int, U64]:
        if now.malicious:
            return self._fixed(now)
        veil = self._veil(now)
        if veil is None or self.second is None:
            return {}
        for sender, kind, keys, tag, content in self._messages("server/1"):
            if sender != "server" or tag != now.tag or kind != MASKED:
                continue
            try:
                members, key, _, rows = open_masked(now, self.second, keys, content)
                if now.signs:
                    return self._flipped(now, sorted(members), key, veil)
                whole = memoryview(b"".join([rows, *self._pieces(now)]))
                return _unmasked(now, sorted(members), whole, veil, key)
            except Malformed:
                continue
        return {}

    def _pieces(self, now: TwoServerParameters) -> list[memoryview]:
        """What of the masked rows came in letters after the first, in order."""
        found: dict[int, memoryview] = {}
        for sender, kind, number, tag, content in self._messages("server/1"):
            if sender == "server" and kind == PIECE and tag == now.tag:
                found.setdefault(number, content)
        return [found[number] for number in sorted(found)]

    def _fixed(self, now: TwoServerParameters) -> dict[int, U64]:
        """The same where clients fixed the rows: from what the first server handed on, and the
        seeds that clients told the dealer.
        """
        told, found = self._told(now, "dealer", self.dealer), dict[int, U64]()
        if self.second is None:
            return {}
        for sender, kind, keys, tag, content in self._messages("server/1"):
            if sender != "server" or tag != now.tag or kind != MASKED:
                continue
            with suppress(Malformed):
                members, _, _, rows = read_rows(now, self.second, keys, content)
                for i, row in zip(members, rows, strict=True):
                    if i in told:
                        seed = told[i][:SEED_SIZE]
                        found.setdefault(i, with_first_mask(now, seed, parted_row(row)[1]))
        return found

    def _veil(self, now: TwoServerParameters) -> Veil | None:
        """What the first server masked with, from the seed that it sealed to the dealer."""
        for sender, kind, _, tag, content in self._messages("dealer"):
            if self.dealer is None or sender != "server" or tag != now.tag or kind != DEAL:
                continue
            try:
                return Veil(self._dealt(now, "server", content, self.dealer)[1])
            except Malformed:
                continue
        return None


def with_first_mask(now: TwoServerParameters, seed: bytes, packed: memoryview) -> U64:
    """A fixed row with its first mask: what the second mask hides."""
    if now.signs:
        bits = np.frombuffer(packed, np.uint8) ^ next(BitSeeds([seed]).packed(now))
        return bits.astype(np.uint64)
    masked = unpack(packed, now.ring, now.words) + expand(seed, now.words, now.library)
    return masked[: now.length]


def _split_steps(plain: bytes) -> bytes:
    """The body of the first step in a message of steps."""
    return plain[8 : 8 + int.from_bytes(plain[4:8], "little")]


def _unmasked(
    now: TwoServerParameters, places: list[int], sealed: memoryview, veil: Veil, key: bytes
) -> dict[int, U64]:
    n = len(places)
    rows = np.empty((n, now.plan.d), dtype=np.uint64)
    for (start, stop), piece, (_, _, cover) in zip(
        cuts(now, n), unveiled(now, sealed, n, key), veil.blocks(now, n), strict=False
    ):
        rows[:, start:stop] = piece + cover
    return dict(zip(places, rows, strict=True))


def opened_by(received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
    """What a coalition can compute from its mail and its members."""
    first, second, dealer = members.get("server"), members.get("server/1"), members.get("dealer")
    again = first.kept if isinstance(first, FirstMember) else {}
    rounds = {tag: party.now for tag, party in again.items()}
    for helper in (second, dealer):
        rounds |= helper.rounds if isinstance(helper, SecondMember | DealerMember) else {}
    return TwoServerCoalitionView(
        received,
        rounds,
        again,
        second.identity if isinstance(second, SecondMember) else None,
        dealer.identity if isinstance(dealer, DealerMember) else None,
    ).opened()
