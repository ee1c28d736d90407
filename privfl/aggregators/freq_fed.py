"""FreqFed: the majority cluster of models by the low half of their spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from scipy.fft import dct
from torch import Tensor

from privfl.aggregators.base import combine
from privfl.aggregators.clipping import shortening
from privfl.aggregators.cut import CutInHull
from privfl.aggregators.flame import linkage_heights, majority_component
from privfl.aggregators.model_distances import cosine_distances_of_models
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Rows
from privfl.core.geometry import squared_norms

_AT_ONCE = 16
"""Rows that are transformed together, which share the processor's wide registers."""


@dataclass(frozen=True, slots=True)
class FreqFed(CutInHull):
    """FreqFed (Fereidooni, Pegoraro, Rieger, Dmitrienko, Sadeghi 2024): average the updates of the
    majority cluster of models, compared by the low half of their discrete cosine transform.

    The DCT-II of the flat model w + x_i, its first floor(d / 2) coefficients, their cosine
    distances; HDBSCAN with at least floor(n / 2) + 1 members, min_samples 1 and a single cluster
    allowed, which is the first single-linkage component of that size; the mean of its members.
    What is low depends on the order of the parameters in the flat vector. About a third of honest
    rows is dropped where nobody lies, because every majority leaves a minority. Meant for f < n/2.
    Row weights are not used.

    The paper averages rows as long as they come, and a far row that points the usual way would take
    the mean along: rows are cut to ``bound`` before they are averaged, to the median norm of all
    rows where it is None; inf is the paper's rule.

    >>> context = Context(None, torch.zeros(4), torch.Generator())
    >>> rows = Rows.of([[1.0, 0.0, 0.0, 0.0], [1.0, 0.1, 0, 0], [1.0, -0.1, 0, 0], [-9.0, 0, 0, 0]])
    >>> FreqFed().judge_step(rows, None, context)[0].dropped
    (3,)
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}, "uncut": {"bound": math.inf}}
    symmetries: ClassVar[str] = "P"

    bound: float | None = None

    def __post_init__(self) -> None:
        self.require_bound()

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        w = low_frequencies(context.parameters[None].to(rows.values))[0]
        apart = cosine_distances_of_models(low_frequencies(rows.values), w)
        kept = majority_component(apart)
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, _ = shortening(norms, self.bound)
        verdict = Verdict(
            combine(rows.values, scale * kept / int(kept.sum())),
            kept=kept,
            scale=scale,
            suspicion=linkage_heights(apart, kept),
            scores={"norm": norms},
        )
        return verdict, None


def low_frequencies(values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """The first half of each row's orthonormal DCT-II coefficients, at least one.

    >>> low_frequencies(torch.ones(1, 4)).round(decimals=6)
    tensor([[2., 0.]])
    """
    keep = max(values.shape[1] // 2, 1)
    low = values.new_empty(len(values), keep)
    for start in range(0, len(values), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        spectra = dct(values[some].detach().cpu().numpy(), type=2, norm="ortho", axis=1)
        low[some] = torch.from_numpy(spectra[:, :keep])
    return low
