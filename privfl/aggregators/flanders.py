"""FLANDERS: clients whose models are far from what the last ones forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.aggregators.base import Before, finite_rows
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, ClientId, ConfigError, Context, Examples, Rows, Vector, require

Forecast: TypeAlias = Literal["matrix", "last", "global"]
"""A matrix autoregression of the clients' last models, each client's own last model, or the model
that everybody was sent.
"""
_FEWEST = 3
"""Rounds of a client from which a matrix is fitted.
"""


@dataclass(frozen=True, slots=True)
class Series:
    """Which coordinates [k] are followed (``picked``), and each client's models there in the last
    rounds in which it came ([k] each, newest last).
    """

    picked: Int[Tensor, " k"] | None = None
    models: Mapping[ClientId, tuple[Vector, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FLANDERS(Before[Series]):
    """FLANDERS (Gabrielli, Belli, Miori, Tolomei 2023): before the rule, drop the f models that are
    farthest from a forecast of the client's model.

    Followed are ``sampled`` random coordinates of the models w + x_i, the same in all rounds.
    ``forecast="matrix"`` is the paper's: the matrices Theta_t [k, n] of all clients follow Theta_t
    = A Theta_{t-1} B, fitted over the last ``window`` rounds by ``iterations`` alternating least
    squares with a ridge of ``ridge`` times the mean square. ``"last"`` forecasts each client's own
    last model, and ``"global"`` the model that was broadcast, at no cost. The anomaly score is the
    squared distance from the forecast; the n - f rows of least score are kept, always so many, so
    that f honest rows are dropped where nobody lies. A dropped client's model is remembered as its
    forecast, so that liars do not teach it.

    A client without a past, or of fewer than three rounds where a matrix is fitted, is forecast the
    model that was broadcast. Needs client ids. Row weights are handed on. Tolerates any f < n as
    far as the forecast is good. Rows that are not finite are the farthest.

    Raises:
        ConfigError: an unknown forecast, or a number out of range.

    >>> from privfl.core import RoundPlan
    >>> seat = FLANDERS(f=1, forecast="last")
    >>> context = Context(RoundPlan(0, (0, 1, 2), 1, 9.0), torch.zeros(1), torch.Generator())
    >>> seat.judge_before(Rows.of([[0.1], [9.0], [-0.2]]), seat.init(), context)[0].dropped
    (1,)
    """

    accuses: ClassVar[bool] = True
    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    needs_ids: ClassVar[bool] = True
    examples: ClassVar[Examples] = {
        "": {"f": 3},
        "last": {"f": 3, "forecast": "last"},
        "global": {"f": 3, "forecast": "global"},
    }

    f: int = 1
    forecast: Forecast = "matrix"
    sampled: int = 500
    window: int = 10
    iterations: int = 10
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.at_least(1, sampled=self.sampled, iterations=self.iterations)
        require.at_least(_FEWEST, window=self.window)
        require.positive(ridge=self.ridge)
        if self.forecast not in ("matrix", "last", "global"):
            raise ConfigError(
                f"forecast is 'matrix', 'last' or 'global', and is '{self.forecast}'."
            )

    def init(self) -> Series:
        """Nothing was seen of anybody."""
        return Series()

    def passes(self, n: int) -> int:
        """N - f.

        Raises:
            TooManyByzantine: n <= f.
        """
        require.honest_majority(rule="FLANDERS", n=n, f=self.f, at_least=self.f + 1)
        return n - self.f

    def judge_before(
        self, rows: Rows, state: Series, context: Context
    ) -> tuple[Verdict[Rows], Series]:
        """The n - f rows that are nearest to their forecasts.

        Raises:
            BadUpdate: the rows are anonymous.
            TooManyByzantine: n <= f.
        """
        if rows.ids is None:
            raise BadUpdate(
                "FLANDERS follows single clients, and these rows are anonymous: use a channel that"
                " names them."
            )
        keep = self.passes(rows.n)
        picked = state.picked
        if picked is None:
            picked = torch.randperm(rows.d, generator=context.rng)[: self.sampled]
        base = context.parameters[picked].double().cpu()
        models = base + rows.values[:, picked].double().cpu()
        finite = finite_rows(rows.values)
        expected = self._forecasts(rows.ids, base, state)
        apart = (models - expected).square().sum(dim=1)
        suspicion = torch.where(finite, apart, torch.inf)
        kept = torch.zeros(rows.n, dtype=torch.bool)
        kept[suspicion.argsort(stable=True)[:keep]] = True
        taught = torch.where((kept & finite)[:, None], models, expected)
        past = {
            client: (*state.models.get(client, ()), model)[-self.window :]
            for client, model in zip(rows.ids, taught, strict=True)
        }
        verdict = Verdict(
            rows.take(kept.nonzero().flatten()),
            kept=kept,
            suspicion=suspicion,
            scores={"distance": apart.sqrt()},
        )
        return verdict, Series(picked, {**state.models, **past})

    def _forecasts(
        self, ids: tuple[ClientId, ...], base: Vector, state: Series
    ) -> Float[Tensor, "n k"]:
        if self.forecast == "global":
            return base.expand(len(ids), -1).clone()
        past = [state.models.get(client, ()) for client in ids]
        if self.forecast == "last":
            return torch.stack([models[-1] if models else base for models in past])
        expected = base.expand(len(ids), -1).clone()
        known = [i for i, models in enumerate(past) if len(models) >= _FEWEST]
        if known:
            rounds = min(len(past[i]) for i in known)
            series = [
                torch.stack([past[i][t - rounds] for i in known], dim=1) for t in range(rounds)
            ]
            expected[known] = matrix_forecast(series, self.iterations, self.ridge).T
        return expected


def matrix_forecast(
    series: list[Float[Tensor, "k n"]], iterations: int, ridge: float
) -> Float[Tensor, "k n"]:
    """The next matrix after ``series`` under Theta_t = A Theta_{t-1} B, A [k, k] and B [n, n] by
    alternating least squares from the identity (Chen, Xiao, Yang 2021), each with a ridge towards
    the identity of ``ridge`` times the mean diagonal of its normal matrix.

    >>> grows = [torch.full((1, 1), 2.0**t, dtype=torch.float64) for t in range(5)]
    >>> round(float(matrix_forecast(grows, 20, 1e-9)), 3)
    32.0
    """
    k, n = series[0].shape
    A, B = torch.eye(k, dtype=torch.float64), torch.eye(n, dtype=torch.float64)
    before, after = torch.stack(series[:-1]), torch.stack(series[1:])
    for _ in range(iterations):
        moved = before @ B  # [t, k, n]
        A = _fitted(moved.transpose(1, 2), after.transpose(1, 2), ridge).T
        B = _fitted(A @ before, after, ridge)
    return A @ series[-1] @ B


def _fitted(
    inputs: Float[Tensor, "t p q"], outputs: Float[Tensor, "t p q"], ridge: float
) -> Float[Tensor, "q q"]:
    """M with the least sum of ||outputs_t - inputs_t M||^2 plus a ridge on M - I: I + X'(XX' +
    rho)^-1 (Y - X), by the smaller of X'X and XX'.
    """
    stacked = inputs.reshape(-1, inputs.shape[2])
    missed = outputs.reshape(-1, outputs.shape[2]) - stacked
    samples, q = stacked.shape
    rho = ridge * float(stacked.square().sum()) / q + 1e-300
    if samples < q:
        inner = stacked @ stacked.T + rho * torch.eye(samples, dtype=stacked.dtype)
        change = stacked.T @ torch.linalg.solve(inner, missed)
    else:
        normal = stacked.T @ stacked + rho * torch.eye(q, dtype=stacked.dtype)
        change = torch.linalg.solve(normal, stacked.T @ missed)
    fitted: Tensor = torch.eye(q, dtype=stacked.dtype) + change
    return fitted
