"""Who shares masks with whom: everybody with everybody, or a sparse graph whose degree is computed
(Bell et al. 2020).
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError
from privfl.crypto.primitives import backend, derive, keystream_words

SPARSE_FROM = 33
"""Cohorts below this are complete: a sparse graph would save little there, and stand fewer
dropouts.
"""


@dataclass(frozen=True, slots=True)
class Degree:
    """``k`` neighbours hold shares of a client's secrets, and so does the client itself; ``t`` of
    these k + 1 shares open them.
    """

    k: int
    t: int

    @property
    def shares(self) -> int:
        """How many shares a secret is split into."""
        return self.k + 1


def _log_choose(n: float, k: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log2_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """log2 P[at least ``least`` of ``drawn`` are marked], drawn without replacement."""
    low, high = max(least, drawn - (population - marked), 0), min(drawn, marked)
    if low > high:
        return -math.inf
    whole = _log_choose(population, drawn)
    logs = [
        _log_choose(marked, x) + _log_choose(population - marked, drawn - x) - whole
        for x in range(low, high + 1)
    ]
    top = max(logs)
    return min(0.0, (top + math.log(sum(math.exp(v - top) for v in logs))) / math.log(2))


def part_of(n: int, fraction: float) -> int:
    """How many clients a fraction of n is, rounded down, but not where the product of floats falls
    short of a whole number.

    >>> part_of(100, 0.29), int(100 * 0.29)
    (29, 28)
    """
    return math.floor(fraction * n + 1e-9)


def corrupt_neighbours(n: int, k: int, corrupt: float, sigma: float) -> int:
    """The number of corrupt clients among k random neighbours that no client exceeds, but with
    probability 2^-sigma.
    """
    bad = part_of(n, corrupt)
    return next(
        c for c in range(k + 1) if math.log2(n) + _log2_tail(n - 1, bad, k, c + 1) <= -sigma
    )


def threshold_for(n: int, k: int, corrupt: float, sigma: float, active: bool) -> int:
    """The smallest safe t of the k + 1 shares: over half of them, and against an active server 2t >
    k + 1 + corrupt neighbours.

    A client that answers once gives the server one share, of the seed or of the key; with such a t
    no server gets enough of both.
    """
    return (k + 1 + (corrupt_neighbours(n, k, corrupt, sigma) if active else 0)) // 2 + 1


@lru_cache(maxsize=1024)
def fails(n: int, found: Degree, corrupt: float, drop: float, active: bool) -> tuple[float, float]:
    """How likely a degree and threshold fail a cohort of n: log2 of bounds on the probabilities
    that privacy fails, and that a round within ``drop`` does.

    >>> private, finished = fails(1000, Degree(34, 18), corrupt=0.05, drop=0.05, active=False)
    >>> private < -40, finished < -30
    (True, True)
    """
    k, t = found.k, found.t
    bad, union = part_of(n, corrupt), math.log2(n)
    gone, late = part_of(n, drop), _late(n, found, part_of(n, drop))
    opened = union + _log2_tail(n - 1, bad, k, t)  # corrupt neighbours alone open a secret
    if k >= n - 1:
        return min(0.0, opened), late
    if not active:
        # honest survivors fall apart only where k/2 neighbours on the circle are all corrupt or
        # gone
        run, lost = k // 2, min(bad + gone, n)
        return min(0.0, max(opened, union + _log2_tail(n, lost, run, run))), late
    lonely = [
        _lonely(n, found, bad, s)
        for s in sorted({int(x) for x in np.geomspace(1, max(1, (n - bad) // 2), 48)})
    ]
    # over 2 t - k - 1 corrupt neighbours of one client give a server both of its secrets
    both = union + _log2_tail(n - 1, bad, k, 2 * t - k - 1)
    return min(0.0, max(opened, both, *lonely)), late


def _late(n: int, found: Degree, gone: int) -> float:
    """log2 of a union bound over n clients, of whom so many leave: one that left needs t of its k
    holders, of whom any others that left are none; one that stays is asked for its own share too,
    and needs t - 1.
    """
    k, t = found.k, found.t
    left = _log2_tail(n - 1, max(gone - 1, 0), k, k - t + 1)
    stays = _log2_tail(n - 1, gone, k, k - t + 2)
    chance = gone * 2**left + (n - gone) * 2**stays
    return min(0.0, math.log2(chance)) if chance else -math.inf


def _lonely(n: int, found: Degree, bad: int, s: int) -> float:
    """log2 of a bound on the probability that some s honest clients are a lonely set: that each of
    them drew t - 1 others among them and the corrupt.
    """
    inside = _log2_tail(n - 1, min(s - 1 + bad, n - 1), found.k, found.t - 1)
    return _log_choose(n - bad, s) / math.log(2) + s * inside


@lru_cache(maxsize=1024)
def fewest_together(n: int, found: Degree, corrupt: float, drop: float, sigma: float) -> int:
    """Of how few honest clients a lying server of an active round on a sparse graph can have the
    sum: fewer are a lonely set with probability 2^-sigma at most (or as `fails` says, where a
    degree by hand fails more often).

    Those whom it asks must each have drawn t of each other and the corrupt; it sees who drew whom,
    picks them, and pads what it tells them up to the threshold's fraction of the cohort. Half of
    the honest are never enough, or two parts of them were summed at once.

    >>> found = degree(100, corrupt=0.05, drop=0.05, active=True)
    >>> found, fewest_together(100, found, 0.05, 0.05, 40)
    (Degree(k=16, t=12), 50)
    """
    bad = part_of(n, corrupt)
    level = max(-sigma, fails(n, found, corrupt, drop, True)[0])
    low, high = (n - bad) // 2 + 1, n - bad
    while low < high:
        middle = (low + high) // 2
        if _lonely(n, found, bad, middle) > level:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=1024)
def degree(
    n: int, *, corrupt: float, drop: float, sigma: float = 40, eta: float = 30, active: bool = False
) -> Degree:
    """The smallest degree, and its threshold, that is private but for 2^-sigma and finishes but for
    2^-eta; even on the circle of a semi-honest round; the whole cohort if none.

    Over a degree of 80 it is found within 3 %.

    Hypergeometric tails and a union bound over n clients, of whom at most ``corrupt`` n collude
    with the server and at most ``drop`` n leave, both chosen before the graph is drawn (Bell et al.
    2020, section 3). Semi-honest: no client has t corrupt neighbours, and the honest survivors on
    the circle stay connected. Active, where every client picks its k holders itself: 2t > k + 1 +
    corrupt neighbours, and no set of honest clients can each keep t shares within the set and the
    corrupt.

    >>> degree(1000, corrupt=0.05, drop=0.05), degree(8, corrupt=0.05, drop=0.05)
    (Degree(k=34, t=18), Degree(k=7, t=5))
    """
    if n < SPARSE_FROM:
        return complete(n, corrupt=corrupt, active=active)
    k, step = 2, 1 if active else 2
    while k < (n - 2 if active else n - 1):
        t = threshold_for(n, k, corrupt, sigma, active)
        found = Degree(k, t)
        if t <= k and _stand(fails(n, found, corrupt, drop, active), sigma, eta):
            return found
        k += step * max(1, k // 80)
    return complete(n, corrupt=corrupt, active=active)


def _stand(failing: tuple[float, float], sigma: float, eta: float) -> bool:
    private, finished = failing
    return private <= -sigma and finished <= -eta


def complete(n: int, *, corrupt: float, active: bool) -> Degree:
    """Everybody holds a share of everybody's secrets (Bonawitz et al. 2017): no probability is left
    in it.
    """
    return Degree(n - 1, (n + (part_of(n, corrupt) if active else 0)) // 2 + 1)


@lru_cache(maxsize=16)
def _circle(tag: bytes, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The clients' order on the circle, and each client's place in it, from the public facts of the
    round.
    """
    words = keystream_words(derive(tag, tag, "graph"), n, np.uint64, backend())
    order = np.argsort(words, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    return order, place


def neighbours(tag: bytes, n: int, k: int, position: int) -> tuple[int, ...]:
    """The k clients nearest to a client on a circle that the round shuffles; everybody else where k
    = n - 1.

    >>> all(a in neighbours(b"tag", 9, 4, b) for a in range(9) for b in neighbours(b"tag", 9, 4, a))
    True
    """
    if k >= n - 1:
        return tuple(p for p in range(n) if p != position)
    order, place = _circle(tag, n)
    half = np.arange(1, k // 2 + 1)
    around = (place[position] + np.concatenate([-half, half])) % n
    return tuple(sorted(int(p) for p in order[around]))


def pick(n: int, k: int, position: int) -> tuple[int, ...]:
    """So many of the other clients of a cohort by the operating system's chance: whom a client
    trusts with its shares, out of an active server's hands.

    >>> drawn = pick(9, 4, position=2)
    >>> len(set(drawn)), 2 in drawn
    (4, False)
    """
    drawn = secrets.SystemRandom().sample(range(n - 1), min(k, n - 1))
    return tuple(sorted(other + (other >= position) for other in drawn))


def even(k: int, n: int) -> int:
    """A degree that exists on a circle of n clients.

    Raises:
        ConfigError: fewer than 2 neighbours.
    """
    if k < 2 and n > 2:
        raise ConfigError(f"graph: a client needs at least 2 neighbours, and got {k}.")
    return n - 1 if k >= n - 1 else min(k + k % 2, n - 1)
