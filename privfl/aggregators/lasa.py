"""LASA: in each layer, the rows of ordinary length and ordinary signs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.base import Memoryless, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.columns import midpoint
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Needs, Oracle, Rows, require
from privfl.core.geometry import squared_norms

Floats: TypeAlias = npt.NDArray[Any]
_SAMPLE, _RUN = 4096, 4
"""From so many places of a row so many entries each tell where the least ones end."""
_ROOM = 1 << 16
"""Entries at a time: a few vectors of them fit in a second-level cache."""
_LEAST, _MOST = 1e-30, 1e37
"""Sums of squares outside of these may have vanished or overflowed in float32."""
_ROUNDING, _ALIKE = 1e-12, 1e-6
"""Scores that differ by no more are the same: those that are counted, and lengths of float32."""
_EDGE = 1e-9
"""Of two rows each is one standard deviation from their median, and so is each of two halves."""


@dataclass(frozen=True, slots=True)
class LASA(Memoryless):
    """LASA, layer-adaptive sparsified aggregation (Xu, Zhang, Hu 2025, Algorithm 1): in each layer
    average the rows whose length and signs there are ordinary.

    Rows are cut to the median norm. For the filters alone the floor(``sparsity`` l) entries of
    least magnitude of each layer of l are set to zero. In each layer a row counts if |s - median
    (s)| / std(s) < ``norm`` for s the lengths there, and < ``sign`` for s the shares of positive
    entries among those that are not zero; where no row passes both, all do. The result is, layer by
    layer, the mean of the cut rows that count, with all of their entries. Meant for f < n/2. Row
    weights are not used. No sensitivity is proved. Who sends a row of ordinary length and signs
    that goes back (`attacks.Ordinary`) is averaged in every layer.

    A layer is a layer's weights with its biases; the authors' code filters each tensor on its own.
    A vector of another length than the model is one layer. A row counts as dropped where no layer
    took it; its suspicion is the share of parameters in layers that did not.

    >>> context = Context(None, torch.zeros(4), torch.Generator())
    >>> rows = Rows.of([[1.0, -1, 2, 1], [1, -2, 2, 2], [2, -1, 1, 2], [-9.0, -9, -1, -2]])
    >>> LASA([2, 2], sparsity=0.0).judge_step(rows, None, context)[0].dropped
    (3,)
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}, "dense": {"sparsity": 0.0}}
    symmetries: ClassVar[str] = "PS"
    needs: ClassVar[Needs] = {"layers": Oracle.LAYER_SIZES}

    layers: Sequence[int]
    sparsity: float = 0.3
    norm: float = 1.0
    sign: float = 1.0

    def __post_init__(self) -> None:
        require.within(0, 1, sparsity=self.sparsity)
        require.positive(norm=self.norm, sign=self.sign)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, _ = shortening(norms)
        out = rows.values.new_empty(rows.d)
        dropped = torch.zeros(rows.n, dtype=torch.float64)
        for where in self._slices(rows.d):
            part = rows.values[:, where]
            lengths, signs = self._told(part)
            taken = ordinary(lengths * scale, self.norm, _ALIKE) & ordinary(signs, self.sign)
            if not bool(taken.any()):
                taken = torch.ones_like(taken)
            out[where] = combine(part, scale * taken / int(taken.sum()))
            dropped += (~taken) * (where.stop - where.start) / rows.d
        kept = dropped < 1 - 1e-9
        verdict = Verdict(out, kept=kept, scale=scale, suspicion=dropped, scores={"norm": norms})
        return verdict, None

    def _slices(self, d: int) -> Iterator[slice]:
        sizes = self.layers if sum(self.layers) == d else (d,)
        start = 0
        for size in sizes:
            yield slice(start, start + size)
            start += size

    def _told(self, part: Float[Tensor, "n l"]) -> tuple[Tensor, Tensor]:
        """Each row's length and share of positive entries in a layer, of its largest entries."""
        least = math.floor(self.sparsity * part.shape[1])
        kind = part.dtype if part.dtype in (torch.float32, torch.float64) else torch.float32
        told = [_of_largest(row.to(kind).cpu().numpy(), least) for row in part.detach()]
        lengths, shares = torch.tensor(told, dtype=torch.float64).reshape(-1, 2).T
        return lengths, shares


def _of_largest(row: Floats, least: int) -> tuple[float, float]:
    """Length, and share of positive entries among those that are not zero (one half where there is
    none), of a row without its ``least`` smallest entries.
    """
    if least == len(row):
        return 0.0, 0.5
    found = _told_between(row, least, *_bracket(row, least))
    if found is None:  # the sample misled
        found = _told_between(row, least, *_exactly(row, least))
    square, told, positive = found or (0.0, 0, 0)
    return math.sqrt(square), positive / told if told else 0.5


def _exactly(row: Floats, least: int) -> tuple[float, float]:
    """The size of rank ``least``, counted from 0, twice."""
    cut = float(np.partition(np.abs(row), least)[least])
    return cut, cut


def _bracket(row: Floats, least: int) -> tuple[float, float]:
    """Between which sizes that of rank ``least`` lies, most likely: by a sample's ranks three
    standard deviations below and above its own; of a short row, where it lies.
    """
    if not least:
        return 0.0, 0.0
    if len(row) <= 4 * _SAMPLE:
        return _exactly(row, least)
    apart = len(row) // _SAMPLE
    sample = np.abs(row[: _SAMPLE * apart].reshape(_SAMPLE, apart)[:, :_RUN]).ravel()
    share = least / len(row)
    at, reach = share * len(sample), 3 * (share * (1 - share) * len(sample)) ** 0.5 + 1
    low, high = max(math.floor(at - reach), 0), min(math.ceil(at + reach), len(sample) - 1)
    sample.partition(high)
    most = float(sample[high])
    if low < high:
        sample[:high].partition(low)
    return float(sample[low]), most


def _told_between(
    row: Floats, least: int, low: float, high: float
) -> tuple[float, int, int] | None:
    """The sum of squares of a row without its ``least`` smallest entries, how many entries of it
    are not zero, and how many positive; None where the next one's size is not within these.

    One pass over the row, by blocks: what is larger than ``high`` is kept, and what lies between
    is put aside until it is known how many of it are.
    """
    size, above = np.empty_like(row[:_ROOM]), np.empty(min(_ROOM, len(row)), dtype=bool)
    beside = np.empty_like(above)
    square, told, positive, between = 0.0, 0, 0, []
    for start in range(0, len(row), _ROOM):
        block = row[start : start + _ROOM]
        sizes, large, some = (one[: len(block)] for one in (size, above, beside))
        np.abs(block, out=sizes)
        told += int(np.count_nonzero(np.greater(sizes, high, out=large)))
        np.greater_equal(sizes, low, out=some)
        between.append(np.compress(np.not_equal(some, large, out=some), block))
        with np.errstate(over="ignore", invalid="ignore"):
            square += float(np.dot(np.multiply(sizes, large, out=sizes), sizes))
        positive += int(np.count_nonzero(np.greater(block, high, out=large)))
    aside = np.concatenate(between)
    sizes = np.abs(aside)
    cut = 0.0
    if least:
        rank = least - (len(row) - told - len(aside))
        if not 0 <= rank < len(aside):
            return None
        cut = float(np.partition(sizes, rank)[rank])
    kept = (sizes >= cut) & (sizes > 0)
    square += float(np.square(aside[kept], dtype=np.float64).sum())
    if not _LEAST < square < _MOST:
        square = float(np.square(row[np.abs(row) >= cut], dtype=np.float64).sum())
    told += int(np.count_nonzero(kept))
    return square, told, positive + int(np.count_nonzero(aside[kept] > 0))


def ordinary(
    scores: Float[Tensor, " n"], within: float, alike: float = _ROUNDING
) -> Bool[Tensor, " n"]:
    """Which scores are less than ``within`` standard deviations from their median, by more than
    rounding; all where they are the same to the share ``alike`` of the largest.

    >>> ordinary(torch.tensor([1.0, 1.1, 0.9, 9.0]), 1.0)
    tensor([ True,  True,  True, False])
    """
    spread = float(scores.std(correction=0))
    if spread <= alike * float(scores.abs().max()):
        return torch.ones(len(scores), dtype=torch.bool)
    return (scores - midpoint(scores)).abs() < within * spread * (1 - _EDGE)
