"""LASA: in each layer, the rows of ordinary length and ordinary signs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.base import Memoryless, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.columns import midpoint
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Needs, Oracle, Rows, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class LASA(Memoryless):
    """LASA, layer-adaptive sparsified aggregation (Xu, Zhang, Hu 2025, Algorithm 1): in each layer
    average the rows whose length and signs there are ordinary.

    Rows are cut to the median norm. For the filters alone the floor(``sparsity`` l) entries of
    least magnitude of each layer of l are set to zero. In each layer a row counts if |s - median
    (s)| / std(s) < ``norm`` for s the lengths there, and < ``sign`` for s the shares of positive
    entries among those that are not zero; where no row passes both, all do. The result is, layer by
    layer, the mean of the cut rows that count, with all of their entries. Meant for f < n/2. Row
    weights are not used. No sensitivity is proved.

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
        if least == part.shape[1]:
            none = torch.zeros(len(part), dtype=torch.float64)
            return none, none + 0.5
        if least > 0:
            size = part.abs()
            smallest = [float(np.partition(row.cpu().numpy(), least)[least]) for row in size]
            part = part.masked_fill(size < size.new_tensor(smallest)[:, None], 0.0)
        positive = (part > 0).sum(dim=1).double()
        told = positive + (part < 0).sum(dim=1)
        share = torch.where(told > 0, positive / told.clamp(min=1), 0.5)
        return squared_norms(part).sqrt().cpu(), share.cpu()


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
