"""How many random projections prove that a shared vector is as short as it claims, and the smallest
ring in which they do.

The test (in the manner of PINE: Rothblum, Omri, Chen, Talwar 2024): rows rho of {-1, 0, 0, 1} are
drawn after the client is committed to x, and x passes where every <rho, x>, centred modulo q =
2^ring, is at most B = 7 C in size; then |x|^2 modulo q is at most C^2.

Honest |x| <= C: <rho, x> is sub-Gaussian with variance C^2 / 2 (E exp(t rho_j) = cosh^2(t / 2) <=
exp(t^2 / 4)), so a row fails with chance at most 2 exp(-49) = 2^-69.

A liar with |x| > C passes the norm only if the integer |x|^2 is at least q. Then each row passes
with a chance of at most p:

1. Some |x_j| > 2B: of <rho, x> with rho_j = 0 and with rho_j = +-1 at most one kind lies in the arc
   [-B, B], and each kind has chance 1/2. So p <= 1/2, in the ring itself.
2. All |x_j| <= 2B: where 4 B^2 d < q the square cannot reach q at all, and 1. is the whole proof.
   Otherwise Z = <rho, x> over the integers has E Z^2 = |x|^2 / 2 and E Z^4 <= 3 |x|^4 / 4, so by
   Paley and Zygmund Z^2 > theta E Z^2 with chance at least (1 - theta)^2 / 3, where theta = 2 B^2 /
   q; and Z wraps around q / 2 with chance at most 2 exp(-q^2 / (16 B^2 d)), which is added.
"""

from __future__ import annotations

import math

RINGS = (32, 40, 64)
REACH = 7
"""B = 7 C: what a projection of an honest vector never passes."""
MOST_ROWS = 128


def passes(longest: int, ring: int, d: int) -> float:
    """The most likely chance p at which one projection lets through a vector longer than it claims;
    1 where nothing is proved.

    >>> passes(2**15, 64, 100_000), round(passes(2**15, 40, 100_000), 2)
    (0.5, 0.73)
    """
    q, reach = 1 << ring, REACH * longest
    if 4 * reach**2 * d < q:
        return 0.5
    theta = 2 * reach**2 / q
    if theta >= 1:
        return 1.0
    wraps = 2 * math.exp(-min(q**2 / (16 * reach**2 * d), 700.0))
    return min(1.0, max(0.5, 1 - (1 - theta) ** 2 / 3 + wraps))


def projections(longest: int, ring: int, d: int, soundness: int) -> int | None:
    """How many rows let a longer vector through with chance 2^-soundness at most; None where more
    than are worth it, or none do.

    >>> projections(2**15, 40, 100_000, 40), projections(2**15, 32, 100_000, 40)
    (88, None)
    """
    p = passes(longest, ring, d)
    rows = math.ceil(soundness / -math.log2(p)) if p < 1 else MOST_ROWS + 1
    return rows if rows <= MOST_ROWS else None
