"""Objective perturbation: logistic regression whose objective is noised, and not its steps.

The released weights are the minimum of the sum of losses plus ridge |w|^2 / 2 + b.w, where b is
noise. What was computed lies within tolerance / ridge of the minimum, and noise for twice that is
added on top, and paid for (approximate minima perturbation: Iyengar et al. 2019, section 3.2): the
exact minimum is one release, how far the computed one lies from it another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import log_ndtr, ndtr
from torch import Tensor

from privfl.core import (
    BadUpdate,
    ConfigError,
    DpEvent,
    Examples,
    Neighbours,
    NoiseSource,
    NoisySteps,
    Sampling,
    require,
)
from privfl.dp.noise import exponentials, normals
from privfl.dp.objective.logistic import CURVATURE, Array, in_the_ball, minimiser, signs

_SHARE = 1e-3
"""Of a pure epsilon, what pays for the distance to the minimum."""
_FINE = 1e4
"""The noise multiplier of the Gaussian that hides the distance to the minimum."""
_APART = (6e-4, 1e-12)
"""An epsilon and a delta that this Gaussian alone has."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights [d] that left, and what they cost: charges are made of ``steps`` by
    `dp.charges.stepped`, for these ``neighbours``. The steps name the number of rows only where
    it is public, under replace_one; under add_remove it is what the noise hides, and they say 1.
    """

    weights: Float[Tensor, " d"]
    steps: tuple[NoisySteps, ...]
    neighbours: Neighbours


@dataclass(frozen=True, slots=True)
class PureObjective:
    """Logistic regression with pure ``epsilon``-DP (Chaudhuri, Monteleoni, Sarwate 2011, algorithm
    2, Theorem 9), for neighbours of whom one has another record in the place of one.

    b has a direction at random and a norm of Gamma(d, 2 / e'), with c = 1/4, L = ridge and e' =
    epsilon - log(1 + 2c/L + (c/L)^2); where that is not above 0 the ridge is raised to c /
    (e^(epsilon/4) - 1) and e' = epsilon / 2. (The paper divides by n: its n Lambda is our ridge.) A
    thousandth of epsilon pays for the distance to the minimum.

    Rows are cut to norm 1; a constant feature, where one is wanted, belongs to the row. The number
    of rows is public under this relation. Noise is in floating point, whose last bits can tell more
    than the theorem does (Mironov 2012).

    Raises:
        ConfigError: a setting that is not above 0.

    >>> from privfl.core import OsNoise
    >>> fitted = PureObjective(epsilon=1.0, ridge=5.0).fit(
    ...     torch.eye(2), torch.tensor([0, 1]), OsNoise()
    ... )
    >>> fitted.weights.shape, fitted.steps[0].event
    (torch.Size([2]), DpEvent(mechanism='pure', parameters={'epsilon': 1.0}))
    """

    examples: ClassVar[Examples] = {"": {"epsilon": 1.0, "ridge": 1.0}}
    neighbours: ClassVar[Neighbours] = Neighbours("sample", "replace_one")

    epsilon: int | float
    ridge: int | float
    tolerance: int | float = 1e-8

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon, ridge=self.ridge, tolerance=self.tolerance)
        require.finite(epsilon=self.epsilon, ridge=self.ridge, tolerance=self.tolerance)

    def settled(self) -> tuple[float, float]:
        """The ridge and e' that are used.

        >>> tuple(round(x, 4) for x in PureObjective(1.0, ridge=0.1).settled())
        (0.8812, 0.4995)
        """
        budget = self.epsilon * (1 - _SHARE)
        ratio = CURVATURE / self.ridge
        left = budget - math.log(1 + 2 * ratio + ratio**2)
        if left > 0:
            return float(self.ridge), left
        return CURVATURE / math.expm1(budget / 4), budget / 2

    def fit(self, x: Float[Tensor, "n d"], y: Int[Tensor, " n"], noise: NoiseSource) -> Fitted:
        """Weights of rows x and labels y (0 or 1).

        Raises:
            BadUpdate: rows or labels that are none.
            ConfigError: the minimum is not reached: nothing leaves.
        """
        rows, s = _checked(x, y)
        if not len(rows):
            raise BadUpdate("there are no rows to fit.")
        ridge, left = self.settled()
        d = rows.shape[1]
        b = _spherical(d, 2 / left, noise)
        found = minimiser(rows, s, ridge, b, float(self.tolerance))
        apart = 2 * self.tolerance / ridge
        found = found + _spherical(d, apart / (self.epsilon * _SHARE), noise)
        event = DpEvent("pure", {"epsilon": self.epsilon})
        return _fitted(found, (event,), len(rows), self.neighbours, noise)


@dataclass(frozen=True, slots=True)
class GaussianObjective:
    """Logistic regression whose objective has Gaussian noise (Kifer, Smith, Thakurta 2012), for
    neighbours of whom one has one record more, accounted for as Redberg, Koskela, Wang 2023 do.

    b is N(0, noise_multiplier^2) in every entry (a row of norm 1 moves the gradient by 1 at most).
    With z the noise multiplier, u standard normal and c = 1/4, the privacy loss is at most log(1 +
    c / ridge) + 1 / (2 z^2) + |u| / z, for this reason. Weights w are the minimum for one noise
    only, b(w), and another record (x, s) changes that by g = -s x / (1 + e^(s x.w)), whose
    direction is x whatever w is. So the densities of two neighbours differ by |b|^2 - |b + g|^2
    over 2 z^2, where |b.g| <= |b.x| / |x| and b.x / |x| is N(0, z^2); and by the determinant of the
    second derivative, 1 + c' x.H^-1 x with c' <= c and H at least the ridge. ``delta`` is what
    follows, exactly.

    Rows are cut to norm 1, the ridge is that of the sum of losses, which no number of rows divides.
    Noise is in floating point (Mironov 2012).

    Raises:
        ConfigError: a setting that is not above 0.

    >>> from privfl.core import OsNoise
    >>> fitted = GaussianObjective(noise_multiplier=5.0, ridge=5.0).fit(
    ...     torch.eye(2), torch.tensor([0, 1]), OsNoise()
    ... )
    >>> [step.event.mechanism for step in fitted.steps]
    ['objective_perturbation', 'gaussian']
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0, "ridge": 1.0}}
    neighbours: ClassVar[Neighbours] = Neighbours("sample", "add_remove")

    noise_multiplier: int | float
    ridge: int | float
    tolerance: int | float = 1e-8

    def __post_init__(self) -> None:
        settings = {
            "noise_multiplier": self.noise_multiplier,
            "ridge": self.ridge,
            "tolerance": self.tolerance,
        }
        require.positive(**settings)
        require.finite(**settings)

    @classmethod
    def for_budget(
        cls, *, epsilon: int | float, delta: int | float, ridge: int | float
    ) -> GaussianObjective:
        """The least noise (within 1e-6 of itself) that has ``delta`` at ``epsilon``, the price of
        the distance to the minimum included.

        Raises:
            ConfigError: a ridge so small that the determinant alone costs more than epsilon.

        >>> one = GaussianObjective.for_budget(epsilon=1.0, delta=1e-5, ridge=10.0)
        >>> one.delta(1.0) <= 1e-5
        True
        """
        from scipy.optimize import brentq

        require.positive(epsilon=epsilon, delta=delta, ridge=ridge)
        if cls(1e9, ridge).delta(epsilon) > delta:
            raise ConfigError(
                f"ridge {ridge:g} costs log(1 + c / ridge) = {math.log1p(CURVATURE / ridge):.3g}"
                f" whatever the noise is, and epsilon is {epsilon:g}: raise the ridge."
            )

        def excess(log_z: float) -> float:
            return cls(math.exp(log_z), ridge).delta(epsilon) - delta

        root = float(brentq(excess, math.log(1e-3), math.log(1e9), xtol=1e-7))
        return cls(math.exp(root) * (1 + 1e-6), ridge)

    def delta(self, epsilon: int | float) -> float:
        """The delta of one fit at an epsilon: E max(0, 1 - e^(epsilon - loss)), where loss is the
        bound above (compare Redberg, Koskela, Wang 2023, Theorem 3.1), and what the distance to the
        minimum costs.
        """
        more, lost = _APART
        left, s = epsilon - more - math.log1p(CURVATURE / self.ridge), 1 / self.noise_multiplier
        from_here = max((left - s * s / 2) / s, 0.0)
        tail = 2 * (ndtr(-from_here) - math.exp(min(left + log_ndtr(-from_here - s), 0.0)))
        return min(max(float(tail), 0.0) + lost, 1.0)

    def fit(self, x: Float[Tensor, "n d"], y: Int[Tensor, " n"], noise: NoiseSource) -> Fitted:
        """Weights of rows x and labels y (0 or 1); of no rows too, for to refuse them would tell
        them from one.

        Raises:
            BadUpdate: rows or labels that are none.
            ConfigError: the minimum is not reached: nothing leaves.
        """
        rows, s = _checked(x, y)
        d = rows.shape[1]
        b = normals(d, noise).numpy() * self.noise_multiplier
        found = minimiser(rows, s, float(self.ridge), b, float(self.tolerance))
        apart = 2 * self.tolerance / self.ridge
        found = found + normals(d, noise).numpy() * (_FINE * apart)
        return _fitted(found, self.events(), len(rows), self.neighbours, noise)

    def events(self) -> tuple[DpEvent, ...]:
        """The minimum, and how far the computed one lies from it."""
        minimum = {
            "noise_multiplier": self.noise_multiplier,
            "log_det": math.log1p(CURVATURE / self.ridge),
        }
        return (
            DpEvent("objective_perturbation", minimum),
            DpEvent("gaussian", {"noise_multiplier": _FINE}),
        )


def _checked(x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> tuple[Array, Array]:
    if x.dim() != 2 or y.shape != x.shape[:1]:
        raise BadUpdate(
            f"rows [n, d] need one label each [n], and their shapes are {list(x.shape)} and"
            f" {list(y.shape)}: a label of several rows is covered by no noise."
        )
    return in_the_ball(x.detach().cpu().double().numpy()), signs(y.cpu().numpy())


def _spherical(d: int, scale: float, noise: NoiseSource) -> Array:
    """A vector [d] of density proportional to e^(-|v| / scale)."""
    toward = normals(d, noise)
    length = float(exponentials(d, noise).sum()) * scale
    return np.asarray((toward / toward.norm()).numpy() * length)


def _fitted(
    weights: Array,
    events: tuple[DpEvent, ...],
    n: int,
    neighbours: Neighbours,
    noise: NoiseSource,
) -> Fitted:
    everybody = Sampling("all", 1.0, n if neighbours.relation == "replace_one" else 1)
    steps = tuple(NoisySteps(event, everybody, 1, noise.repeatable) for event in events)
    return Fitted(torch.from_numpy(weights), steps, neighbours)
