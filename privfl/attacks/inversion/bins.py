"""Bins of samples by their brightness in a linear layer, as active servers plant them (Fowl,
Geiping, Czaja, Goldblum, Goldstein 2022, section 4).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import ConfigError, Dataset, require


def check_bins(bins: int, spread: float, levels: tuple[float, ...]) -> None:
    """Refuse bins that cannot be.

    Raises:
        ConfigError: fewer than two bins, no spread, or another number of levels than bins.
    """
    require.at_least(2, bins=bins)
    require.positive(spread=spread)
    if levels and len(levels) != bins:
        raise ConfigError(f"{bins} bins need as many levels, and got {len(levels)}.")


def _middles(bins: int) -> Float[Tensor, " bins"]:
    return (torch.arange(bins, dtype=torch.float64) + 0.5) / bins


def fitted_levels(data: Dataset, bins: int) -> tuple[float, tuple[float, ...]]:
    """The deviation of these samples' mean feature, and the levels that fill bins evenly."""
    brightness = data.x.flatten(1).double().mean(dim=1)
    return float(brightness.std()), tuple(brightness.quantile(_middles(bins)).tolist())


def normal_levels(bins: int, centre: float, spread: float) -> tuple[float, ...]:
    """The levels that fill bins evenly where the mean feature is normal.

    >>> [round(level, 4) for level in normal_levels(2, centre=0.0, spread=1.0)]
    [-0.6745, 0.6745]
    """
    quantiles = centre + spread * math.sqrt(2) * torch.erfinv(2 * _middles(bins) - 1)
    return tuple(quantiles.tolist())


def scale_of(bins: int, spread: float) -> float:
    """What a bin's row sums to: the activations of all bins then add up to order one, and the
    gradients of their rows are large.
    """
    return 1 / (bins * spread)


def treat_alike(W: Float[Tensor, "outputs bins"]) -> None:
    """Make the next layer's columns one unit vector, so that a sample moves the rows of all bins
    under its own by the same.
    """
    row = W[:, 0] / W[:, 0].norm().clamp(min=1e-12)
    W.copy_(row[:, None].expand_as(W))


def by_bin(rows: Float[Tensor, "bins *q"]) -> Float[Tensor, "bins *q"]:
    """What is in each bin alone, of the changes of all bins' rows or biases.

    >>> by_bin(torch.tensor([5.0, 3.0, 3.0]))
    tensor([2., 0., 3.])
    """
    return torch.cat([rows[:-1] - rows[1:], rows[-1:]])


def filled(weight: Float[Tensor, " bins"], noise: float) -> Tensor:
    """Which bins hold something over rounding, and over ``noise``."""
    floor = max(1e-5 * float(weight.abs().max()), noise, 1e-12)
    return (weight.abs() > floor).nonzero().squeeze(1)
