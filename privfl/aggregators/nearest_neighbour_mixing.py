"""Nearest-neighbour mixing before a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import Before, finite_rows, products
from privfl.aggregators.verdict import Verdict
from privfl.core import UNPROVED, Context, Examples, Memory, Moves, Neighbours, Rows, require
from privfl.core.geometry import squared_distances


@dataclass(frozen=True, slots=True)
class NearestNeighbourMixing(Before[None]):
    """Replace every row by the mean of its n - f nearest, itself included (Allouah et al. 2023,
    Algorithm 1: NNM).

    With it, the rules of this package reach the optimal order of robustness under heterogeneous
    data, where n > 2f. One distance matrix and one [n, n] x [n, d] product. Rows that are not
    finite are nobody's neighbours and pass through, to be met by the rule. Ids and weights stay
    with their rows.

    >>> import torch
    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> NearestNeighbourMixing(f=1).before(Rows.of([[0.0], [1.0], [2.0], [99.0]]), None, context)[
    ...     0
    ... ].values.T
    tensor([[ 1.,  1.,  1., 34.]])
    """

    examples: ClassVar[Examples] = {"": {"f": 3}}
    memory: ClassVar[Memory] = "none"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def passes(self, n: int) -> int:
        """All, where n > 2f."""
        require.honest_majority(
            rule="NearestNeighbourMixing", n=n, f=self.f, at_least=2 * self.f + 1
        )
        return n

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """2C (n - 1) / (n - f) + 2C over all rows, where one row of length at most C moves; all
        rows move. Under add_remove, which changes n, nothing is proved.

        The order of the others around a row is fixed (each distance is a function of its own two
        rows, ties go by position), so one row that moves enters or leaves the n - f nearest of
        another row, in exchange for one, or stays in them: the other's mean moves by at most 2C /
        (n - f). Its own mean stays in the ball: 2C.
        """
        n, far = moves.rows, 2 * moves.longest
        if n is None or n <= 2 * self.f or neighbours.relation == "add_remove":
            return UNPROVED
        if moves.changed > 1:
            return UNPROVED
        return Moves(far * (n - 1) / (n - self.f) + far, moves.longest, n, n)

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The mixed rows.

        Raises:
            TooManyByzantine: n <= 2f.
        """
        self.passes(rows.n)
        squared = squared_distances(rows.values, alone=True)
        if rows.n > 1 and bool(torch.isfinite(squared).all()):  # then so are the rows
            mixed = products(self._near(squared, rows.n - self.f), rows.values)
        else:
            finite = finite_rows(rows.values)
            values = rows.values[finite]
            mixed = rows.values.clone()
            mixed[finite] = products(
                self._near(
                    squared_distances(values, alone=True), min(rows.n - self.f, len(values))
                ),
                values,
            )
        return Verdict(Rows(mixed, rows.weights, rows.ids), touched=rows.d if self.f else 0), None

    def _near(self, squared: Float[Tensor, "n n"], keep: int) -> Float[Tensor, "n n"]:
        near = torch.zeros_like(squared)
        if keep:
            near.scatter_(1, squared.argsort(dim=1, stable=True)[:, :keep], 1 / keep)
        return near
