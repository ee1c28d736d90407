"""One number searched for the most harm: octaves around a start, then golden sections."""

from __future__ import annotations

from collections.abc import Callable

GOLDEN = (5**0.5 - 1) / 2


def most_harm(harm: Callable[[float], float], start: float, tries: int) -> tuple[float, float]:
    """The factor of most harm and its harm: half of the tries scan octaves around ``start``, the
    others close in by golden sections. Infinitely little harm is what is not allowed.

    >>> factor, most = most_harm(lambda x: -(x - 3.0) ** 2, start=10.0, tries=40)
    >>> abs(factor - 3.0) < 1e-2
    True
    """
    scanned = [start * 2.0**k for k in range(2 - tries // 2, 2)]
    harms = [harm(factor) for factor in scanned]
    at = max(range(len(scanned)), key=harms.__getitem__)
    best, most = scanned[at], harms[at]
    low, high = best / 2, best * 2
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = harm(left), harm(right)
    for _ in range(tries - len(scanned) - 2):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = harm(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = harm(right)
    for factor, found in ((left, at_left), (right, at_right)):
        if found > most:
            best, most = factor, found
    return best, most
