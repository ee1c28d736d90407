"""From scores to weights: how long a client's vector seems, how far it is trusted, and the integer
that it is multiplied with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.aggregators import CosineFilter, FLTrust
from privfl.core import ClientId
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters, Integers

Floats = npt.NDArray[np.float64]
_SCALES = 256


@dataclass(frozen=True, slots=True)
class CosineScores:
    """What the server learns of the clients, in their order.

    ``dots`` [n]: <u, r>, None without a reference; ``projections`` [n, k] with random signs;
    ``sums`` [n]: of a vector's entries, and ``totals`` [k]: of each random vector's (Pearson);
    ``squares`` [n]: exact squared norms mod t.
    """

    clients: tuple[ClientId, ...]
    dots: Integers | None
    projections: Integers
    sums: Integers | None = None
    squares: Integers | None = None
    totals: Integers | None = None


def lengths(scores: CosineScores, setting: CosineParameters) -> Floats:
    """How long each vector is, in units: exactly where it was squared, otherwise as its projections
    suggest.
    """
    if scores.squares is not None:
        exact: Floats = np.sqrt(scores.squares.astype(np.float64)) / setting.unit
        return exact
    return seeming_lengths(scores, setting)


def seeming_lengths(scores: CosineScores, setting: CosineParameters) -> Floats:
    """How long each vector is as its projections suggest: the mean square of one is half of the
    squared length.
    """
    seemed: Floats = (
        np.sqrt((scores.projections.astype(np.float64) ** 2).mean(axis=1) * 2) / setting.unit
    )
    return seemed


def too_long(scores: CosineScores, setting: CosineParameters, d: int) -> dict[ClientId, str]:
    """Who failed the norm check, with the reason.

    Projections catch what an exact norm modulo t does not: a vector whose squares wrap around.
    """
    seemed, found = seeming_lengths(scores, setting), lengths(scores, setting)
    refused: dict[ClientId, str] = {}
    for client, seems, length in zip(scores.clients, seemed.tolist(), found.tolist(), strict=True):
        if seems**2 > setting.longest:
            refused[client] = (
                f"its update failed the norm check: {setting.projections} random projections show a"
                f" length of {seems:.3g}"
            )
        elif (
            scores.squares is not None
            and length > 0
            and abs(length - 1) * setting.unit > math.sqrt(d) / 2 + 1
        ):
            refused[client] = (
                f"its update failed the norm check: its length is {length:.6g} where 1 was due"
            )
    return refused


def cosines(scores: CosineScores, reference: Integers) -> Floats:
    """The similarity of each vector to the reference, in [-1, 1], whatever its length: what divides
    it is the length that was found, exactly or from projections, and never the one that was due.

    For Pearson both lose their means: in the dot product, in the lengths and in the projections.
    """
    if scores.dots is None:
        return np.zeros(len(scores.clients))
    d, dots = len(reference), scores.dots.astype(np.float64)
    along, projections = float(reference @ reference), scores.projections.astype(np.float64)
    squares = None if scores.squares is None else scores.squares.astype(np.float64)
    if scores.sums is not None and scores.totals is not None:
        means, whole = scores.sums / d, float(reference.sum())
        dots, along = dots - means * whole, along - whole**2 / d
        projections = projections - means[:, None] * scores.totals
        squares = None if squares is None else squares - means**2 * d
    if squares is None:
        squares = 2 * (projections**2).mean(axis=1)
    under = np.sqrt(np.maximum(squares, 0.0) * max(along, 0.0))
    similar: Floats = np.clip(
        np.divide(dots, under, where=under >= 1, out=np.zeros_like(dots)), -1, 1
    )
    return similar


@dataclass(frozen=True, slots=True)
class Trust:
    """From similarity to trust: FLTrust's positive part (``threshold`` None), or 1 over the
    threshold and otherwise 0.

    ``fixed`` divides by the number of clients instead of by their trust.
    """

    threshold: float | None
    fixed: bool

    @classmethod
    def of(cls, rule: FLTrust | CosineFilter) -> Trust:
        """What a rule does with similarities."""
        return (
            cls(None, rule.fixed) if isinstance(rule, FLTrust) else cls(rule.threshold, fixed=False)
        )

    def __call__(self, similar: Floats) -> Floats:
        """The trust [n]."""
        return (
            np.maximum(similar, 0.0)
            if self.threshold is None
            else (similar > self.threshold).astype(np.float64)
        )


def integer_weights(
    trusted: Floats, setting: CosineParameters, *, fixed: bool
) -> tuple[Integers, float]:
    """Integers proportional to the trust, and how many of them a trust of 1 is: of the scales that
    fit, the one that rounds least.

    >>> integer_weights(
    ...     np.array([1.0, 0.5, 0.0]),
    ...     CosineParameters(30, "projections", "cosine", 16, 2),
    ...     fixed=False,
    ... )[0]
    array([10922,  5461,     0])
    """
    total = float(len(trusted)) if fixed else float(trusted.sum())
    if not total > 0:
        return np.zeros(len(trusted), dtype=np.int64), 0.0
    scales = (
        np.floor(setting.weights / total * np.linspace(1.0, 0.75, _SCALES))
        if total <= setting.weights
        else np.ones(1)
    )
    whole = np.rint(trusted * scales[:, None])
    best = int((((whole / scales[:, None] - trusted) ** 2).sum(axis=1)).argmin())
    return whole[best].astype(np.int64), float(scales[best])
