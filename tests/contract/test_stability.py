"""No pair of neighbours moves what leaves a bound, a seat or a rule farther than it claims: looked
for over the catalogue, with pairs that are known to be hard, at random, and by climbing from the
worst. The search refutes claims and proves none; planted lies show that it has power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks.dp_lies_rules import Half, OldCount, OneRowClipping, OneRowMixing, OwnCentre, Still
from privfl import catalog
from privfl.aggregators import (
    CenteredClipping,
    Mean,
    TrimmedMean,
)
from privfl.core import (
    BadUpdate,
    Context,
    Moves,
    NeighbourRelation,
    Neighbours,
    Oracle,
    Released,
    RoundPlan,
    Rows,
    Stable,
)
from privfl.core.geometry import squared_distances

N, D, C = 10, 4, 1.0
SLACK = 1 + 1e-4
PLAN = RoundPlan(0, tuple(range(N)), D, C)
PARAMETERS = torch.linspace(1, 2, D)
RELATIONS: tuple[NeighbourRelation, ...] = ("replace_one", "zero_out")
Pair = tuple[torch.Tensor, torch.Tensor]
Made = Callable[[torch.Tensor], torch.Tensor]


def root(context: Context) -> torch.Tensor:
    return torch.linspace(1, 0, D)


ORACLES: dict[Oracle, Any] = {
    Oracle.ROOT: root,
    Oracle.LOSS: lambda parameters, context: float((parameters[0] - 2).square()),
    Oracle.LOSSES: lambda rows, context: 1.0 + torch.arange(rows.n),
    Oracle.VOTES: lambda rows, context: torch.ones(rows.n, rows.n, dtype=torch.bool),
    Oracle.FEATURES: lambda parameters, context: torch.outer(torch.arange(1.0, 4), parameters),
    Oracle.LAYER_SIZES: [3, 1],
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "mean": [{"weighted": False}, {"weighted": False, "denominator": 7.0}],
    "trimmed_mean": [{"f": 3}],
    "slsgd": [{"b": 2}],
    "krum": [{"f": 2, "m": 3}],
    "centered_clipping": [{"tau": 0.3}, {"tau": 2.5, "iterations": 3}],
    "fltrust": [{"root_l2": 0.7}, {"root_l2": 0.7, "fixed": True}],
    "flame": [{"noise": 0.0}],
    "robust_learning_rate": [{"theta": 2}],
    "nnm": [{"f": 4}],
    "arc": [{"f": 4}],
    "bucketing": [{"size": 3}],
    "clip_by_layer": [],
}
"""Settings that claim something else than a default does."""


def made(table: catalog.Table, seat: str) -> dict[str, Any]:
    """Every part of a table that fills this seat, as its defaults and as SETTINGS set it."""
    parts = {}
    for name, maker in table.items():
        if seat not in maker.seats:
            continue
        needs = {argument: ORACLES[oracle] for argument, oracle in maker.needs.items()}
        for setting in ({}, *SETTINGS.get(name, ())):
            parts[f"{name} {setting}" if setting else name] = maker(**needs, **setting)
    return parts


RULES = made(catalog.AGGREGATORS, "rule")
SEATS = made(catalog.DEFENCES, "before")


def context(released: torch.Tensor | None = None) -> Context:
    before = {} if released is None else {"delta": Released(released)}
    return Context(PLAN, PARAMETERS, torch.Generator().manual_seed(3), before)


def rows_of(values: torch.Tensor) -> Rows:
    return Rows(values, torch.ones(len(values)), tuple(range(len(values))))


def aggregated(rule: Any) -> Made:
    """What a rule makes of rows; the centre of rules that have one is not zero."""
    last = 0.3 * torch.linspace(-1, 1, D)

    def run(values: torch.Tensor) -> torch.Tensor:
        if rule.remembers:
            return rule.step(rows_of(values), rule.init(), context(last))[0]
        return rule(rows_of(values))

    return run


def seated(seat: Any) -> Made:
    return lambda values: seat.before(rows_of(values), seat.init(), context())[0].values


def behind(seat: Any, rule: Any) -> Made:
    return lambda values: aggregated(rule)(seated(seat)(values))


def bounded(relation: NeighbourRelation, n: int | None = N) -> tuple[Moves, Neighbours]:
    """What one client moves of rows that its bound has just left."""
    neighbours = Neighbours("client", relation)
    return Moves.of_one_row(n).bounded(C, neighbours), neighbours


# ---- the search


def ball(values: torch.Tensor) -> torch.Tensor:
    return values * (C / values.norm(dim=1, keepdim=True).clamp(min=C))


def hard_rows() -> Iterator[torch.Tensor]:
    """Rows among which one counts: two camps of every size, far apart, near zero, from zero on; an
    axis each; ties all around; a ladder; at random.
    """
    along = torch.eye(D)[0] * C
    for low, high in ((-1.0, 1.0), (0.01, 1.0), (0.0, 1.0)):
        for k in range(1, N):
            yield torch.stack([along * (low if i < k else high) for i in range(N)])
    axes = torch.cat([torch.eye(D), -torch.eye(D)]).repeat(2, 1)[:N]
    yield C * axes
    rng = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(D, D, generator=rng)).Q
    yield 0.99 * C * axes @ turn
    yield torch.linspace(-1, 1, N)[:, None] * along
    for _ in range(4):
        yield ball(torch.randn(N, D, generator=rng))


def pairs(relation: NeighbourRelation, only: int = 1) -> Iterator[Pair]:
    """Neighbours in the first row or the last, as different as they can be; every ``only``-th."""
    found = []
    for rows in hard_rows():
        for j in (0, N - 1):
            odd = next((row for row in rows if not torch.equal(row, rows[j])), -rows[j])
            others = (0 * odd, -rows[j], odd, 0.999 * odd, C * torch.eye(D)[1])
            for new in others if relation == "replace_one" else others[:1]:
                other = rows.clone()
                other[j] = new
                found.append((rows, other))
    yield from found[::only]


def worst(
    made: Made, claimed: float, relation: NeighbourRelation, only: int = 1, climb: int = 20
) -> float:
    """The farthest that neighbours were found apart, over what is claimed: by a (1 + 1) climb in
    the ball from the worst pair, whose step shrinks where it fails.
    """

    def apart(pair: Pair) -> float:
        one, other = made(pair[0]), made(pair[1])
        far = (one - other).norm(dim=-1).sum().item()
        return far / claimed if claimed else math.inf * far if far else 0.0

    best, at = 0.0, (torch.zeros(N, D), torch.zeros(N, D))
    for pair in pairs(relation, only):
        far = apart(pair)
        if far > best:
            best, at = far, pair
    rng, step = torch.Generator().manual_seed(2), 0.5 * C
    changed = (at[0] != at[1]).any(dim=1)
    for _ in range(climb):
        moved = ball(at[0] + step * torch.randn(N, D, generator=rng) / D**0.5)
        other = moved.clone()
        if relation == "replace_one":
            other[changed] = ball(at[1] + step * torch.randn(N, D, generator=rng))[changed]
        else:
            other[changed] = 0.0
        far = apart((moved, other))
        if far > best:
            best, at = far, (moved, other)
        else:
            step *= 0.93
    return best


# ---- everything in the catalogue


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", RULES)
def test_no_neighbour_moves_a_rule_farther_than_it_claims(
    name: str, relation: NeighbourRelation
) -> None:
    rule = RULES[name]
    claimed = rule.sensitivity(*bounded(relation))
    assert claimed > 0
    if claimed < math.inf:
        slow = name.startswith(("smea", "mda", "caf", "flame", "geometric", "median_of"))
        assert worst(aggregated(rule), claimed, relation, 7 if slow else 3) <= SLACK


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", SEATS)
def test_no_neighbour_moves_rows_through_a_seat_farther_than_it_claims(
    name: str, relation: NeighbourRelation
) -> None:
    seat = SEATS[name]
    if not isinstance(seat, Stable):
        return
    moves, neighbours = bounded(relation)
    claimed = seat.stability(moves, neighbours)
    assert claimed.total >= 0
    if claimed.total == math.inf:
        return
    assert worst(seated(seat), claimed.total, relation) <= SLACK
    for rows, other in pairs(relation):
        one, two = seated(seat)(rows), seated(seat)(other)
        assert len(one) == claimed.rows
        assert one.norm(dim=1).max() <= claimed.longest * SLACK
        assert ((one - two).norm(dim=1) > 1e-5).sum() <= claimed.changed


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", SEATS)
def test_no_neighbour_moves_a_rule_behind_a_seat_farther_than_both_claim(
    name: str, relation: NeighbourRelation
) -> None:
    seat = SEATS[name]
    if not isinstance(seat, Stable):
        return
    through = seat.stability(*bounded(relation))
    for rule in (
        Mean(weighted=False),
        TrimmedMean(1),
        CenteredClipping(tau=0.3),
        RULES["median"],
        RULES["geometric_median"],
    ):
        claimed = rule.sensitivity(through, Neighbours("client", relation))
        if claimed == math.inf:
            continue
        assert worst(behind(seat, rule), claimed, relation, only=7, climb=5) <= SLACK


@pytest.mark.parametrize("name", [*RULES, *SEATS])
def test_where_who_is_there_is_private_only_what_counts_nobody_claims_anything(name: str) -> None:
    """Under add_remove the number of rows is not public: what divides by it proves nothing."""
    moves, neighbours = bounded("add_remove", n=None)
    if name in SEATS:
        seat = SEATS[name]
        if isinstance(seat, Stable):
            each_for_itself = name.startswith(("clipping", "norm_clipping"))
            assert (seat.stability(moves, neighbours).total < math.inf) == each_for_itself
        return
    rule = RULES[name]
    if rule.sensitivity(moves, neighbours) == math.inf:
        return
    for rows in hard_rows():
        with_all, without = aggregated(rule)(rows), aggregated(rule)(rows[1:])
        assert (with_all - without).norm() <= rule.sensitivity(moves, neighbours) * SLACK


@pytest.mark.parametrize("name", [*RULES, *SEATS])
def test_what_says_that_it_remembers_nothing_private_keeps_the_same_in_both_worlds(
    name: str,
) -> None:
    part = RULES[name] if name in RULES else SEATS[name]
    if name in RULES and (not part.remembers or part.memory == "private"):
        return
    if name in SEATS and part.memory == "private":
        assert name in ("anomaly_score", "fl_detector", "flanders")
        return
    kept = []
    for world in next(pairs("replace_one", only=17)):
        state, last = part.init(), None
        for _ in range(3):
            now = context(last)
            if name in RULES:
                state = part.step(rows_of(world), state, now)[1]
            else:
                state = part.before(rows_of(world), state, now)[1]
            last = torch.ones(D)
        kept.append(state)
    assert kept[0] == kept[1] is None


BOUNDS = {
    "clip": {"l2": C},
    "normalise": {"l2": C},
    "clip_by_layer": {"l2": C, "sizes": (1, 3)},
}


@pytest.mark.parametrize("relation", [*RELATIONS, "add_remove"])
@pytest.mark.parametrize("name", catalog.BOUNDS)
def test_a_bound_brings_any_row_so_near_as_it_claims(
    name: str, relation: NeighbourRelation
) -> None:
    neighbours = Neighbours("client", relation)
    if name not in BOUNDS:
        loose = catalog.BOUNDS["none"]()
        assert name in ("none", "adaptive_clip", "scheduled_clip"), "another bound: search it"
        assert not isinstance(loose, Stable)
        return
    bound = catalog.BOUNDS[name](**BOUNDS[name])
    claimed = bound.stability(Moves.of_one_row(N), neighbours)
    assert (claimed.longest, claimed.changed, claimed.rows) == (pytest.approx(C), 1, N)
    rng, most = torch.Generator().manual_seed(0), 0.0
    for size in (1e-3, 1.0, 1e3):
        for _ in range(20):
            row = size * torch.randn(D, generator=rng)
            far = bound(row) - bound(-row) if relation == "replace_one" else bound(row)
            most = max(most, float(far.norm()))
            assert bound(row).norm() <= claimed.longest * SLACK
    assert claimed.total * 0.9 < most <= claimed.total * SLACK
    assert not bound(torch.zeros(D)).any()


# ---- the search has power: every hole that there was


@pytest.mark.parametrize(
    ("seat", "rule", "relation", "least"),
    [
        (OneRowMixing(f=1), Mean(weighted=False), "replace_one", 1.2),
        (OneRowMixing(f=4), Mean(weighted=False), "replace_one", 2.3),
        (OneRowClipping(f=4), Mean(weighted=False), "zero_out", 4.9),
        (OneRowClipping(f=4), Mean(weighted=False), "replace_one", 2.4),
        (OldCount(size=2), TrimmedMean(f=2), "replace_one", 2.0),
        (None, Still(weighted=False), "replace_one", math.inf),
        (None, Half(f=2), "replace_one", 1.9),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "max_byzantine") else None,
)
def test_planted_lies_are_found(
    seat: Any, rule: Any, relation: NeighbourRelation, least: float
) -> None:
    moves, neighbours = bounded(relation)
    if seat is not None:
        moves = seat.stability(moves, neighbours)
    made = aggregated(rule) if seat is None else behind(seat, rule)
    assert worst(made, rule.sensitivity(moves, neighbours), relation) >= least


def test_a_planted_memory_is_found() -> None:
    part, (rows, other) = OwnCentre(tau=0.3), next(pairs("replace_one", only=17))
    one, two = (part.step(rows_of(world), None, context())[1] for world in (rows, other))
    assert not torch.equal(one, two)


def test_distances_that_mixing_sorts_by_hang_on_their_own_two_rows_alone() -> None:
    """Or one row that moves would turn ties between all others: the fast distances are centred on
    what the rows have in common, and rounded anew with it.
    """
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(5))).Q
    rows = 0.3 * turn[:N] + turn[-1]
    other = rows.clone()
    other[0] = rows[1] * 1.001

    def others(alone: bool, spread: float = 1.0) -> list[torch.Tensor]:
        worlds = ((world - spread * turn[-1]).float() for world in (rows, other))
        return [squared_distances(world, alone=alone)[1:, 1:] for world in worlds]

    assert not torch.equal(*others(alone=False, spread=0.0))
    for spread in (0.0, 0.7, 1.0):  # all pairs, some, none closer than they are long
        assert torch.equal(*others(alone=True, spread=spread))
        near, centred = (others(one, spread=spread)[0] for one in (True, False))
        assert torch.allclose(near, centred, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "weights", "denominator"),
    [
        ([[3.4028234e38] * 3] * 10, [1.0] * 10, None),
        ([[3e38] * 4], [1.0], 0.5),
        ([[1.0], [1.0]], [3e38, 3e38], None),
    ],
)
def test_a_mean_that_overflows_is_refused_and_not_returned(rows, weights, denominator):
    opened = Rows(torch.tensor(rows), torch.tensor(weights))
    with pytest.raises(BadUpdate, match="all rows are finite, and their mean is not"):
        Mean(denominator=denominator)(opened)
