"""Shamir's secret sharing over the integers mod 2^255 - 19: keys and seeds of 32 bytes, shares of
32 bytes.
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from privfl.core import ConfigError, require

P = 2**255 - 19
SIZE = 32


def random_element() -> int:
    """A uniform element of the field."""
    return secrets.randbelow(P)


def split(secret: int, points: Iterable[int], t: int) -> dict[int, int]:
    """The shares of ``secret`` at each point (small positive integers): any ``t`` give it back,
    fewer are uniform.

    Horner over unreduced integers: the points are small, so one reduction at the end is cheaper
    than one at each step.
    """
    coefficients = [secrets.randbelow(P) for _ in range(t - 1)]
    shares = {}
    for x in points:
        value = 0
        for c in coefficients:
            value = (value + c) * x
        shares[x] = (value + secret) % P
    return shares


def weights_at_zero(points: Sequence[int]) -> list[int]:
    """Lagrange's weights for the value at 0 from the values at distinct points: products of small
    integers, one inversion.

    Raises:
        ConfigError: a point is 0 or is there twice.
    """
    if len(set(points)) != len(points) or 0 in points:
        raise ConfigError(
            f"interpolation needs distinct points other than 0, and got {sorted(points)}."
        )
    bottoms = [x * math.prod([other - x for other in points if other != x]) % P for x in points]
    before = [
        1
    ]  # Montgomery's trick: invert the product of all, then peel one factor after the other off
    for bottom in bottoms:
        before.append(before[-1] * bottom % P)
    rest = math.prod(points) * pow(before[-1], -1, P) % P
    weights = [0] * len(points)
    for i in reversed(range(len(points))):
        weights[i] = rest * before[i] % P
        rest = rest * bottoms[i] % P
    return weights


def combine(shares: Mapping[int, int], weights: Sequence[int] | None = None) -> int:
    """The secret from the values at the points, which must be as many as the threshold was, or
    more.
    """
    lagrange = weights_at_zero(list(shares)) if weights is None else weights
    return sum(w * y for w, y in zip(lagrange, shares.values(), strict=True)) % P


def value_at(shares: Mapping[int, int], x: int) -> int:
    """The polynomial through the shares, at another point: a share that is not on it was made by a
    liar.
    """
    if x in shares:
        return shares[x]
    moved = [point - x for point in shares]
    return combine(dict(zip(moved, shares.values(), strict=True)))


def through(secret: int, agreed: Mapping[int, int], at: Sequence[int]) -> dict[int, int]:
    """The shares at other points of the polynomial through ``secret`` at 0 and through values that
    are given at some points: where these are uniform, it is as random as `split` draws it with a
    threshold of one more than they are.

    >>> through(7, {1: 10, 2: 13}, [3])
    {3: 16}
    """
    points, values = (0, *agreed), (secret, *agreed.values())
    bottoms, wholes, inverse = _second_form(points, tuple(at))
    parts = [bottom * value % P for bottom, value in zip(bottoms, values, strict=True)]
    return {
        x: whole * sum(map(operator.mul, parts, [inverse[x - point] for point in points])) % P
        for x, whole in zip(at, wholes, strict=True)
    }


@lru_cache(maxsize=64)
def _second_form(
    points: tuple[int, ...], at: tuple[int, ...]
) -> tuple[list[int], list[int], dict[int, int]]:
    """What Lagrange's formula in its second form asks of the points alone: weights of the given
    ones, the product of distances from each other one, and inverses of all distances. As many
    numbers as there are points, not one for each pair, and one inversion for all.
    """
    bottoms = [math.prod([x - other for other in points if other != x]) % P for x in points]
    distances = sorted({x - point for x in at for point in points})
    inverses = _inverses([*bottoms, *distances])
    wholes = [math.prod([x - point for point in points]) % P for x in at]
    inverse = dict(zip(distances, inverses[len(points) :], strict=True))
    return inverses[: len(points)], wholes, inverse


def _inverses(values: Sequence[int]) -> list[int]:
    """Montgomery's trick: invert the product of all, then peel one factor after the other off."""
    before = [1]
    for value in values:
        before.append(before[-1] * value % P)
    rest, out = pow(before[-1], -1, P), [0] * len(values)
    for i in reversed(range(len(values))):
        out[i] = rest * before[i] % P
        rest = rest * values[i] % P
    return out


def to_bytes(element: int) -> bytes:
    """Little-endian, 32 bytes."""
    return element.to_bytes(SIZE, "little")


def from_bytes(raw: bytes | memoryview) -> int:
    """The element that `to_bytes` wrote.

    Raises:
        ValueError: not 32 bytes, or not under the modulus.
    """
    if not in_range(raw):
        raise ValueError("no field element")
    return int.from_bytes(raw, "little")


def in_range(raw: bytes | memoryview) -> bool:
    """Whether these bytes are an element."""
    if len(raw) != SIZE:
        return False
    return raw[-1] < 0x7F or int.from_bytes(raw, "little") < P


@dataclass(frozen=True, slots=True)
class Shamir:
    """t-of-n sharing of secrets of up to 31 bytes, at the points 1..n (Shamir 1979).
    Information-theoretic against t - 1 holders.

    It detects nothing: a wrong share gives a wrong secret.

    Raises:
        ConfigError: not 1 <= t <= n.

    >>> shares = Shamir(t=2, n=3).share(b"seed")
    >>> Shamir(t=2, n=3).reconstruct({1: shares[1], 3: shares[3]})
    b'seed'
    """

    t: int
    n: int

    def __post_init__(self) -> None:
        require.within(1, self.n, t=self.t)

    def share(self, secret: bytes) -> dict[int, int]:
        """One share for each holder 1..n.

        Raises:
            ConfigError: the secret is longer than 31 bytes.
        """
        if len(secret) > 31:
            raise ConfigError(
                f"a secret of {len(secret)} bytes does not fit in the field: share at most 31"
                " bytes, a key for the rest."
            )
        return split(int.from_bytes(b"\x01" + secret, "big"), range(1, self.n + 1), self.t)

    def reconstruct(self, shares: Mapping[int, int]) -> bytes:
        """The secret from t or more shares, by holder.

        Raises:
            ConfigError: fewer than t shares, shares that do not fit together, or of a holder that
                there is not.
        """
        strangers = [holder for holder in sorted(shares) if not 1 <= holder <= self.n]
        if strangers:
            raise ConfigError(f"holder {strangers[0]} of {self.n}: holders are numbered 1 to n.")
        if len(shares) < self.t:
            raise ConfigError(f"{len(shares)} shares where {self.t} of {self.n} are needed.")
        some = dict(list(shares.items())[: self.t])
        element = combine(some)
        if any(value_at(some, x) != y for x, y in shares.items()):
            raise ConfigError("the shares do not lie on one polynomial: at least one is wrong.")
        raw = element.to_bytes(32, "big").lstrip(b"\0")
        if raw[:1] != b"\x01":
            raise ConfigError("the shares do not fit together: they give no secret.")
        return raw[1:]
