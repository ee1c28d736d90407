"""FLARE: trust by how alike models see the server's clean samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.base import combine
from privfl.aggregators.clipping import shortening
from privfl.aggregators.cut import CutInHull
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    ConfigError,
    Context,
    Examples,
    Needs,
    Oracle,
    Rows,
    TooManyByzantine,
    Vector,
    require,
)
from privfl.core.geometry import squared_norms

Features: TypeAlias = Callable[[Vector, Context], Tensor]
"""What the model with these parameters [d] makes of each clean sample before its last layer
[s, h].
"""


@dataclass(frozen=True, slots=True)
class FLARE(CutInHull):
    """FLARE (Wang, Xiao, Chen, Hou, Lou 2022): weigh rows by how often others count them among
    their nearest, where models are near that see the server's clean samples alike.

    The distance of two models is the unbiased squared maximum mean discrepancy of their features of
    the last hidden layer, never under 0. Every model votes for the floor(n / 2) - 1 nearest others
    (for all that are as near as the last of them); trust is the softmax of c_i / (``tau`` times the
    mean of c), c the votes: the authors' code. So trust is soft, at most e^(2 / tau) to 1 between
    rows, and nobody is accused. A model whose features are not finite is dropped.

    Two differences: the kernel exp(-|x - y|^2 / w) has for w the median squared distance of the
    features that the broadcast model has, which no client of the round moves (theirs: the number of
    features), and rows are cut to ``bound`` before they are averaged, to the median norm of all
    rows where it is None (inf is theirs). Meant for f < n/2 and clean samples at the server. Row
    weights are not used. n forward passes of s samples, and O(n^2 s^2 h).

    Raises:
        ConfigError: ``tau`` or ``bound`` is not above 0, or the server holds one sample alone.
        TooManyByzantine: half of the models or more are not finite on the server's samples.

    >>> features = lambda model, context: torch.outer(torch.tensor([1.0, 2.0, 4.0]), model)
    >>> context = Context(None, torch.ones(2), torch.Generator())
    >>> rows = Rows.of([[0.1, 0.0], [0.0, 0.1], [0.1, 0.1], [0.0, 0.0], [-5.0, 9.0]])
    >>> FLARE(features).judge_step(rows, None, context)[0].suspicion.argmax()
    tensor(4)
    """

    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}, "sharp": {"tau": 0.25}}
    symmetries: ClassVar[str] = "P"
    needs: ClassVar[Needs] = {"features": Oracle.FEATURES}

    features: Features
    tau: float = 1.0
    bound: float | None = None

    def __post_init__(self) -> None:
        require.positive(tau=self.tau)
        self.require_bound()

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        here = self.features(context.parameters, context).to(torch.float64)
        if len(here) < 2:
            raise ConfigError(
                "FLARE compares models on at least 2 clean samples of the server's, and it holds"
                f" {len(here)}: raise data.root."
            )
        seen = torch.stack(
            [self.features(context.parameters + row, context) for row in rows.values]
        )
        distances = discrepancies(seen.to(torch.float64), kernel_width(here))
        votes = votes_of(distances)
        fine = torch.isfinite(distances.diagonal())
        self._refuse_blind(rows, fine, lost)
        worth = (votes - votes.max()) / (self.tau * votes.mean()).clamp(min=1e-300)
        trust = torch.softmax(worth, dim=0) * fine
        trust = trust / trust.sum().clamp(min=1e-300)
        scale, _ = shortening(squared_norms(rows.values).sqrt().cpu(), self.bound)
        verdict = Verdict(
            combine(rows.values, scale * trust),
            kept=fine,
            scale=scale * trust / trust.max().clamp(min=1e-300),
            suspicion=torch.where(fine, rows.n - votes, torch.inf),
            scores={"votes": votes, "trust": trust},
        )
        return verdict, None

    def _refuse_blind(self, rows: Rows, fine: Bool[Tensor, " n"], lost: int) -> None:
        """Refuse to trust the few that are left where most models make nothing of the samples."""
        n, dark = rows.n + lost, [int(i) for i in (~fine).nonzero()]
        if not dark or lost + len(dark) <= self.max_byzantine(n):
            return
        who = ", ".join(str(i if rows.ids is None else rows.ids[i]) for i in dark)
        raise TooManyByzantine(
            f"FLARE tolerates {self.max_byzantine(n)} bad rows of {n}, and {lost + len(dark)} are"
            f" not finite or make the model so on the server's samples, of these by the latter:"
            f" {who}."
        )


def kernel_width(features: Float[Tensor, "s h"]) -> float:
    """The median squared distance of two samples' features; 1 where it is 0 or not finite.

    >>> kernel_width(torch.tensor([[0.0], [2.0], [2.0]]))
    4.0
    """
    apart = torch.pdist(features).square()
    width = float(apart.median())
    return width if 0 < width < float("inf") else 1.0


def discrepancies(seen: Float[Tensor, "n s h"], width: float) -> Float[Tensor, "n n"]:
    """Squared maximum mean discrepancies of all pairs, unbiased and cut at 0; inf where a model's
    features are not finite, its own with itself too.
    """
    n, s, _ = seen.shape
    fine = torch.isfinite(seen).all(dim=2).all(dim=1)
    every = torch.where(fine[:, None, None], seen, torch.zeros(()).to(seen)).flatten(0, 1)
    kernels = (torch.cdist(one, every).square().div(-width).exp() for one in torch.split(every, s))
    sums = torch.stack([kernel.view(s, n, s).sum(dim=(0, 2)) for kernel in kernels])
    within = (sums.diagonal() - s) / (s * (s - 1))
    found = (within[:, None] + within - (sums + sums.T) / s**2).clamp(min=0)
    found.fill_diagonal_(0)
    both = fine[:, None] & fine
    return torch.where(both, found, torch.full_like(found, torch.inf)).cpu()


def votes_of(distances: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """How many others count each row among their floor(n / 2) - 1 nearest; a row at no finite
    distance neither votes nor is voted for.

    >>> votes_of(torch.tensor([[0.0, 1, 9, 9], [1, 0, 9, 9], [9, 8, 0, 9], [9, 9, 8, 0]]))
    tensor([1., 2., 1., 0.], dtype=torch.float64)
    """
    n = len(distances)
    most = n // 2 - 1
    if most < 1:
        return torch.zeros(n, dtype=torch.float64)
    others = distances.clone().fill_diagonal_(torch.inf)
    last = others.sort(dim=1).values[:, most - 1 : most]
    return ((others <= last) & torch.isfinite(others)).sum(dim=0).to(torch.float64)
