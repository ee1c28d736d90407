"""Rows to try rules on, and one way to call every rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators import ToleratesByzantine
from privfl.core import Context, RoundPlan, Rows, Total, Vector
from privfl.engine.compatibility import AnyRule

N, D, F = 15, 5, 3
"""Rows, values in each, and how many of them are a liar's where the rule stands so many."""


def context(d: int, n: int = N, seed: int = 7) -> Context:
    """A round of n clients before a model [d] between 1 and 2."""
    parameters = torch.linspace(1, 2, d, dtype=torch.float64)
    plan = RoundPlan(0, tuple(range(n)), d, math.inf)
    return Context(plan, parameters, torch.Generator().manual_seed(seed))


def crowd(n: int = N, d: int = D, seed: int = 0) -> Float[Tensor, "n d"]:
    """Rows around (1, .., 1), with three outliers at the end; float64, so that symmetries hold to
    many digits.
    """
    rng = torch.Generator().manual_seed(seed)
    values = 1 + 0.5 * torch.randn(n, d, generator=rng, dtype=torch.float64)
    values[n - F :] += 4 * torch.randn(min(F, n), d, generator=rng, dtype=torch.float64)
    return values


def of(values: Float[Tensor, "n d"], ids: tuple[int, ...] | None = None) -> Rows:
    """Rows of weight 1, of clients 0, 1, .. unless said."""
    return Rows(values, torch.ones(len(values)), tuple(range(len(values))) if ids is None else ids)


def opened_for(rule: AnyRule, rows: Rows) -> Rows | Total:
    """The rows, or their sum for a rule that reads sums."""
    if rule.reads == "total":
        total = rows.weights.to(rows.values) @ rows.values
        return Total(total, float(rows.weights.sum()), rows.n)
    return rows


def aggregate(rule: AnyRule, rows: Rows) -> Vector:
    """What a rule makes [d] of rows in its first round, the same coins each time."""
    opened: Any = opened_for(rule, rows)
    if rule.remembers:
        return rule.step(opened, rule.init(), context(rows.d, rows.n))[0]
    return rule(opened)


def stands(rule: AnyRule, n: int) -> int:
    """How many of n rows a rule says may be arbitrary.

    Raises:
        TooManyByzantine: it does not work on n rows.
    """
    return rule.max_byzantine(n) if isinstance(rule, ToleratesByzantine) else 0


def liars(rule: AnyRule) -> int:
    """How many rows of `N` are a liar's here: as many as the rule stands, and three at most."""
    return min(F, stands(rule, N))


def honest(n: int, seed: int, centre: float = 1.0) -> Float[Tensor, "n d"]:
    """Honest rows of `D` values near (centre, .., centre)."""
    rng = torch.Generator().manual_seed(seed)
    return centre + 0.3 * torch.randn(n, D, generator=rng, dtype=torch.float64)


def far_rows(
    near: Float[Tensor, "h d"], f: int, far: float
) -> Iterator[tuple[str, Float[Tensor, "f d"]]]:
    """F liars in the places where rules were seen to break, ``far`` out."""
    rng = torch.Generator().manual_seed(1)
    mean, d = near.mean(dim=0), near.shape[1]
    axes = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64)).Q
    turns = torch.arange(f) % d
    ladder = far ** torch.linspace(0.2, 1, f, dtype=torch.float64)[:, None]
    one = near[:f].clone()
    one[0] = far * mean
    spike = near[:f].clone()
    spike[:, 0] = far * spike[:, 0].abs()
    yield "along the mean, together", far * mean.expand(f, d)
    yield "along the mean, one alone", one
    yield "against the mean", -far * mean.expand(f, d)
    yield "a coordinate each", mean + far * torch.eye(d, dtype=torch.float64)[turns]
    yield "one coordinate of an honest row", spike
    yield "an honest row, longer", far * near[:f]
    yield "in several directions", mean + far * axes[turns]
    yield "farther and farther in one direction", mean + ladder * axes[0]
    yield "farther and farther along the mean", ladder * mean
    yield "in all directions", far * torch.randn(f, d, generator=rng, dtype=torch.float64)
