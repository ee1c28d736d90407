"""Groups of clients whose means are a rule's rows: how many there are, how they are drawn, and what
one client moves of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from privfl.core import ConfigError, Moves, Neighbours, Rows, Stable


@dataclass(frozen=True, slots=True)
class Buckets:
    """Random groups of ``size`` clients, of whom at least ``least`` answer or the group is left out
    (a `core.Grouping`).

    >>> Buckets(size=3, least=2).rows(20), Buckets(size=3, least=2).max_byzantine(20)
    (6, 2)
    """

    size: int
    least: int

    def rows(self, contributions: int) -> int:
        """How many rows so many contributions make."""
        return max(contributions // self.size, 1)

    def max_byzantine(self, n: int) -> int:
        """How many Byzantine clients among n leave a majority of good rows, wherever they sit."""
        return (self.rows(n) - 1) // 2

    def sizes(self, n: int) -> tuple[int, ...]:
        """The groups' sizes: what is left over joins the last ones.

        Raises:
            ConfigError: fewer than two groups: one would be plain secure aggregation.

        >>> Buckets(size=3, least=2).sizes(11)
        (3, 4, 4)
        """
        count = n // self.size
        if count < 2:
            raise ConfigError(
                f"{n} clients make no two groups of {self.size}: ask more clients, or lower"
                " channel.size."
            )
        return tuple(n // count + (i >= count - n % count) for i in range(count))

    def means(self, rows: Rows, rng: torch.Generator) -> Rows:
        """The group means under a shuffle of the caller's generator; each weighs as many clients as
        it is of, and whose they are is forgotten.

        Raises:
            ConfigError: fewer than two groups.
        """
        sizes = self.sizes(rows.n)
        order = torch.randperm(rows.n, generator=rng)
        groups = [rows.values[members] for members in torch.split(order, list(sizes))]
        return Rows(
            torch.stack([group.mean(dim=0) for group in groups]),
            torch.tensor(sizes, dtype=torch.float32),
        )

    def stage(self) -> Stable:
        """The grouping as a stage between clients' rows and the rule."""
        return _Means(self)


@dataclass(frozen=True, slots=True)
class _Means:
    """One row of the least group moves by as much as the client in it, divided by that group's
    size. A client that comes or goes draws all groups anew, so then nothing is proved.
    """

    buckets: Buckets

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        rows = None if moves.rows is None else self.buckets.rows(moves.rows)
        if neighbours.relation == "add_remove":
            return replace(moves, total=math.inf, changed=math.inf, rows=None)
        changed = moves.changed if rows is None else min(moves.changed, rows)
        return replace(moves, total=moves.total / self.buckets.least, changed=changed, rows=rows)
