"""What a coalition can compute from its mail, its keys and its randomness: really computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import KeepsSecrets, Member, PartyId, PartyKeys, Received, Rows, Total, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import BitSeeds, Flips, opened_bits
from privfl.hybrid.two_server.members import DealerMember, FirstMember, SecondMember
from privfl.hybrid.two_server.parameters import (
    DEAL,
    FORMAT,
    MASKED,
    SEED,
    STEPS,
    VECTOR,
    TwoServerParameters,
)
from privfl.hybrid.two_server.ring_codec import U64, expand, signed, unpack
from privfl.hybrid.two_server.rows import Veil, cuts, unveiled
from privfl.hybrid.two_server.sealing import SEED_SIZE, open_masked, open_steps
from privfl.hybrid.two_server.server import FirstServer
from privfl.hybrid.two_server.signs import step_of


@dataclass(repr=False)
class TwoServerCoalitionView(KeepsSecrets):
    """A coalition's mail and what its members hold: the rounds they were in, the first server's
    randomness, the others' keys.
    """

    received: Received
    rounds: Mapping[bytes, TwoServerParameters]
    again: Mapping[bytes, FirstServer]
    second: PartyKeys | None
    dealer: PartyKeys | None

    def opened(self) -> Rows | Total | None:
        """Rows for two of the three, the result for the first server, nothing for anybody else."""
        for tag in dict.fromkeys(
            tag for party in self.received for _, _, _, _, tag, _ in self._messages(party)
        ):
            if tag in self.rounds:
                return self._rows(self.rounds[tag]) or self._result(tag)
        return None

    def _messages(
        self, party: PartyId
    ) -> Iterator[tuple[int, PartyId, int, int, bytes, memoryview]]:
        for exchange, mail in enumerate(self.received.get(party, ())):
            for sender, body in mail.items():
                try:
                    kind, _, position, tag, content = FORMAT.read(body)
                except Malformed:
                    continue
                yield exchange, sender, kind, position, tag, content

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
        found: dict[int, bytes] = {}
        for party, keys, wanted in (
            ("server/1", self.second, SEED),
            ("dealer", self.dealer, DEAL),
        ):
            for _, sender, kind, position, tag, content in self._messages(party):
                if keys is None or tag != now.tag or kind != wanted or sender == "server":
                    continue
                try:
                    if kind == SEED and client_of(sender) is not None:
                        context = now.bound_to("seed", str(position))
                        found[position] = open_one(content, SEED_SIZE, keys, context)
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

    def _flipped(
        self, now: TwoServerParameters, places: list[int], key: bytes, veil: Veil
    ) -> dict[int, U64]:
        """The first server's masked signs, from the first step that it sent to the second server
        and its own dealt bits.
        """
        for _, sender, kind, number, tag, content in self._messages("server/1"):
            if sender == "server" and kind == STEPS and tag == now.tag and number == 1:
                first = _split_steps(open_steps(now, key, b"1", now.write(STEPS, number, content)))
                bodies = np.frombuffer(first, np.uint8).reshape(len(places), -1)
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
        veil: Veil | None = None
        for _, sender, kind, _, tag, content in self._messages("dealer"):
            if self.dealer is not None and tag == now.tag and kind == DEAL and sender == "server":
                veil = Veil(self._dealt(now, "server", content, self.dealer)[1])
        for _, _, kind, keys, tag, content in self._messages("server/1"):
            if veil is not None and self.second is not None and tag == now.tag and kind == MASKED:
                members, key, _, rows = open_masked(now, self.second, keys, content)
                if now.signs:
                    found |= self._flipped(now, sorted(members), key, veil)
                    continue
                found |= _unmasked(now, sorted(members), rows, veil, key)
        for _, sender, kind, position, tag, content in self._messages("server"):
            if tag == now.tag and kind == VECTOR and client_of(sender) is not None:
                packed = content[-now.body :]
                signs = now.signs
                found[position] = (
                    np.frombuffer(packed, np.uint8).astype(np.uint64)
                    if signs
                    else unpack(packed, now.ring, now.length)
                )
        return found


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
