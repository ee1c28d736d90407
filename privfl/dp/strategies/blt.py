"""BLT: C whose diagonals are a sum of a few decaying exponentials, so that its noise needs as many
buffers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from privfl.core import ConfigError, KeepsSecrets, Participation, Vector, require
from privfl.dp.strategies.base import Array
from privfl.dp.strategies.toeplitz import ToeplitzMatrix


@dataclass(frozen=True, slots=True)
class Blt:
    """Buffered linear Toeplitz (Dvijotham, McMahan, Pillutla, Steinke, Thakurta 2024; McMahan, Xu,
    Zhang 2024 for several participations): c_0 = 1, c_j = sum of omega_i theta_i^(j - 1). Its noise
    keeps ``buffers`` vectors however long the run is, at nearly the error of the square root.

    omega and theta are fitted to the least mean squared error of all prefixes, from several starts.

    Raises:
        ConfigError: no buffers, or more than 6, which float64 does not tell apart.

    >>> from privfl.dp.strategies import rmse
    >>> once = Participation(rounds=256, most=1)
    >>> 11.34 / rmse(Blt(2).matrix(once), once) > 4
    True
    """

    buffers: int = 3

    def __post_init__(self) -> None:
        require.within(1, 6, buffers=self.buffers)

    def matrix(self, participation: Participation) -> ToeplitzMatrix:
        """C fitted to this run, the same every time."""
        return blt_matrix(*_fitted(self.buffers, participation), participation.rounds)


def blt_matrix(omega: Array, theta: Array, rounds: int) -> ToeplitzMatrix:
    """C of so many rounds from omega and theta [buffers].

    Raises:
        ConfigError: they are not above 0 with theta below 1 and the sum of omega / theta below 1:
            C^-1 would not fall.
    """
    if not (omega > 0).all() or not ((theta > 0) & (theta < 1)).all() or sum(omega / theta) >= 1:
        raise ConfigError(
            "a BLT strategy needs omega above 0, theta in (0, 1) and the sum of omega / theta below"
            f" 1, and these are omega {omega.tolist()}, theta {theta.tolist()}."
        )
    # C^-1 is of the same form (ibid., Lemma 5.2): its theta are the eigenvalues of diag theta less
    # omega 1^T, and lie between those of C
    folded = np.diag(theta) - np.outer(omega, np.ones(len(theta)))
    inverse_theta = np.sort(np.real(np.linalg.eigvals(folded)))
    inverse_omega = _residues(inverse_theta, theta)
    j = np.arange(rounds - 1)
    c = np.concatenate([[1.0], omega @ theta[:, None] ** j])
    inverted = np.concatenate([[1.0], inverse_omega @ inverse_theta[:, None] ** j])
    return ToeplitzMatrix(c, inverted, rounds, lambda: BltStream(omega, theta))


def _residues(poles: Array, zeros: Array) -> Array:
    """The weights of prod (1 - zeros x) / prod (1 - poles x) as 1 + x sum of weight / (1 - pole
    x).
    """
    apart = poles[:, None] - poles[None, :]
    np.fill_diagonal(apart, 1.0)
    return np.asarray((poles[:, None] - zeros[None, :]).prod(axis=1) / apart.prod(axis=1))


class BltStream(KeepsSecrets):
    """x = z - sum of omega_i s_i; then s_i becomes theta_i s_i + x."""

    __slots__ = ("_buffers", "_omega", "_theta")

    def __init__(self, omega: Array, theta: Array) -> None:
        self._omega, self._theta = torch.from_numpy(omega.copy()), torch.from_numpy(theta.copy())
        self._buffers = torch.empty(0, 0)

    def next(self, z: Vector) -> Vector:
        """The next row of C^-1 Z."""
        if not self._buffers.numel():
            self._omega, self._theta = self._omega.to(z), self._theta.to(z)
            self._buffers = z.expand(len(self._omega), len(z)).clone()
            return z
        x = torch.addmv(z, self._buffers.T, self._omega, alpha=-1)
        self._buffers.mul_(self._theta[:, None]).add_(x)
        return x


@lru_cache(maxsize=64)
def _fitted(buffers: int, run: Participation) -> tuple[Array, Array]:
    """Omega and theta of least error. The theta of C and of C^-1 interlace; they are exp(-x) of an
    increasing sequence x, whose steps are exp of the free numbers. Where a run is too short for so
    many buffers, some of them vanish in the fit, and there are fewer.
    """
    from scipy.optimize import minimize

    best: tuple[float, Array, Array] | None = None
    for slowest in (0.3, 1.0, 3.0):
        for fastest in (0.5, 2.0):
            first = slowest / run.rounds
            x = np.geomspace(first, max(fastest, 4 * first), 2 * buffers)
            start = np.log(np.diff(x, prepend=0.0))
            found = minimize(
                lambda free: _loss(free, run),
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=[(-20.0, 3.0)] * len(start),
                options={"maxiter": 500, "ftol": 1e-12},
            )
            theta, inverse_theta = _both(torch.from_numpy(np.asarray(found.x)))
            omega = _residues(theta.numpy(), inverse_theta.numpy())
            better = math.isfinite(found.fun) and (best is None or found.fun < best[0])
            if better and _distinct(omega, theta.numpy()):
                best = float(found.fun), omega, theta.numpy()
    if best is None and buffers > 1:
        return _fitted(buffers - 1, run)
    if best is None:
        raise ConfigError(
            f"no BLT of {buffers} buffers was found for {run.rounds} rounds: use fewer buffers, or"
            " the strategy bisr."
        )
    return best[1], best[2]


def _distinct(omega: Array, theta: Array) -> bool:
    """Whether float64 tells the buffers from none, and C^-1 from one that does not fall."""
    return bool((omega > 1e-12).all() and (theta > 1e-6).all() and sum(omega / theta) < 1 - 1e-9)


def _both(free: Tensor) -> tuple[Tensor, Tensor]:
    """Theta of C and of C^-1 [buffers], which interlace: the largest is C's."""
    numbers = torch.exp(-torch.cumsum(torch.exp(free), 0))
    return numbers[0::2], numbers[1::2]


def _weights(poles: Tensor, zeros: Tensor) -> Tensor:
    apart = poles[:, None] - poles[None, :] + torch.eye(len(poles), dtype=poles.dtype)
    return (poles[:, None] - zeros[None, :]).prod(1) / apart.prod(1)


def _loss(free: Array, run: Participation) -> tuple[float, Array]:
    """The log of mean error times squared sensitivity, and its gradient."""
    numbers = torch.from_numpy(free).requires_grad_()
    theta, inverse_theta = _both(numbers)
    omega, inverse_omega = _weights(theta, inverse_theta), _weights(inverse_theta, theta)
    rounds = run.rounds
    j = torch.arange(rounds, dtype=torch.float64)
    geometric = -torch.expm1(j * inverse_theta.log()[:, None]) / (1 - inverse_theta)[:, None]
    sums = 1 + inverse_omega @ geometric
    error = ((rounds - j) * sums**2).sum()
    c = torch.cat([torch.ones(1, dtype=torch.float64), omega @ theta[:, None] ** j[: rounds - 1]])
    total = c
    for shift in range(run.apart, min(run.most * run.apart, rounds), run.apart):
        total = total + torch.nn.functional.pad(c[:-shift], (shift, 0))
    loss = error.log() + (total**2).sum().log()
    (gradient,) = torch.autograd.grad(loss, numbers)
    return loss.item(), gradient.numpy()
