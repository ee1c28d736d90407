"""Searches for what would break a rule's word: rows of liars that move it far, and neighbours
between which it moves farther than it says.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import NeighbourRelation, Rows
from privfl.engine.compatibility import AnyRule
from privfl.testing.rows import D, N, aggregate, far_rows, honest, liars, of

CLIMBS, TRIES = 6, 8


def farthest(rule: AnyRule) -> tuple[float, str]:
    """How far liars were seen to move a rule from the mean of the honest rows, in units of how far
    these reach, and where they stood: placed by hand, and by a search from random starts.
    """
    f = liars(rule)
    worst, where = 0.0, ""
    for centre, far in itertools.product((1.0, 0.15), (1e2, 1e5, 1e9)):
        near = honest(N - f, 2, centre)
        for place, rows in far_rows(near, f, far):
            moved = _moved(rule, near, rows)
            if moved > worst:
                worst, where = moved, f"{far:g} out, {place}"
    moved, scale = _climbed(rule, f)
    return (worst, where) if worst >= moved else (moved, f"near {scale:.2g} out, by search")


def _moved(rule: AnyRule, near: Float[Tensor, "h d"], rows: Float[Tensor, "f d"]) -> float:
    mean = near.mean(dim=0)
    room = (near - mean).norm(dim=1).max() + mean.norm()
    return float((aggregate(rule, of(torch.cat([near, rows]))) - mean).norm() / room)


def _climbed(rule: AnyRule, f: int) -> tuple[float, float]:
    near, rng = honest(N - f, 11), torch.Generator().manual_seed(3)
    centre, worst, where = near.mean(dim=0), 0.0, 0.0
    for attempt in range(TRIES):
        scale = 10 ** float(torch.empty(()).uniform_(-1, 6, generator=rng))
        drawn = torch.randn(1 if attempt % 2 else f, D, generator=rng, dtype=torch.float64)
        rows = (centre + scale * drawn).expand(f, D).clone()
        best = _moved(rule, near, rows)
        for _ in range(CLIMBS):
            step = torch.randn(f, D, generator=rng, dtype=torch.float64)
            other = rows + 0.5 * rows.abs().mean() * step
            found = _moved(rule, near, other)
            if found > best:
                rows, best = other, found
        if best > worst:
            worst, where = best, scale
    return worst, where


def widest_gap(rule: AnyRule, n: int, relation: NeighbourRelation) -> float:
    """How far apart, in L2, the results of two neighbouring worlds of n rows in the unit ball were
    seen: random and two-camp starts, then greedy ascent.
    """
    rng, worst = torch.Generator().manual_seed(5), 0.0
    for attempt in range(TRIES):
        values = _ball(2 * torch.randn(n, D, generator=rng, dtype=torch.float64))
        if attempt % 2:  # two camps, the hardest place for medians
            values = _ball(values.sign() * 0.5)
        if attempt % 4 == 2:  # all in one place but the one that moves, the hardest for means
            values = values[:1].expand(n, D).clone()
        other = -values[0]
        best = _gap(rule, values, other, relation)
        for _ in range(CLIMBS):
            drawn = torch.randn(n, D, generator=rng, dtype=torch.float64)
            tried = _ball(values + 0.3 * drawn)
            found = _gap(rule, tried, other, relation)
            if found > best:
                values, best = tried, found
        worst = max(worst, best)
    return worst


def _ball(values: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    inside: Tensor = values / values.norm(dim=1, keepdim=True).clamp(min=1)
    return inside


def _gap(
    rule: AnyRule, values: Float[Tensor, "n d"], other: Tensor, relation: NeighbourRelation
) -> float:
    neighbour: Rows = of(values.clone())
    if relation == "replace_one":
        neighbour.values[0] = other
    elif relation == "zero_out":
        neighbour.values[0] = 0
    else:
        neighbour = neighbour.take(range(len(values) - 1))
    return float((aggregate(rule, of(values)) - aggregate(rule, neighbour)).norm())
