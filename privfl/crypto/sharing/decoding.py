"""Shamir's shares of which some are wrong: the polynomial that all but a few lie on (Gao 2003)."""

from __future__ import annotations

from collections.abc import Mapping

from privfl.crypto.sharing.shamir import P

Polynomial = list[int]
"""Coefficients mod p, the lowest first, none of them a leading zero."""


def decoded(shares: Mapping[int, int], t: int, p: int = P) -> Polynomial | None:
    """The polynomial of degree under ``t`` that all but (m - t) / 2 of the m shares lie on; None
    where there is none. Its value at 0 is the secret. ``p``: the prime of the field.

    >>> shares = {x: (7 + 3 * x) % P for x in range(1, 6)}
    >>> decoded({**shares, 2: 99}, 2)
    [7, 3]
    >>> decoded({1: 5, 2: 9, 3: 14}, 2) is None
    True
    """
    points = sorted(shares)
    if len(points) < t:
        return None
    all_points: Polynomial = [1]
    for x in points:
        all_points = _times(all_points, [-x % p, 1], p)
    through = _through(points, [shares[x] for x in points], all_points, p)
    before, now = all_points, through
    factor_before, factor = Polynomial(), [1]
    while 2 * (len(now) - 1) >= len(points) + t:
        quotient, rest = _divided(before, now, p)
        before, now = now, rest
        factor_before, factor = factor, _minus(factor_before, _times(quotient, factor, p), p)
    found, rest = _divided(now, factor, p)
    return found if not rest and len(found) <= t else None


def value(polynomial: Polynomial, x: int, p: int = P) -> int:
    """The value at x."""
    out = 0
    for coefficient in reversed(polynomial):
        out = (out * x + coefficient) % p
    return out


def _through(points: list[int], values: list[int], all_points: Polynomial, p: int) -> Polynomial:
    """Lagrange's polynomial through all points."""
    out = [0] * len(points)
    for x, y in zip(points, values, strict=True):
        basis, _ = _divided(all_points, [-x % p, 1], p)
        weight = y * pow(value(basis, x, p), -1, p) % p
        for i, coefficient in enumerate(basis):
            out[i] = (out[i] + weight * coefficient) % p
    return _trimmed(out)


def _times(a: Polynomial, b: Polynomial, p: int) -> Polynomial:
    out = [0] * max(0, len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] = (out[i + j] + x * y) % p
    return _trimmed(out)


def _minus(a: Polynomial, b: Polynomial, p: int) -> Polynomial:
    longer = max(len(a), len(b))
    left, right = a + [0] * (longer - len(a)), b + [0] * (longer - len(b))
    return _trimmed([(x - y) % p for x, y in zip(left, right, strict=True)])


def _divided(top: Polynomial, bottom: Polynomial, p: int) -> tuple[Polynomial, Polynomial]:
    """Quotient and rest; the bottom is not zero."""
    rest, inverse = list(top), pow(bottom[-1], -1, p)
    quotient = [0] * max(0, len(top) - len(bottom) + 1)
    for shift in reversed(range(len(quotient))):
        factor = quotient[shift] = rest[shift + len(bottom) - 1] * inverse % p
        for i, coefficient in enumerate(bottom):
            rest[shift + i] = (rest[shift + i] - factor * coefficient) % p
    return _trimmed(quotient), _trimmed(rest[: len(bottom) - 1])


def _trimmed(polynomial: Polynomial) -> Polynomial:
    while polynomial and polynomial[-1] == 0:
        polynomial.pop()
    return polynomial
