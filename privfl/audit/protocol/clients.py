"""Clients of secure aggregation that lie: in what they deal, answer, claim and confirm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from privfl.core import Buffer, KeepsSecrets, Mail
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import boxes, wire
from privfl.crypto.secagg.client import SecAggClientParty
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.sharing import shamir

Shares = dict[int, bytes]
"""Shares by their owner's position."""


@dataclass(repr=False)
class Garbles(KeepsSecrets):
    """The honest client, one kind of whose messages is changed as bytes."""

    honest: SecAggClientParty
    kind: Kind
    change: Callable[[bytes], bytes]

    def step(self, mail: Mail) -> Mail:
        """What the honest client says, but for that."""
        return {
            to: self.change(bytes(body)) if bytes(body[4:5])[0] == self.kind else body
            for to, body in self.honest.step(mail).items()
        }


@dataclass(repr=False)
class DealsWrongly(KeepsSecrets):
    """A client that deals other shares than those of its secrets: ``change`` is given a holder's
    position and its two shares [64 bytes], and returns what the holder is sealed instead. What it
    does not change is dealt as the honest client deals it.
    """

    honest: SecAggClientParty
    change: Callable[[int, bytes], bytes]

    def step(self, mail: Mail) -> Mail:
        """What the honest client says, its dealings changed."""
        out = dict(self.honest.step(mail))
        body = out.get("server")
        if body is not None and wire.read(body)[0] is Kind.SHARES:
            out["server"] = self._dealt(body)
        return out

    def _dealt(self, body: Buffer) -> bytes:
        now = self.honest.parameters
        _, _, _, content = wire.read(body)
        sealed, _ = boxes.read(now, content[32:])
        own, pairs, agreed = self.honest.position, self.honest.pairs, dict[int, tuple[int, int]]()
        if now.active:
            agreed = {i: pairs.common(i) for i in sorted(sealed)[: now.degree.t - 1]}
        true = self.honest.dealing(agreed)
        mine = true.pop(own)
        self.honest.seed_shares[own] = mine[: shamir.SIZE]
        self.honest.key_shares[own] = mine[shamir.SIZE :]
        plain = {holder: self.change(holder, both) for holder, both in true.items()}
        kept = [holder for holder in agreed if plain[holder] == true[holder]]
        return wire.write(
            Kind.SHARES,
            now.ring,
            own,
            now.tag,
            content[:32],
            boxes.write(now, pairs.seal(plain, kept)),
        )


@dataclass(repr=False)
class AnswersWrongly(KeepsSecrets):
    """A client whose last message holds other shares: ``change`` is given those of seeds and those
    of keys, by owner.
    """

    honest: SecAggClientParty
    change: Callable[[Shares, Shares], tuple[Shares, Shares]]

    def step(self, mail: Mail) -> Mail:
        """What the honest client says, its answer changed."""
        out = dict(self.honest.step(mail))
        body = out.get("server")
        if body is None or wire.read(body)[0] is not Kind.UNMASK:
            return out
        now, (_, _, _, content) = self.honest.parameters, wire.read(body)
        seeds, rest = fields.read_table(content, shamir.SIZE, now.n)
        gone, rest = fields.read_table(rest, shamir.SIZE, now.n)
        told = self.change(
            {p: bytes(share) for p, share in seeds.items()},
            {p: bytes(share) for p, share in gone.items()},
        )
        tables = [fields.table(shares) for shares in told]
        place = self.honest.position
        out["server"] = wire.write(Kind.UNMASK, now.ring, place, now.tag, *tables, rest)
        return out


def flipped(share: bytes) -> bytes:
    """Another share, which is a field element as well."""
    return bytes([share[0] ^ 1]) + share[1:]
