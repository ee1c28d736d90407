"""FLAME (Nguyen et al. 2022): cluster the models by direction, clip the updates to the median norm,
add a little noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.base import InHull, Memoryless, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.model_distances import cosine_distances_of_models
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Moves, Neighbours, Rows, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class FLAME(InHull, Memoryless):
    """Keep the majority cluster of the clients' models, clip their updates to the median norm,
    average, add noise (Algorithm 1).

    Clusters are HDBSCAN's under the cosine distance of models w + x_i, with at least floor(n / 2) +
    1 members, min_samples 1 and a single cluster allowed: the first single-linkage component of
    that size. S is the median of ||x_i|| over all n rows; kept updates are scaled by min(1, S /
    ||x_i||). Noise N(0, (lambda S)^2) a coordinate, from the run's simulation randomness: it is
    meant to blur a backdoor and is no differential privacy. Meant for f < n/2. Row weights are not
    used. With its noise, whose deviation follows the rows, no sensitivity is proved.

    >>> context = Context(None, torch.zeros(2), torch.Generator().manual_seed(0))
    >>> rows = Rows.of([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [-9.0, 0.0]])
    >>> FLAME(noise=0.0).judge_step(rows, None, context)[0].dropped
    (3,)
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"noise": 0.0}, "noisy": {}}
    symmetries: ClassVar[str] = "P"

    noise: float = 0.001

    def __post_init__(self) -> None:
        require.at_least(0, noise=self.noise)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """As any rule in the hull where it adds no noise of its own: that noise's deviation is a
        median of private norms, so one client moves every coordinate by a share of a normal.
        """
        return float("inf") if self.noise > 0 else InHull.sensitivity(self, moves, neighbours)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        apart = cosine_distances_of_models(rows.values, context.parameters)
        kept = majority_component(apart)
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, middle = shortening(norms)
        out = combine(rows.values, scale * kept / int(kept.sum()))
        if self.noise * middle > 0:
            out = out + torch.randn(rows.d, generator=context.rng).to(out) * (self.noise * middle)
        return (
            Verdict(
                out,
                kept=kept,
                scale=scale,
                suspicion=linkage_heights(apart, kept),
                scores={"norm": norms, "bound": torch.tensor(middle)},
            ),
            None,
        )


def majority_component(distances: Float[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """The first single-linkage component of more than half of the rows, joining pairs from the
    nearest outwards (ties together).
    """
    n = len(distances)
    if n < 3:
        return torch.ones(n, dtype=torch.bool)
    owner = torch.arange(n)
    above = torch.triu_indices(n, n, offset=1)
    links = distances[above[0], above[1]]
    order = links.argsort(stable=True)
    before = -1.0
    for i in order.tolist():
        link = float(links[i])
        if link > before:
            sizes = owner.bincount(minlength=n)
            if int(sizes.max()) > n // 2:
                break
        before = link
        a, b = owner[above[0, i]], owner[above[1, i]]
        if a != b:
            owner = torch.where(owner == b, a, owner)
    return owner == owner.bincount(minlength=n).argmax()


def linkage_heights(
    distances: Float[Tensor, "n n"], kept: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The height at which single linkage joins each row to another one that is kept."""
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import squareform

    n = len(distances)
    if n < 2:
        return torch.zeros(n, dtype=torch.float64)
    flat = squareform(distances.numpy(), checks=False)
    joined = torch.from_numpy(squareform(cophenet(linkage(flat, "single"))))
    joined.fill_diagonal_(torch.inf)
    return joined[:, kept].min(dim=1).values
