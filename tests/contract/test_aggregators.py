"""The contract of every rule: symmetries as declared, bad rows, breakdown under search, sensitivity
over the worst pairs found.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from privfl import aggregators
from privfl.aggregators import (
    AFA,
    CAF,
    CGE,
    FAIR,
    FLAME,
    MDA,
    RFA,
    SLSGD,
    SMEA,
    Auror,
    Bulyan,
    CenteredClipping,
    CleanGradientFilter,
    ClippedClustering,
    CosineFilter,
    CrossValidation,
    DnC,
    FLTrust,
    FoolsGold,
    GeometricMedian,
    GreedyMDA,
    Judges,
    JudgesWithMemory,
    Krum,
    MeaMed,
    Mean,
    Median,
    MedianOfMeans,
    MemoryRule,
    MoNNA,
    ResidualReweighting,
    RobustLearningRate,
    RowRule,
    SignGuard,
    SignMajority,
    TrimmedMean,
    Zeno,
)
from privfl.core import (
    BadUpdate,
    ConfigError,
    Context,
    Moves,
    Neighbours,
    PrivflError,
    RoundPlan,
    Rows,
    Rule,
    RuleWithMemory,
    TooManyByzantine,
)

N, D, F = 15, 5, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A rule as a function of f, and whether f liars, wherever they stand, move its result only by
    a bounded distance.
    """

    make: Callable[[int], Any]
    bounded: bool
    why: str = ""
    hull: bool = True
    also: str = ""
    """Symmetries of this setting beyond those of every setting of the rule."""


def _root(context: Context) -> torch.Tensor:
    return torch.ones(len(context.parameters), dtype=torch.float64)


def _loss(parameters: torch.Tensor, context: Context) -> float:
    return float((parameters[0] - 2).square())


def _losses(rows: Rows, context: Context) -> torch.Tensor:
    return torch.tensor([1.0 + client % 3 for client in rows.ids or ()])


def _votes(rows: Rows, context: Context) -> torch.Tensor:
    """Honest clients are the first N - F: they accept one another; liars accept liars."""
    honest = torch.tensor([client < N - F for client in rows.ids or ()])
    return honest[:, None] == honest


def _first(rows: Rows, context: Context) -> torch.Tensor:
    return torch.arange(1.0, rows.d + 1, dtype=torch.float64)


CASES: dict[str, Case] = {
    "Mean": Case(lambda f: Mean(weighted=False), bounded=False, why="breakdown point 0"),
    "Median": Case(lambda f: Median(), bounded=True),
    "TrimmedMean": Case(lambda f: TrimmedMean(f), bounded=True),
    "MeaMed": Case(lambda f: MeaMed(f), bounded=True),
    "MedianOfMeans": Case(lambda f: MedianOfMeans(2 * f + 1), bounded=True),
    "GeometricMedian": Case(lambda f: GeometricMedian(), bounded=True),
    "RFA": Case(lambda f: RFA(), bounded=True),
    "RFA-converged": Case(lambda f: RFA(iterations=60), bounded=True),
    "Krum": Case(lambda f: Krum(f), bounded=True),
    "Krum-multi": Case(lambda f: Krum(f, m=4), bounded=True),
    "Krum-most": Case(lambda f: Krum(f, m=N - f), bounded=True),
    "Bulyan": Case(lambda f: Bulyan(f), bounded=True),
    "MDA": Case(lambda f: MDA(f), bounded=True),
    "GreedyMDA": Case(lambda f: GreedyMDA(f), bounded=True),
    "CAF": Case(lambda f: CAF(f), bounded=True),
    "CGE": Case(lambda f: CGE(f), bounded=True),
    "MoNNA": Case(lambda f: MoNNA(f, pivot=0), bounded=True),
    "SMEA": Case(lambda f: SMEA(f), bounded=True),
    "DnC": Case(lambda f: DnC(f), bounded=True, also="R"),
    "DnC-drawn": Case(
        lambda f: DnC(f, coordinates=3, at_once=True),
        bounded=False,
        why="liars hide behind one another, and in the coordinates that are not drawn",
    ),
    "SignGuard": Case(lambda f: SignGuard(share=1.0), bounded=True),
    "ClippedClustering": Case(lambda f: ClippedClustering(), bounded=True),
    "Auror": Case(lambda f: Auror(alpha=0.5), bounded=True),
    "CosineFilter": Case(lambda f: CosineFilter(reference=_first), bounded=True),
    "CosineFilter-uncut": Case(
        lambda f: CosineFilter(reference=_first, bound=math.inf),
        bounded=False,
        why="blind to length",
    ),
    "AFA": Case(lambda f: AFA(), bounded=True),
    "CenteredClipping": Case(lambda f: CenteredClipping(tau=3.0), bounded=True, hull=False),
    "CenteredClipping-adaptive": Case(
        lambda f: CenteredClipping(), bounded=True, hull=False, also="S"
    ),
    "FoolsGold": Case(lambda f: FoolsGold(), bounded=True, hull=False),
    "ResidualReweighting": Case(lambda f: ResidualReweighting(), bounded=True),
    "Zeno": Case(lambda f: Zeno(_loss, f, rho=0.01), bounded=True),
    "FLTrust": Case(lambda f: FLTrust(_root), bounded=True, hull=False),
    "CleanGradientFilter": Case(lambda f: CleanGradientFilter(_root), bounded=True, hull=False),
    "FAIR": Case(lambda f: FAIR(_losses), bounded=False, why="quality is self-reported"),
    "CrossValidation": Case(lambda f: CrossValidation(_votes), bounded=True),
    "RobustLearningRate": Case(lambda f: RobustLearningRate(theta=f + 1), bounded=True, hull=False),
    "RobustLearningRate-uncut": Case(
        lambda f: RobustLearningRate(theta=f + 1, bound=math.inf),
        bounded=False,
        why="a mean",
        hull=False,
    ),
    "SignMajority": Case(lambda f: SignMajority(), bounded=True, hull=False),
    "SLSGD": Case(lambda f: SLSGD(b=f, alpha=0.5), bounded=True, hull=False),
    "FLAME": Case(lambda f: FLAME(noise=0.0), bounded=True, hull=False),
}
every = pytest.mark.parametrize("name", CASES)


def context(d: int, n: int = N) -> Context:
    parameters = torch.linspace(1, 2, d, dtype=torch.float64)
    return Context(
        RoundPlan(0, tuple(range(n)), d, math.inf), parameters, torch.Generator().manual_seed(7)
    )


def aggregate(rule: Any, rows: Rows) -> torch.Tensor:
    if isinstance(rule, MemoryRule):
        return rule.step(rows, rule.init(), context(rows.d, rows.n))[0]
    return rule(rows)


def crowd(n: int = N, d: int = D, seed: int = 0) -> torch.Tensor:
    """Rows around (1, .., 1), with three outliers at the end; float64, so that symmetries hold to
    many digits.
    """
    rng = torch.Generator().manual_seed(seed)
    values = 1 + 0.5 * torch.randn(n, d, generator=rng, dtype=torch.float64)
    values[n - F :] += 4 * torch.randn(min(F, n), d, generator=rng, dtype=torch.float64)
    return values


def of(values: torch.Tensor, ids: tuple[int, ...] | None = None) -> Rows:
    return Rows(values, torch.ones(len(values)), tuple(range(len(values))) if ids is None else ids)


def test_every_rule_of_the_package_is_under_contract() -> None:
    exported = {getattr(aggregators, name) for name in aggregators.__all__}
    bases = {RowRule, MemoryRule}
    rules = {
        kind
        for kind in exported
        if isinstance(kind, type) and issubclass(kind, (RowRule, MemoryRule))
    } - bases | {Mean}
    assert rules == {type(case.make(1)) for case in CASES.values()}


@every
def test_a_rule_is_what_core_calls_a_rule(name: str) -> None:
    rule = CASES[name].make(F)
    assert isinstance(rule, RuleWithMemory if isinstance(rule, MemoryRule) else Rule)
    if not isinstance(rule, Mean):
        assert isinstance(rule, JudgesWithMemory if isinstance(rule, MemoryRule) else Judges)


def _symmetric(rule: Any, symmetry: str, seed: int) -> bool:
    values = crowd(seed=seed)
    rng = torch.Generator().manual_seed(100 + seed)
    plain = aggregate(rule, of(values))
    if symmetry == "P":
        order = torch.randperm(N, generator=rng)
        moved, expected = of(values[order], tuple(order.tolist())), plain
    elif symmetry == "T":
        by = 3 * torch.randn(D, generator=rng, dtype=torch.float64)
        moved, expected = of(values + by), plain + by
    elif symmetry == "S":
        by = (2.5, 0.01, 100.0)[seed]
        moved, expected = of(by * values), by * plain
    else:
        turn = torch.linalg.qr(torch.randn(D, D, generator=rng, dtype=torch.float64)).Q
        moved, expected = of(values @ turn), plain @ turn
    return torch.allclose(
        aggregate(rule, moved), expected, rtol=1e-5, atol=1e-6 * float(expected.norm())
    )


@every
def test_declared_symmetries_hold_and_the_others_do_not(name: str) -> None:
    rule = CASES[name].make(F)
    for symmetry in "PTSR":
        holds = [_symmetric(rule, symmetry, seed) for seed in range(3)]
        if symmetry in rule.symmetries + CASES[name].also:
            assert all(holds), f"{symmetry} is declared"
        else:
            assert not all(holds), f"{symmetry} is not declared"


@every
def test_the_callers_rows_and_state_stay_as_they_were(name: str) -> None:
    rule, values = CASES[name].make(F), crowd().float()
    rows = Rows(values, torch.full((N,), 2.0), tuple(range(N)))
    before = values.clone()
    if isinstance(rule, MemoryRule):
        _, state = rule.step(rows, rule.init(), context(D))
        kept = copy.deepcopy(state)
        rule.step(of(crowd(seed=1).float()), state, context(D))
        assert repr(kept) == repr(state)
    else:
        out = rule(rows)
        out += 1
    assert torch.equal(values, before)
    assert torch.equal(rows.weights, torch.full((N,), 2.0))


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_dropped_or_refused_by_name(name: str, bad: float) -> None:
    rule, values = CASES[name].make(F), crowd()
    values[4, 2] = bad
    rows = of(values)
    try:
        out = aggregate(rule, rows)
    except BadUpdate as refusal:
        assert rule.max_byzantine(N) == 0
        assert "4" in str(refusal)  # noqa: PT017
        return
    assert torch.isfinite(out).all()
    if "f" in {field.name for field in dataclasses.fields(rule)}:  # the dropped row counts in f
        rest = rows.take([i for i in range(N) if i != 4])
        torch.testing.assert_close(out, aggregate(dataclasses.replace(rule, f=F - 1), rest))


@every
def test_more_bad_rows_than_a_rule_stands_are_refused(name: str) -> None:
    rule, values = CASES[name].make(F), crowd()
    values[: max(rule.max_byzantine(N), 0) + 1] = math.nan
    with pytest.raises((TooManyByzantine, BadUpdate)):
        aggregate(rule, of(values))


@every
def test_equal_rows_zero_rows_and_single_rows_give_finite_results(name: str) -> None:
    row = torch.tensor([0.5, -1.0, 0.0, 2.0, 3.0])
    for f in (0, F):
        rule = CASES[name].make(f)
        out = aggregate(rule, of(row.repeat(N, 1)))
        assert torch.isfinite(out).all()
        if CASES[name].hull and not isinstance(rule, CosineFilter):
            torch.testing.assert_close(out, row, rtol=1e-5, atol=1e-6)
        assert torch.equal(aggregate(rule, of(torch.zeros(N, D))), torch.zeros(D)) or isinstance(
            rule, CleanGradientFilter
        )
    with_zero = crowd().float()
    with_zero[2] = 0.0
    assert torch.isfinite(aggregate(CASES[name].make(F), of(with_zero))).all()
    alone = CASES[name].make(0)
    try:
        assert torch.isfinite(aggregate(alone, of(row[None]))).all()
    except TooManyByzantine:
        with pytest.raises(TooManyByzantine):
            alone.max_byzantine(1)


@every
def test_no_rows_at_all_are_refused(name: str) -> None:
    with pytest.raises(PrivflError):
        aggregate(CASES[name].make(0), of(torch.zeros(0, D)))


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (TrimmedMean(3), 7),
        (MeaMed(3), 7),
        (Krum(3), 9),
        (Bulyan(3), 15),
        (MDA(3), 7),
        (GreedyMDA(3), 7),
        (CAF(3), 7),
        (CGE(3), 7),
        (MoNNA(3), 7),
        (SMEA(3), 7),
        (DnC(3), 7),
        (SLSGD(3), 7),
        (Zeno(_loss, 3), 4),
        (MedianOfMeans(7), 7),
        (RobustLearningRate(7), 7),
    ],
    ids=lambda x: type(x).__name__ if dataclasses.is_dataclass(x) else "",
)
def test_f_too_large_for_n_is_refused_in_words_before_any_round(rule: Any, least: int) -> None:
    rule.max_byzantine(least)
    aggregate(rule, of(crowd(n=least)))
    with pytest.raises(TooManyByzantine, match=r"needs|splits"):
        rule.max_byzantine(least - 1)
    with pytest.raises(TooManyByzantine):
        aggregate(rule, of(crowd(n=least - 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrimmedMean(-1),
        lambda: Krum(1, m=0),
        lambda: CenteredClipping(tau=0.0),
        lambda: GeometricMedian(tolerance=0.0),
        lambda: SignGuard(share=0.0),
        lambda: Auror(alpha=0.0),
        lambda: RobustLearningRate(theta=0),
        lambda: SLSGD(alpha=2.0),
        lambda: FLAME(noise=-1.0),
        lambda: FoolsGold(kappa=math.nan),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match="must"):
        make()


def _worst_error(name: str, honest: torch.Tensor, tries: int) -> float:
    """The farthest from the honest mean that liars were seen to move a rule: random starts at all
    scales, then greedy ascent.
    """
    rule, centre = CASES[name].make(F), honest.mean(dim=0)
    rng = torch.Generator().manual_seed(3)

    def error(liars: torch.Tensor) -> float:
        return float((aggregate(rule, of(torch.cat([honest, liars]))) - centre).norm())

    worst = 0.0
    for attempt in range(tries):
        scale = 10 ** float(torch.empty(()).uniform_(-1, 6, generator=rng))
        liars = centre + scale * torch.randn(
            1 if attempt % 2 else F, D, generator=rng, dtype=torch.float64
        )
        liars = liars.expand(F, D).clone()
        best = error(liars)
        for _ in range(6):
            other = liars + 0.5 * liars.abs().mean() * torch.randn(
                F, D, generator=rng, dtype=torch.float64
            )
            found = error(other)
            if found > best:
                liars, best = other, found
        worst = max(worst, best)
    return worst


@every
def test_f_liars_move_a_robust_rule_only_so_far_and_break_the_others(name: str) -> None:
    rng = torch.Generator().manual_seed(11)
    honest = 1 + 0.3 * torch.randn(N - F, D, generator=rng, dtype=torch.float64)
    if isinstance(CASES[name].make(F), SMEA):
        worst = _worst_error(name, honest, tries=2)
    else:
        worst = _worst_error(name, honest, tries=10)
    if CASES[name].bounded:
        assert (
            worst < 6.0
        )  # the honest rows reach 1.5 from their mean; liars were sent to a million
    else:
        assert worst > 100.0, "declared breakable, and not broken"


def _aggregate_in_ball(rule: Any, values: torch.Tensor) -> torch.Tensor:
    return aggregate(rule, of(values))


SENSITIVE: dict[str, Any] = {
    **{
        name: case.make(1)
        for name, case in CASES.items()
        if name not in ("CrossValidation", "FAIR", "MoNNA")
    },
    "Krum-most": Krum(1, m=7),
    "FLTrust-fixed": FLTrust(_root, fixed=True, root_l2=1.0),
    "FLTrust-clipped": FLTrust(_root, root_l2=1.0),
    "CenteredClipping-short": CenteredClipping(tau=0.4, iterations=2),
    "Mean-public": Mean(weighted=False, denominator=9.0),
}


@pytest.mark.parametrize("relation", ["replace_one", "zero_out", "add_remove"])
@pytest.mark.parametrize("name", SENSITIVE)
def test_one_client_moves_the_result_at_most_by_the_declared_sensitivity(
    name: str, relation: Any
) -> None:
    n, d, rule = 9, 4, SENSITIVE[name]
    neighbours = Neighbours("client", relation)
    declared = rule.sensitivity(Moves.of_one_row(n).bounded(1.0, neighbours), neighbours)
    if math.isinf(declared):
        return
    rng = torch.Generator().manual_seed(5)

    def ball(values: torch.Tensor) -> torch.Tensor:
        return values / values.norm(dim=1, keepdim=True).clamp(min=1)

    def gap(values: torch.Tensor, other: torch.Tensor) -> float:
        neighbour = values.clone()
        if relation == "replace_one":
            neighbour[0] = other
        elif relation == "zero_out":
            neighbour[0] = 0
        else:
            neighbour = neighbour[1:]
        return float((aggregate(rule, of(values)) - aggregate(rule, of(neighbour))).norm())

    worst = 0.0
    for attempt in range(2 if isinstance(rule, SMEA) else 6):
        values = ball(2 * torch.randn(n, d, generator=rng, dtype=torch.float64))
        if attempt % 2:  # two camps, the hardest place for medians
            values = ball(values.sign() * 0.5)
        other = -values[0]
        best = gap(values, other)
        for _ in range(8):
            tried = ball(values + 0.3 * torch.randn(n, d, generator=rng, dtype=torch.float64))
            found = gap(tried, other)
            if found > best:
                values, best = tried, found
        worst = max(worst, best)
    assert worst <= declared * (1 + 1e-6)


def test_the_proved_sensitivities_are_the_published_ones() -> None:
    def of_one(rule: Any, n: int | None, relation: Any = "replace_one") -> float:
        neighbours = Neighbours("client", relation)
        far = rule.sensitivity(Moves.of_one_row(n).bounded(1.0, neighbours), neighbours)
        return float(far)

    assert of_one(Mean(weighted=False), 10) == pytest.approx(0.2)
    assert of_one(Mean(weighted=False), 10, "add_remove") == math.inf
    assert of_one(Mean(weighted=False, denominator=5.0), None, "add_remove") == pytest.approx(0.2)
    assert of_one(Mean(), 10) == math.inf
    assert of_one(TrimmedMean(2), 10) == pytest.approx(2 / 6)
    assert of_one(TrimmedMean(2), 10, "zero_out") == pytest.approx(1 / 6)
    assert of_one(TrimmedMean(2), 10, "add_remove") == pytest.approx((1 + math.sqrt(9 / 7)) / 6)
    assert of_one(TrimmedMean(2), None, "add_remove") == math.inf
    assert of_one(Median(), 9) == pytest.approx(2.0)
    assert of_one(Median(), 10) == pytest.approx(1.0)
    assert of_one(CenteredClipping(tau=0.1, iterations=3), 10) == pytest.approx(2 * 0.1 * 3 / 10)
    assert of_one(FLTrust(_root, fixed=True, root_l2=0.5), 10) == pytest.approx(0.05)
    assert of_one(FLTrust(_root), 10) == math.inf
    assert of_one(Krum(1), 10) == 2.0
    unproved = (Bulyan(1), MeaMed(1), FoolsGold(), SignMajority(), ResidualReweighting())
    remembering = (AFA(), ClippedClustering())
    asking = (FAIR(_losses), CrossValidation(_votes))
    noisy = (FLAME(noise=0.1), CosineFilter(reference=_first))
    for rule in (*unproved, *remembering, *asking, *noisy):
        assert of_one(rule, 11) == math.inf


def _far_rows(honest: torch.Tensor, f: int, far: float) -> Iterator[torch.Tensor]:
    """f liars in the places where rules were seen to break, ``far`` out."""
    rng = torch.Generator().manual_seed(1)
    mean, d = honest.mean(dim=0), honest.shape[1]
    axes = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64)).Q
    turns = torch.arange(f) % d
    ladder = far ** torch.linspace(0.2, 1, f, dtype=torch.float64)[:, None]
    one = honest[:f].clone()
    one[0] = far * mean
    spike = honest[:f].clone()
    spike[:, 0] = far * spike[:, 0].abs()
    yield far * mean.expand(f, d)
    yield one
    yield -far * mean.expand(f, d)
    yield mean + far * torch.eye(d, dtype=torch.float64)[turns]  # in one coordinate each
    yield spike  # in the same coordinate
    yield far * honest[:f]
    yield mean + far * axes[turns]
    yield mean + ladder * axes[0]  # farther and farther in one direction
    yield ladder * mean
    yield far * torch.randn(f, d, generator=rng, dtype=torch.float64)


def _reached(rule: Any, honest: torch.Tensor, f: int, far: float) -> float:
    """How far such liars move a rule from the honest mean, in units of how far honest rows lie from
    it and from zero.
    """
    mean = honest.mean(dim=0)
    room = float((honest - mean).norm(dim=1).max() + mean.norm())
    outs = [aggregate(rule, of(torch.cat([honest, liars]))) for liars in _far_rows(honest, f, far)]
    return max(float((out - mean).norm()) for out in outs) / room


@every
def test_far_rows_in_the_places_where_rules_were_seen_to_break_move_a_robust_rule_only_so_far(
    name: str,
) -> None:
    rng = torch.Generator().manual_seed(2)
    reached = 0.0
    for centre, far in itertools.product((1.0, 0.15), (1e2, 1e5, 1e9)):
        honest = centre + 0.3 * torch.randn(N - F, D, generator=rng, dtype=torch.float64)
        reached = max(reached, _reached(CASES[name].make(F), honest, F, far))
    if name == "FLTrust":  # as long as the server's own update, wherever the honest rows are
        assert reached < 2.0
    elif CASES[name].bounded:
        assert reached < 1.1
    else:
        assert reached > 100.0


@pytest.mark.parametrize(
    "rule",
    [
        AFA(),
        Auror(alpha=0.5),
        CenteredClipping(),
        ClippedClustering(),
        CosineFilter(),
        FLAME(noise=0.0),
        GeometricMedian(),
        Median(),
        RFA(),
        ResidualReweighting(),
        SignGuard(share=1.0),
    ],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("n", [4, 5, 8, 13])
def test_a_rule_without_an_f_holds_against_as_many_far_rows_as_it_says(rule: Any, n: int) -> None:
    f = rule.max_byzantine(n)
    rng = torch.Generator().manual_seed(n)
    for far in (1e2, 1e9):
        honest = 0.5 + 0.3 * torch.randn(n - f, 8, generator=rng, dtype=torch.float64)
        assert _reached(rule, honest, f, far) < 3.0


def test_a_line_of_repeated_medians_breaks_at_half_of_the_other_rows() -> None:
    for n in (5, 9, 13):
        f = (n - 1) // 2
        assert ResidualReweighting().max_byzantine(n) == f - 1
        honest = torch.randn(n - f, 8, generator=torch.Generator(), dtype=torch.float64)
        assert _reached(ResidualReweighting(), honest, f, 1e9) > 1e6


@every
def test_what_the_defence_did_can_be_read_beside_the_result(name: str) -> None:
    rule = CASES[name].make(F)
    if isinstance(rule, Mean):
        return
    values = crowd()
    values[3, 0] = math.nan
    values[N - 1] = -1e4
    rows = of(values)
    verdict = (
        rule.judge_step(rows, rule.init(), context(D))[0]
        if isinstance(rule, MemoryRule)
        else rule.judge(rows)
    )
    assert torch.equal(verdict.out, aggregate(rule, rows))
    assert 3 in verdict.dropped
    assert verdict.fired
    assert "3" in verdict.words(rows.ids)
    assert verdict.kept is not None
    assert len(verdict.kept) == N
    assert verdict.scale is None or len(verdict.scale) == N
