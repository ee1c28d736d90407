"""The sum under public weights, with the dealer's tags: the first server notices a share that the
second changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.authentication import FailedMac
from privfl.crypto.mpc.words import U64, pack, signed, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.registers import SUM, WEIGHTS
from privfl.hybrid.two_server.rows import blinds, combined, cuts, tag_key_blocks

_SENT = Shared("sent sum")
"""The second server's share and its blinds, as the first got them."""


@dataclass(frozen=True, slots=True)
class OpenTagged:
    """The first server learns the sum under public weights, and what its share of the sum must be
    tagged with.

    The share sum w_i A_i travels modulo 2^64. The dealer gave the first server T_i = <key, A_i> +
    b_i for a key that the second does not know, and the second knows b_i: it sends sum w_i b_i
    along. A share that is off by e passes with the chance of <key, e> being what it guesses: 2^-(64
    - v), where 2^v divides e; v is small, because sums far out of their range are refused as well.
    Where a server may lie there are two keys (`TwoServerParameters.sum_tags`).
    """

    def say(self, machine: Machine) -> bytes:
        """The second server's share and its blinds, or nothing."""
        if machine.first:
            return b""
        total, weights = machine.shares.pop(SUM), machine.public[WEIGHTS]  # of no use after it
        blind = combined(weights, _own_blinds(machine).T)
        return b"".join((pack(total, 64), pack(blind, 64)))

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Add the share; it is checked once the tags are there."""
        if not machine.first:
            if theirs:
                raise Malformed("a share where none was asked for")
            return True
        now = machine.now
        words = unpack(theirs, 64, now.length + now.sum_tags)
        machine.shares[_SENT] = words
        machine.public[SUM] = machine.shares[SUM] + words[: now.length]
        return True


def _own_blinds(machine: Machine) -> U64:
    if not machine.ahead:
        return blinds(machine.now, machine.seed, machine.n)
    of_all = blinds(machine.now, machine.seed, machine.now.plan.n)
    return of_all[:, list(machine.positions)]


def check_tags(machine: Machine) -> None:
    """Refuse a sum whose second share is not what the masks make it.

    Raises:
        FailedMac: it is not, or the sum is out of its range.
    """
    now, claimed, weights = machine.now, machine.shares[_SENT], machine.public[WEIGHTS]
    tags = np.zeros(0, dtype=np.uint64) if machine.tags is None else machine.tags
    sent, blind = claimed[: now.length], claimed[now.length :]
    off = blind - combined(weights, tags.reshape(now.sum_tags, -1).T)
    keys, farthest = tag_key_blocks(now, machine.seed, machine.n), 0
    for start, stop in cuts(now, machine.n):
        if start < now.length:
            off += np.einsum("kd,d->k", next(keys), sent[start:stop])
            values = signed(machine.public[SUM][start:stop], now.ring)
            farthest = max(farthest, int(np.abs(values).max()))
    most = now.longest * min(int(weights.sum(dtype=np.uint64)), machine.n * (now.fine + 1))
    if off.any() or farthest > most:
        raise FailedMac(  # a dealer that tags other masks looks the same
            "sum",
            "the share of server/1 is not the sum of the clients' masks that the dealer tagged:"
            " server/1 or the dealer lied",
            who=("server/1", "dealer"),
        )
