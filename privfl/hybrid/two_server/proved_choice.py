"""Proof, before a hidden sum opens, that its weights are 0 or 1, that rows which failed their
checks weigh 0, and how many weigh 1.

The servers open h = w - v under weights v that the dealer knows, so w is h + v, whatever was sent.
For keys alpha that the servers share, the dealer deals shares of alpha v_i and of alpha v_i^2. Each
server computes from public h its share of alpha times

    w_i^2 - w_i = (h_i^2 - h_i) + (2 h_i - 1) v_i + v_i^2   for rows that passed,
    w_i = h_i + v_i                                         for rows that did not,
    sum w_i - m,

all 0 for an honest choice of m rows; modulo 2^k only 0 and 1 solve w^2 = w. All shares must add up
to zero modulo 2^64: a wrong value, which is not 0 modulo 2^ring, passes one key with chance
2^-(65 - ring) at most, since only a multiple of 2^(ring - 1) of the key need be guessed. There are
as many keys as make that 2^-40. Shares are committed to before they are shown, because whoever sees
the other's first could answer it. (The consistency check of SPDZ2k: Cramer, Damgard, Escudero,
Scholl and Xing 2018, on values that must be 0.)
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from dataclasses import dataclass

import numpy as np

from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Known
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.machine import Machine

MASKED_WEIGHTS = Known("masked weights")
"""The hidden weights less those that the dealer knows [n]."""
SOUNDNESS = 40
"""Bits of what a wrong choice passes with."""
_NONCE = 32
_TWO, _ONE = np.uint64(2), np.uint64(1)


def keys_for(ring: int) -> int:
    """How many keys bring the chance of a wrong choice to 2^-40.

    >>> keys_for(32), keys_for(40), keys_for(64)
    (2, 2, 40)
    """
    return math.ceil(SOUNDNESS / (65 - ring))


def zeros(machine: Machine, each: bool, total: bool) -> U64:
    """The own shares [keys, n or 1 or n + 1] of what is 0 for an honest choice, times the keys:
    for each row, for how many there are in ``total``, or both.
    """
    h, dealt = machine.public[MASKED_WEIGHTS], machine.preprocessing
    passed = np.zeros(machine.n, dtype=bool)
    passed[list(machine.valid)] = True
    weights, squares = dealt.macs
    keys = dealt.keys[:, None]
    known = np.where(passed, h * h - h, h)
    times_v = np.where(passed, _TWO * h - _ONE, _ONE)
    rows = keys * known + times_v * weights + passed.astype(np.uint64) * squares
    over = h.sum(keepdims=True, dtype=np.uint64) - np.uint64(machine.count)
    count = keys * over + weights.sum(axis=1, keepdims=True, dtype=np.uint64)
    parts: list[U64] = [rows] * each + [count] * total
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True)
class CommitChoice:
    """Each server commits to its shares of what must be 0; which these are, as in `zeros`."""

    each: bool
    total: bool

    def say(self, machine: Machine) -> bytes:
        """The commitment."""
        nonce, shares = secrets.token_bytes(_NONCE), zeros(machine, self.each, self.total)
        machine.sealed["choice"] = nonce + shares.astype("<u8", copy=False).tobytes()
        return _committed(machine, machine.first, machine.sealed["choice"])

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Keep the other's."""
        machine.sealed["their choice"] = bytes(theirs)
        return True


@dataclass(frozen=True, slots=True)
class ShowChoice:
    """Each server shows its shares; they must be what it committed to, and add up to 0."""

    def say(self, machine: Machine) -> bytes:
        """The nonce and the shares."""
        return machine.sealed["choice"]

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Check the other's.

        Raises:
            StageAbort: the weights are not what an honest choice has.
        """
        said = _committed(machine, not machine.first, bytes(theirs))
        own = np.frombuffer(machine.sealed["choice"], dtype="<u8", offset=_NONCE)
        if len(theirs) != _NONCE + 8 * len(own):
            raise Malformed("a wrong number of shares")
        right = hmac.compare_digest(said, machine.sealed["their choice"])
        if not right or (own + np.frombuffer(theirs, dtype="<u8", offset=_NONCE)).any():
            raise StageAbort(
                "prove",
                "the hidden weights are not those of as many rows as were chosen among those that"
                f" passed their checks: {machine.other} or the dealer lied",
                who=(machine.other, "dealer"),
            )
        return True


def _committed(machine: Machine, first: bool, shown: bytes) -> bytes:
    label = b"server" if first else b"server/1"
    what = b"privfl/1/two-server/choice/" + machine.now.tag + label + shown
    return hashlib.sha256(what).digest()
