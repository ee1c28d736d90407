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
from privfl.core.geometry import BLOCK, squared_norms

Floats: TypeAlias = npt.NDArray[Any]
Bools: TypeAlias = npt.NDArray[np.bool_]
_SAMPLE = 4096


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
            taken = ordinary(lengths * scale, self.norm) & ordinary(signs, self.sign)
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
        rows = part.detach().cpu().numpy()
        size, mask = np.empty_like(rows[0]), np.empty(len(rows[0]), dtype=bool)
        told = [_of_largest(row, least, size, mask) for row in rows]
        lengths, shares = torch.tensor(told, dtype=torch.float64).reshape(-1, 2).T
        return lengths, shares


def _of_largest(row: Floats, least: int, size: Floats, mask: Bools) -> tuple[float, float]:
    """Length, and share of positive entries among those that are not zero (one half where there is
    none), of a row without its ``least`` smallest entries; ``size`` and ``mask`` are room of its
    length.
    """
    if least == len(row):
        return 0.0, 0.5
    np.abs(row, out=size)
    cut = kth_smallest(size, least, mask) if least else 0.0
    if cut > 0:
        size *= np.greater_equal(size, cut, out=mask)
        told = np.count_nonzero(mask)
        positive = np.count_nonzero(np.greater_equal(row, cut, out=mask))
    else:
        told = np.count_nonzero(row)
        positive = np.count_nonzero(np.greater(row, 0, out=mask))
    return math.sqrt(_square(size)), positive / told if told else 0.5


def _square(values: Floats) -> float:
    """The sum of squares, by blocks."""
    one = torch.from_numpy(values)
    whole = len(one) // BLOCK * BLOCK
    blocks = torch.linalg.vector_norm(one[:whole].view(-1, BLOCK), dim=1).double()
    total = float(blocks @ blocks) + float(torch.linalg.vector_norm(one[whole:])) ** 2
    return total if 1e-30 < total < 1e37 else float(np.square(values, dtype=np.float64).sum())


def kth_smallest(values: Floats, k: int, mask: Bools) -> float:
    """The value of rank ``k``, counted from 0, of values without NaN; ``mask`` is room of their
    length.

    A sample brackets it, and only what lies in the bracket is partitioned; where the sample misled,
    all is.

    >>> kth_smallest(np.array([3.0, 1.0, 2.0]), 1, np.empty(3, dtype=bool))
    2.0
    """
    if len(values) > 4 * _SAMPLE:
        sample = np.sort(values[:: len(values) // _SAMPLE])
        at, reach = k / len(values) * len(sample), 2 * len(sample) ** 0.5
        low = sample[max(math.floor(at - reach), 0)]
        high = sample[min(math.ceil(at + reach), len(sample) - 1)]
        under = np.count_nonzero(np.less(values, low, out=mask))
        np.logical_or(mask, values > high, out=mask)
        between = values[np.logical_not(mask, out=mask)]
        if under <= k < under + len(between):
            return float(np.partition(between, k - under)[k - under])
    return float(np.partition(values, k)[k])


def ordinary(scores: Float[Tensor, " n"], within: float) -> Bool[Tensor, " n"]:
    """Which scores are less than ``within`` standard deviations from their median; all where they
    are the same.

    >>> ordinary(torch.tensor([1.0, 1.1, 0.9, 9.0]), 1.0)
    tensor([ True,  True,  True, False])
    """
    spread = float(scores.std(correction=0))
    if spread <= 1e-12 * float(scores.abs().max()):
        return torch.ones(len(scores), dtype=torch.bool)
    return (scores - midpoint(scores)).abs() < within * spread
