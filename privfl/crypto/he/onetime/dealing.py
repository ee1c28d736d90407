"""How a one-time key is dealt: Shamir's sharing mod 65521, with a proof that all shares lie on one
polynomial of the right degree.

The proof is the batched low-degree test: beside the key's N polynomials f_k the dealer shares REPS
random ones g_r, commits to every share, and publishes g_r + sum over k of R_rk f_k for coefficients
R that follow from the commitments. Whoever holds a share checks that its own values fit. A dealer
whose shares lie on no polynomial of degree t - 1 passes with probability P^-REPS a try; the masks
hide the key. It does not prove that the key is short.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.he.mprlwe.ring import N, Small
from privfl.crypto.he.mprlwe.sampling import Stream
from privfl.crypto.he.onetime.parameters import P
from privfl.crypto.he.wire import Refused
from privfl.crypto.primitives import backend
from privfl.crypto.primitives.stream import keystream, next_words

REPS = 10
"""How often the low-degree test is repeated."""
ROWS = N + REPS
_SPARE = 64
"""Words beyond those that a challenge needs: nine of them are not in the field, on average."""
Values = npt.NDArray[np.int64]
"""Elements of the field, in int64."""


class Dealing(KeepsSecrets):
    """Polynomials [threshold, N + REPS], by power: the key's and the masks'."""

    def __init__(self, short: Small | Values, threshold: int) -> None:
        self.coefficients = _uniform(threshold * ROWS).reshape(threshold, ROWS)
        self.coefficients[0, :N] = short.astype(np.int64) % P

    def share(self, point: int) -> Values:
        """The values at a point [N + REPS]."""
        return value_at(self.coefficients, point)

    def proof(self, challenge: Values) -> Values:
        """The combined polynomials [threshold, REPS]."""
        combined = _combined(challenge, self.coefficients[:, :N].T)
        return (self.coefficients[:, N:] + combined.T) % P


def fits(share: Values, point: int, proof: Values, challenge: Values) -> bool:
    """Whether a share [N + REPS] lies on the polynomials that were proved."""
    own = (share[N:] + _combined(challenge, share[:N])) % P
    return bool((value_at(proof, point) == own).all())


def challenge(root: bytes) -> Values:
    """The coefficients R [REPS, N] that follow from the commitments: of a stream's words of 16 bits
    the first that are in the field.
    """
    key = hashlib.shake_256(b"privfl/onetime/challenge/2\x00" + root).digest(16)
    stream, found = keystream(key, backend()), np.empty(0, dtype="<u2")
    while len(found) < REPS * N:
        words = next_words(stream, REPS * N + _SPARE, "<u2")
        found = np.concatenate([found, words[words < P]])
    return found[: REPS * N].astype(np.int64).reshape(REPS, N)


def _combined(challenge: Values, values: Values) -> Values:
    """R times values mod P. A sum of N products is below 2^44, which a double holds."""
    exact = challenge.astype(np.float64) @ values.astype(np.float64)
    return exact.astype(np.int64) % P


def value_at(coefficients: Values, point: int) -> Values:
    """The polynomials [powers, ...] at a point."""
    value: Values = coefficients[-1]
    for c in coefficients[-2::-1]:
        value = np.asarray(value * point + c) % P
    return value


def weights_at(points: Sequence[int], x: int) -> list[int]:
    """Lagrange's weights for the value at x from those at distinct points.

    >>> sum(w * y for w, y in zip(weights_at([1, 2], 0), [7, 9])) % P
    5
    """
    weights = []
    for point in points:
        over = under = 1
        for other in points:
            if other != point:
                over, under = over * (x - other) % P, under * (point - other) % P
        weights.append(over * pow(under, -1, P) % P)
    return weights


def interpolated(values: Mapping[int, Values], x: int) -> Values:
    """The polynomials through these values, by point, at x."""
    weights = weights_at(list(values), x)
    total = sum((w * y for w, y in zip(weights, values.values(), strict=True)), np.int64(0))
    found: Values = np.asarray(total) % P
    return found


def centred(values: Values) -> Values:
    """The representatives between -P/2 and P/2."""
    return np.where(values > P // 2, values - P, values)


def _uniform(count: int) -> Values:
    stream = Stream()
    words = stream.words(count, "<u2")
    while (again := np.flatnonzero(words >= P)).size:
        words[again] = stream.words(again.size, "<u2")
    return words.astype(np.int64)


def to_bytes(values: Values) -> bytes:
    """As they travel, 16 bits each."""
    return values.astype("<u2").tobytes()


def from_bytes(data: Buffer, shape: tuple[int, ...]) -> Values:
    """What `to_bytes` wrote.

    Raises:
        Refused: another length, or numbers that are not in the field.
    """
    if len(data) != 2 * int(np.prod(shape)):
        raise Refused(f"{len(data)} bytes are not {shape} numbers mod {P}")
    values = np.frombuffer(data, dtype="<u2").astype(np.int64).reshape(shape)
    if (values >= P).any():
        raise Refused(f"a number that is not in the field mod {P}")
    return values
