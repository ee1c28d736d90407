"""Rules that look at the rows' covariance: CAF, SMEA and DnC. Its eigenvectors lie in the rows' span, so all is done on the Gram matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.seats import InHull, MemoryRule, RowRule, combine, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Context, Rows, TooManyByzantine, require
from privfl.core.geometry import centred_gram

_FLAT = 1e-14
NODES = 200_000


def about(inner: Float[Tensor, "n n"], weights: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """Inner products about the point with coefficients ``weights`` (which sum to 1)."""
    towards = inner @ weights
    return inner - towards[:, None] - towards + weights @ towards


@dataclass(frozen=True, slots=True)
class CAF(InHull, RowRule):
    """Covariance-bound agnostic filter (Allouah, Guerraoui, Stephan 2025): weigh down what sticks out along the covariance's main axis.

    Weights c start at 1. While their sum exceeds n - 2f: the c-weighted mean and the top eigenpair (lambda, v) of the c-weighted
    covariance; c_i falls by the factor 1 - <x_i - mean, v>^2 / max. The mean that had the least lambda is the result. Stands
    f < n/2. Row weights are not used. Rows whose weight is 0 do not enter the maximum, so at least one more falls every time.

    >>> 0.9 < float(CAF(f=1)(Rows.of([[0.0], [1.0], [2.0], [99.0]]))) < 1.1
    True
    """

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def stands(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="CAF", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        n, f = rows.n, max(self.f - lost, 0)
        inner = centred_gram(rows.values).cpu()
        c = torch.ones(n, dtype=torch.float64)
        best, least = c / n, math.inf
        while float(c.sum()) > n - 2 * f:
            share = c / c.sum()
            around = about(inner, share)
            root = share.sqrt()
            values, vectors = torch.linalg.eigh(root[:, None] * around * root)
            if float(values[-1]) < least:
                least, best = float(values[-1]), share
            if float(values[-1]) <= _FLAT * float(inner.diagonal().max()):
                break
            along = (around @ (root * vectors[:, -1])) ** 2  # <x_i - mean, v>^2 up to one factor
            along[c <= 0] = 0.0
            fallen = c * (1 - along / along.max())
            c = torch.where(along >= along.max(), torch.zeros(()).to(c), fallen)
        return Verdict(combine(rows.values, best), kept=best > 0, scale=(best * n).clamp(max=1).round(decimals=9), scores={"weight": best})


@dataclass(frozen=True, slots=True)
class SMEA(InHull, RowRule):
    """Smallest maximum eigenvalue averaging (Allouah et al. 2023): n - f rows, least top eigenvalue of covariance.

    Found exactly by branch and bound: a set's scatter matrix only grows as rows join, so a part whose top eigenvalue is over the best known
    is given up. Stands f < n/2. Row weights are not used. Past 200,000 search nodes it refuses: the worst case is exponential in f.

    >>> SMEA(f=1)(Rows.of([[0.0], [0.5], [0.2], [7.0]])) * 30
    tensor([7.])
    """

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def stands(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="SMEA", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        chosen = torch.tensor(least_spread(centred_gram(rows.values).cpu(), max(self.f - lost, 0)))
        return Verdict(mean_of(rows.values, chosen), kept=mask(rows.n, chosen))


def top_eigenvalue(inner: Float[Tensor, "n n"], rows: list[int]) -> float:
    """The largest eigenvalue of the rows' scatter matrix (their covariance times their number)."""
    part = inner[rows][:, rows]
    return float(torch.linalg.eigvalsh(about(part, torch.full((len(rows),), 1 / len(rows), dtype=part.dtype)))[-1])


def least_spread(inner: Float[Tensor, "n n"], f: int, nodes: int = NODES) -> list[int]:
    """The n - f rows whose scatter has the least top eigenvalue.

    The first guess drops, f times, the row whose loss lessens it most. Then rows are decided on from the most central outwards.

    Raises:
        ConfigError: the search visited more than ``nodes`` nodes.
    """
    n = len(inner)
    guess = list(range(n))
    for _ in range(f):
        guess = min(([i for i in guess if i != out] for out in guess), key=lambda rows: top_eigenvalue(inner, rows))
    best, least = guess, top_eigenvalue(inner, guess)
    middle = about(inner, mask(n, torch.tensor(guess)).to(inner.dtype) / len(guess))
    order = [int(i) for i in middle.diagonal().argsort(stable=True)]
    stack: list[tuple[int, list[int]]] = [(0, [])]
    while stack:
        nodes -= 1
        if nodes < 0:
            raise ConfigError(
                f"SMEA: the exact search over {n} rows with f={f} is too long; CAF(f={f}) weighs rows by the same measure fast."
            )
        depth, rows = stack.pop()
        spread = top_eigenvalue(inner, rows) if len(rows) > 1 else 0.0
        if spread >= least:
            continue
        if len(rows) == n - f:
            best, least = rows, spread
            continue
        if depth - len(rows) < f:
            stack.append((depth + 1, rows))
        stack.append((depth + 1, [*rows, order[depth]]))
    return sorted(best)


@dataclass(frozen=True, slots=True)
class DnC(InHull, MemoryRule[None]):
    """Divide and conquer (Shejwalkar, Houmansadr 2021, Algorithm 2): drop what sticks out along the top right singular vector.

    ``iterations`` times: ``coordinates`` random coordinates, centred; the floor(c f) rows with the largest squared projection are
    out. The mean of the rows that were never out. Stands f where iterations * floor(c f) < n, so that somebody always remains. Row
    weights are not used.

    >>> import torch
    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> DnC(f=1).step(Rows.of([[0.0], [1.0], [2.0], [99.0]]), None, context)[0]
    tensor([1.])
    """

    symmetries: ClassVar[str] = "PTS"

    f: int = 1
    c: float = 1.0
    coordinates: int = 10_000
    iterations: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.positive(c=self.c)
        require.at_least(1, coordinates=self.coordinates, iterations=self.iterations)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stands(self, n: int) -> int:
        """f, where n > 2f and iterations * floor(c f) < n."""
        require.honest_majority(rule="DnC", n=n, f=self.f, at_least=2 * self.f + 1)
        out = math.floor(self.c * self.f)
        if self.iterations * out >= n:
            raise TooManyByzantine(f"DnC drops up to iterations * floor(c f) = {self.iterations * out} of {n} rows: lower one of them.")
        return self.f

    def _decide(self, rows: Rows, lost: int, state: None, context: Context) -> tuple[Verdict[Tensor], None]:
        out = math.floor(self.c * max(self.f - lost, 0))
        kept = torch.ones(rows.n, dtype=torch.bool)
        for _ in range(self.iterations):
            picked = rows.values
            if self.coordinates < rows.d:
                picked = rows.values[:, torch.randperm(rows.d, generator=context.rng)[: self.coordinates]]
            around = about(centred_gram(picked).cpu(), torch.full((rows.n,), 1 / rows.n, dtype=torch.float64))
            along = torch.linalg.eigh(around).eigenvectors[:, -1] ** 2  # the left singular vector: projections up to one factor
            kept[along.argsort(stable=True)[rows.n - out :]] = False
        return Verdict(mean_of(rows.values, kept), kept=kept), None
