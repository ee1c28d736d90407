"""Smallest maximum eigenvalue averaging, exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.spectral import about
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Examples, Rows, require
from privfl.core.geometry import centred_gram

NODES = 200_000


@dataclass(frozen=True, slots=True)
class SMEA(InHull, RowRule):
    """Smallest maximum eigenvalue averaging (Allouah et al. 2023): n - f rows, least top eigenvalue
    of covariance.

    Found exactly by branch and bound: a set's scatter matrix only grows as rows join, so a part
    whose top eigenvalue is over the best known is given up. Tolerates f < n/2. Row weights are not
    used. Past 200,000 search nodes it refuses: the worst case is exponential in f.

    >>> round(float(SMEA(f=1)(Rows.of([[0.0], [0.5], [0.2], [7.0]])) * 30), 3)
    7.0
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 2}}

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="SMEA", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        inner = centred_gram(rows.values).cpu()
        chosen = torch.tensor(least_spread(inner, max(self.f - lost, 0)))
        kept = mask(rows.n, chosen)
        away = about(inner, kept.to(inner) / len(chosen)).diagonal().clamp(min=0).sqrt()
        return Verdict(mean_of(rows.values, chosen), kept=kept, suspicion=away)


def top_eigenvalue(inner: Float[np.ndarray, "n n"], rows: list[int]) -> float:
    """The largest eigenvalue of the rows' scatter matrix (their covariance times their number)."""
    part = inner[rows][:, rows]
    towards = part.mean(axis=0)
    return float(np.linalg.eigvalsh(part - towards[:, None] - towards + towards.mean())[-1])


def least_spread(inner: Float[Tensor, "n n"], f: int, nodes: int = NODES) -> list[int]:
    """The n - f rows whose scatter has the least top eigenvalue.

    The first guess drops, f times, the row whose loss lessens it most. Then rows are decided on
    from the most central outwards.

    Raises:
        ConfigError: the search visited more than ``nodes`` nodes.
    """
    n, products = len(inner), inner.numpy()  # numpy is several times faster on matrices this small
    guess = list(range(n))
    for _ in range(f):
        guess = min(
            ([i for i in guess if i != out] for out in guess),
            key=lambda rows: top_eigenvalue(products, rows),
        )
    best, least = guess, top_eigenvalue(products, guess)
    middle = about(inner, mask(n, torch.tensor(guess)).to(inner.dtype) / len(guess))
    order = [int(i) for i in middle.diagonal().argsort(stable=True)]
    stack: list[tuple[int, list[int], float]] = [(0, [], 0.0)]
    while stack:
        nodes -= 1
        if nodes < 0:
            raise ConfigError(
                f"SMEA: the exact search over {n} rows with f={f} is too long; CAF(f={f}) weighs"
                " rows by the same measure fast."
            )
        depth, rows, spread = stack.pop()
        if spread >= least:
            continue
        if len(rows) == n - f:
            best, least = rows, spread
            continue
        if depth - len(rows) < f:
            stack.append((depth + 1, rows, spread))
        more = [*rows, order[depth]]
        stack.append((depth + 1, more, top_eigenvalue(products, more) if len(more) > 1 else 0.0))
    return sorted(best)
