"""Whether a round is released at all, and whether that tells who was drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from privfl.core import Sampling

Opens: TypeAlias = Callable[[int, int], bool]
"""Whether a round of a cohort of n is released of whom m contributions get through: a function of
these two numbers, never of anybody's data.
"""


def always(n: int, m: int) -> bool:
    """Every round is released, that of nobody as noise alone.

    >>> always(0, 0)
    True
    """
    return True


def fewest_of(opens: Opens, n: int) -> int:
    """With how few contributions of a cohort of n a round is released; n + 1 where with none.

    >>> fewest_of(lambda n, m: m >= 3, 10)
    3
    """
    return next((m for m in range(n + 1) if opens(n, m)), n + 1)


def for_everybody(opens: Opens, population: int) -> bool:
    """Whether rounds are released whoever comes: it is known of a quorum, and of a rule that needs
    some rows, that it refuses nobody, or one alone.
    """
    return all(opens(n, m) for n in {0, 1, population} for m in {0, min(1, n)})


def hinges(opens: Opens, sampling: Sampling, n: int, m: int) -> bool:
    """Whether a round of a cohort of n, of whom m got through, would have been released, or not, by
    one client more or less in the sample: then its being released tells that client's coin, and
    sampling hides it no longer. Where a user has several clients (``sampling.group``), by as many
    more or less.

    That client gets through wherever it is drawn, or nowhere. In a sample of fixed size it takes
    another one's place.

    >>> drawn = Sampling("poisson", 0.1, 100)
    >>> [m for m in range(5) if hinges(lambda n, m: m >= 2, drawn, m, m)]
    [1, 2]
    """
    moves: tuple[tuple[int, int], ...] = ((0, 1), (0, -1))
    if sampling.scheme == "poisson":
        moves = ((1, 1), (1, 0), (-1, -1), (-1, 0))
    reached = {(n, m)}
    for _ in range(sampling.group):
        near = {(a + i, b + j) for a, b in reached for i, j in moves}
        reached |= {(a, b) for a, b in near if 0 <= b <= a <= sampling.population}
    return any(opens(a, b) != opens(n, m) for a, b in reached)
