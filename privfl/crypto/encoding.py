"""Fixed point, shared by every channel that computes on integers: values to small integers and
back, with headroom proved first.

An update with norm at most ``l2`` has entries of magnitude at most ``l2``, so the clip alone fixes
the scale; no client's largest value is ever revealed. A weighted update is sent as (w / max_weight)
delta, with the weight in one or more slots behind it, so that the sum of the weights is as hidden
as the sum of the updates.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float

from privfl.core import (
    BadUpdate,
    Bounded,
    ConfigError,
    Moves,
    Neighbours,
    NoiseSource,
    RoundPlan,
    Stable,
    Total,
    Vector,
    require,
)
from privfl.crypto.fixed_kernel import encoded
from privfl.crypto.primitives import backend, fresh_words
from privfl.crypto.rotation import reach, rotate, unrotate

Integers = npt.NDArray[np.int64]
_BLOCK = 1 << 15
"""Values at a time: their float64 copies stay in cache."""
_WHOLE = 1.5 * 2.0**52
"""Added to a double below 2^51, it leaves the nearest integer (of two the even one) in the low
bits.
"""
_SHIFT = int(np.float64(_WHOLE).view(np.int64))
"""What adding `_WHOLE` adds to the bits."""
_WEIGHT_BITS = 30
"""What a weight in words of its own is rounded to, at least: a step of 2^-30 of the largest."""


def weight_words(bits: int) -> int:
    """How many integers of ``bits`` bits hold a weight to 2^-30 of the largest.

    >>> weight_words(16), weight_words(8)
    (2, 5)
    """
    return -(-_WEIGHT_BITS // (bits - 1))


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Signed integers of ``bits`` bits a value (sign included) with one scale from the clip: step
    l2 / (2^(bits-1) - 1).

    ``rounding="nearest"`` errs at most half a step; ``"stochastic"`` is unbiased (its coins are
    from the operating system) and errs less than one. A sum of n contributions needs ``bits +
    ceil(log2 n)`` bits of ring: `ring_bits` proves it before the round.

    ``rotation=True`` turns the vector into a public random basis first, where no entry is longer
    than about l2 sqrt(2 ln(2^41 d) / d): the step shrinks by that factor (75 at d = 1e6) at the
    same number of bits. The basis belongs to the round, so every client's is the same and the sum
    is turned back.

    ``words`` integers hold the weight, as digits to the base 2^(bits-1): one of 16 bits rounds it
    to 2^-15 of the plan's ``max_weight``, and a client that weighs less than half of that to
    nothing; `weight_words` are enough for 2^-30. Of several words the sum of each opens, which says
    beside the sum of the weights how often their lower digits carry. Values are rounded as finely
    as for a client of the largest weight, so a light client's error is as much longer as it is
    lighter: `error` says how long.

    Raises:
        ConfigError: fewer than 2 or more than 31 bits, or no word for the weight.

    >>> plan = RoundPlan(0, (1, 2), d=2, l2=1.0)
    >>> code = FixedPoint(bits=16)
    >>> integers = code.encode(Bounded(1, torch.tensor([0.5, -0.25]), l2=1.0), plan)
    >>> code.decode(2 * integers, plan, count=2).mean()
    tensor([ 0.5000, -0.2500])
    """

    bits: int = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    words: int = 1

    def __post_init__(self) -> None:
        require.within(2, 31, bits=self.bits)
        require.at_least(1, words=self.words)
        if self.rounding not in ("nearest", "stochastic"):
            raise ConfigError(f"rounding is 'nearest' or 'stochastic', and is '{self.rounding}'.")

    @property
    def top(self) -> int:
        """The largest integer that one contribution can hold."""
        return (1 << (self.bits - 1)) - 1

    def scale(self, plan: RoundPlan) -> float:
        """Integers per unit of update.

        Raises:
            ConfigError: the plan has no finite bound: integers need a clip.
        """
        if not plan.l2 < float("inf"):
            raise ConfigError(
                "this channel computes on integers, so updates need a finite bound: set bound to a"
                " clip."
            )
        return self.top / (plan.l2 * self._reach(plan.d))

    def _reach(self, d: int) -> float:
        return reach(d) if self.rotation else 1.0

    def length(self, plan: RoundPlan) -> int:
        """How many integers a contribution has: d values and the weight."""
        return plan.d + self.words

    @property
    def _levels(self) -> int:
        """The integer of the largest weight: all its digits are ``top``."""
        return int((1 << (self.bits - 1) * self.words) - 1)

    def error(self, plan: RoundPlan, weight: float) -> float:
        """How far a value of a client's update can be rounded off, in units of the update, where
        the client weighs ``weight``: half a step, a whole one where rounding is stochastic. Its
        weight is off by 2^-(words (bits - 1)) of ``max_weight`` at most.

        >>> FixedPoint(16).error(RoundPlan(0, (1, 2), d=1, l2=1.0, max_weight=1000.0), weight=1.0)
        0.01525...
        """
        slack = 0.5 if self.rounding == "nearest" else 1.0
        return slack * plan.max_weight / weight / self.scale(plan)

    def encode(
        self,
        update: Bounded,
        plan: RoundPlan,
        coins: NoiseSource | None = None,
        dtype: type[np.signedinteger] = np.int64,
    ) -> npt.NDArray[np.signedinteger]:
        """Integers [d + words] of magnitude at most ``top``: the weighted update, then the weight.

        A lying client's overlong values are cut to the range, as the ring would: encoding is the
        client's own code.

        Raises:
            BadUpdate: the vector has another length than the plan's, is not finite, or the weight
                is over the plan's bound.
        """
        if len(update.delta) != plan.d:
            raise BadUpdate(
                f"client {update.client}: a vector of {len(update.delta)} values where {plan.d}"
                " were asked for."
            )
        if not 0 < update.weight <= plan.max_weight:
            raise BadUpdate(
                f"client {update.client}: weight {update.weight} is not in (0, {plan.max_weight}]."
            )
        share = update.weight / plan.max_weight
        values = update.delta.detach().cpu().numpy()
        if self.rotation and np.isfinite(values).all():  # what is not is refused below
            values = rotate(values.astype(np.float32, copy=False), rotation_seed(plan))
        factor = self.scale(plan) * share
        integers = np.empty(self.length(plan), dtype=dtype)
        if self.rounding == "nearest" and encoded(values, factor, self.top, integers[: plan.d]):
            return self._weighed(integers, share)
        longest = max(float(values.max()), -float(values.min())) * factor
        if not np.isfinite(longest):
            raise BadUpdate(f"client {update.client}: the update holds NaN or infinite values.")
        scratch, chance = np.empty((2, min(_BLOCK, plan.d)))
        flips = self._coins(coins)
        for start in range(0, plan.d, _BLOCK):
            part = values[start : start + _BLOCK]
            exact = scratch[: len(part)]
            exact[:] = part
            exact *= factor
            if flips is not None:
                exact += np.multiply(flips(len(part)), 2.0**-32, out=chance[: len(part)])
                np.floor(exact, out=exact)
            if longest > self.top - 1:
                np.clip(exact, -self.top, self.top, out=exact)
            exact += _WHOLE
            whole = integers[start : start + len(part)]
            np.subtract(exact.view(np.int64), _SHIFT, out=whole, casting="same_kind")
        return self._weighed(integers, share)

    def _weighed(
        self, integers: npt.NDArray[np.signedinteger], share: float
    ) -> npt.NDArray[np.signedinteger]:
        """The same array, the weight in its last words."""
        # from 2^53 levels on a double would round the largest weight up, out of its digits
        weight = min(round(self._levels * share), self._levels)
        for word in range(1, self.words + 1):
            integers[-word], weight = weight & self.top, weight >> self.bits - 1
        return integers

    def _coins(self, source: NoiseSource | None) -> Callable[[int], npt.NDArray[np.uint32]] | None:
        """So many random 32-bit words at each call; None where nothing is left to chance."""
        if self.rounding == "nearest":
            return None
        if source is None:
            return fresh_words(backend())
        return lambda n: np.frombuffer(source.random_bytes(4 * n), dtype="<u4")

    def decode(self, total: npt.NDArray[np.signedinteger], plan: RoundPlan, count: int) -> Total:
        """The weighted sum of ``count`` contributions from their integers' sum [d + words]."""
        unit = plan.max_weight / self.scale(plan)
        values = np.empty(plan.d, dtype=np.float32)
        np.multiply(total[: plan.d], unit, out=values, dtype=np.float64, casting="same_kind")
        if self.rotation:
            values = unrotate(values, rotation_seed(plan))
        value: Float[torch.Tensor, " d"] = torch.from_numpy(values)
        weight = 0
        for digit in total[plan.d :].tolist():
            weight = (weight << self.bits - 1) + digit
        return Total(value, weight * plan.max_weight / self._levels, count)

    def inflated(self, l2: float, d: int) -> float:
        """The norm that an update of norm ``l2`` can have after rounding: at most half a step (or
        one) more an entry.
        """
        slack = 0.5 if self.rounding == "nearest" else 1.0
        return float(l2 * (1 + slack * d**0.5 * self._reach(d) / self.top))

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """The row [d] that a sum holds of a client that encodes this one, at the largest weight.

        Nearest rounding is repeated exactly; of stochastic rounding this is the expected value, for
        nobody knows its coins beforehand. At a smaller weight w the rounding error is max_weight /
        w times as long.

        Raises:
            BadUpdate: another length than the plan's, or not finite: nothing arrives.
            ConfigError: the plan has no finite bound.

        >>> plan = RoundPlan(0, (1, 2), d=2, l2=1.0)
        >>> FixedPoint(bits=3).arrives(torch.tensor([0.3, 0.9]), plan)
        tensor([0.3333, 1.0000])
        """
        values = row.detach().cpu().numpy().astype(np.float32, copy=False)
        if len(values) != plan.d or not np.isfinite(values).all():
            raise BadUpdate(
                f"a row of {len(values)} values, some not finite or not {plan.d} of them: it cannot"
                " be encoded."
            )
        if self.rotation:
            values = rotate(values, rotation_seed(plan))
        scale = self.scale(plan)
        exact = values.astype(np.float64) * scale
        if self.rounding == "nearest":
            np.rint(exact, out=exact)
        values = (np.clip(exact, -self.top, self.top) / scale).astype(np.float32)
        if self.rotation:
            values = unrotate(values, rotation_seed(plan))
        return torch.from_numpy(values)

    def stage(self, d: int) -> Stable:
        """Rounding as a stage between a client's row [d] and the rule."""
        return Rounded(lambda l2: self.inflated(l2, d))


@dataclass(frozen=True, slots=True)
class Rounded:
    """An encoding as a stage: a row of norm l2 leaves it with norm ``longest(l2)`` at most, and one
    that moves at all may move across that ball.

    Rounding is no contraction: two rows that hardly differ may be rounded apart, so how far a row
    moved before says nothing, and each changed row counts in full. ``longest`` has to hold for the
    bound that the plan scales by, so this stage comes right after the bound.

    >>> moved = Rounded(lambda l2: l2 + 0.5).stability(
    ...     Moves(2.0, longest=1.0, changed=1, rows=8), Neighbours("client", "replace_one"))
    >>> moved.total, moved.longest
    (3.0, 1.5)
    """

    longest: Callable[[float], float]

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """What one neighbour moves of the encoded rows."""
        longest = self.longest(moves.longest)
        total = neighbours.ends * longest * moves.changed if moves.changed else 0.0
        return replace(moves, total=total, longest=longest)


def rotation_seed(plan: RoundPlan) -> bytes:
    """What fixes the round's basis: public, and another in every round."""
    return hashlib.sha256(
        b"privfl/1/rotation"
        + struct.pack("<q", plan.number)
        + plan.part.encode()
        + b"/"
        + plan.session
    ).digest()
