"""Bounds without memory: what makes an update's norm at most l2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    BadUpdate,
    ConfigError,
    FixedBound,
    Moves,
    Needs,
    Neighbours,
    Oracle,
    norm,
    require,
)
from privfl.core.update import SLACK


@dataclass(frozen=True, slots=True)
class NoBound(FixedBound):
    """No bound at all: over the plain channel only, and without any privacy claim.

    >>> NoBound().l2
    inf
    """

    @property
    def l2(self) -> float:
        """Infinite."""
        return float("inf")

    def describe(self) -> str:
        """What a report says."""
        return "none"

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """The vector itself."""
        return delta


@dataclass(frozen=True, slots=True)
class Clip(FixedBound):
    """Scale a vector down to L2 norm ``l2`` where it is longer (Abadi et al. 2016, section 3.1:
    flat clipping).

    Zero vectors stay zero; NaN and infinities pass through, to be refused by name where a `Bounded`
    is made.

    Raises:
        ConfigError: ``l2`` is not above 0.

    >>> import torch
    >>> Clip(l2=1.0)(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """

    l2: int | float

    def __post_init__(self) -> None:
        require.positive(l2=self.l2)

    def describe(self) -> str:
        """What a report says."""
        return f"every update's L2 norm at most {self.l2:g}"

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """A vector of norm at most ``l2`` (1e-6 less where it was cut, so that float32 rounding
        cannot lift it above).
        """
        length = norm(delta)
        return (
            delta * (self.l2 * (1 - SLACK) / length) if self.l2 < length < float("inf") else delta
        )

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """A client's row, wherever it was, lies in the ball of radius ``l2``: `Moves.bounded`."""
        return moves.bounded(self.l2, neighbours)


@dataclass(frozen=True, slots=True)
class ClipByLayer(FixedBound):
    """Clip each layer's part of a vector to a bound of its own (McMahan et al. 2018, section 3.1:
    per-layer clipping).

    ``sizes`` are the lengths of the parts, in order (`FlatModel.slots`), ``bounds`` their L2
    bounds; the whole has sqrt(sum of squares).

    Raises:
        ConfigError: no parts, a part without a bound, or a bound that is not above 0.

    >>> ClipByLayer(sizes=(2, 1), bounds=(3.0, 4.0)).l2
    5.0
    """

    needs: ClassVar[Needs] = {"sizes": Oracle.LAYER_SIZES}

    sizes: Sequence[int]
    bounds: Sequence[int | float]

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.bounds):
            raise ConfigError(
                f"per-layer clipping needs one bound a part: {len(self.sizes)} sizes and"
                f" {len(self.bounds)} bounds."
            )
        for bound in self.bounds:
            require.positive(bound=bound)

    @classmethod
    def evenly(cls, sizes: Sequence[int], l2: int | float) -> ClipByLayer:
        """The same bound for every part, ``l2`` together."""
        return cls(tuple(sizes), (l2 / math.sqrt(len(sizes)),) * len(sizes))

    @property
    def l2(self) -> float:
        """The bound on the whole vector."""
        return math.hypot(*self.bounds)

    @property
    def parts(self) -> Sequence[int]:
        """``sizes``."""
        return self.sizes

    def describe(self) -> str:
        """What a report says."""
        return f"every update's L2 norm at most {self.l2:g}, over {len(self.sizes)} layers"

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """A vector each of whose parts is within its bound.

        Raises:
            BadUpdate: the parts are not as long as the vector.
        """
        if sum(self.sizes) != delta.shape[0]:
            raise BadUpdate(
                f"per-layer clipping covers {sum(self.sizes)} values, and the update has"
                f" {delta.shape[0]}."
            )
        parts = torch.split(delta, list(self.sizes))
        return torch.cat(
            [Clip(bound)(part) for part, bound in zip(parts, self.bounds, strict=True)]
        )

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """As `Clip` to the bound of the whole: the parts' balls lie in that ball."""
        return moves.bounded(self.l2, neighbours)


@dataclass(frozen=True, slots=True)
class Normalise(FixedBound):
    """Bring every vector to nearly ``l2``, short ones too: l2 v / (|v| + soften) (Bu et al. 2023,
    automatic clipping).

    Zero vectors stay zero; NaN and infinities pass through, to be refused by name.

    Raises:
        ConfigError: ``l2`` is not above 0, or ``soften`` is negative.

    >>> Normalise(l2=2.0, soften=0.0)(torch.tensor([0.3, 0.4]))
    tensor([1.2000, 1.6000])
    """

    l2: int | float
    soften: int | float = 0.01

    def __post_init__(self) -> None:
        require.positive(l2=self.l2)
        require.at_least(0, soften=self.soften)

    def describe(self) -> str:
        """What a report says."""
        return f"every update's L2 norm at most {self.l2:g}"

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """The vector at nearly the bound."""
        length = norm(delta)
        return (
            delta * (self.l2 * (1 - SLACK) / (length + self.soften))
            if 0 < length < float("inf")
            else delta
        )

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """As `Clip`: it is no projection, but lands in the same ball, and zero stays zero."""
        return moves.bounded(self.l2, neighbours)
