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
[s, h]. The parameters are room that the next model takes: whoever wants to keep them copies them.
"""
_ROOM = 1 << 16
"""Kernel values at a time: in float64 they fit in a second-level cache."""
_MOST = 1e150
"""Features beyond it are as far: their squares would overflow."""
_NARROWEST = torch.finfo(torch.float64).tiny


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
        here = self.features(context.parameters, context).detach().to(torch.float64)
        if len(here) < 2:
            raise ConfigError(
                "FLARE compares models on at least 2 clean samples of the server's, and it holds"
                f" {len(here)}: raise data.root."
            )
        seen = self._seen(rows, context)
        distances = discrepancies(seen, kernel_width(here), here.mean(dim=0))
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

    def _seen(self, rows: Rows, context: Context) -> Float[Tensor, "n s h"]:
        """What each client's model makes of the samples. Models take turns in one vector."""
        base = context.parameters.detach()
        model = torch.empty_like(base, dtype=torch.result_type(base, rows.values))
        seen = []
        for row in rows.values:
            torch.add(base, row, out=model)
            seen.append(self.features(model, context).detach().to(torch.float64, copy=True))
        return torch.stack(seen)

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
    """The median squared distance of two samples' features; 1 where it is not finite, or under the
    least normal number of float64: by a narrower one nothing can be divided.

    >>> kernel_width(torch.tensor([[0.0], [2.0], [2.0]]))
    4.0
    """
    apart = torch.pdist(features.detach()).double().square()
    width = float(apart.median())
    return width if _NARROWEST <= width < float("inf") else 1.0


def discrepancies(
    seen: Float[Tensor, "n s h"], width: float, centre: Float[Tensor, " h"]
) -> Float[Tensor, "n n"]:
    """Squared maximum mean discrepancies of all pairs, unbiased and cut at 0; inf where a model's
    features are not finite, its own with itself too. ``centre`` is where features are expected:
    what all of them have in common beside it falls out before they are multiplied.
    """
    s = seen.shape[1]
    fine = torch.isfinite(seen).all(dim=2).all(dim=1)
    told = torch.where(fine[:, None, None], seen, torch.zeros(()).to(seen))
    distinct, which = torch.unique(told.flatten(1), dim=0, return_inverse=True)
    models = distinct.view(-1, *seen.shape[1:]) - torch.nan_to_num(centre, 0.0, 0.0, 0.0)
    models = (models * (2 / width) ** 0.5).clamp_(-_MOST, _MOST)
    sums = _kernel_sums(models)
    within = torch.stack([_others(model) for model in models]) / (s * (s - 1))
    found = (within[:, None] + within - 2 * sums / s**2).clamp(min=0)
    found = found.fill_diagonal_(0)[which][:, which]
    both = fine[:, None] & fine
    return torch.where(both, found, torch.full_like(found, torch.inf)).cpu()


def _others(scaled: Float[Tensor, "s h"]) -> Float[Tensor, ""]:
    """The kernel's sum over all pairs of different samples of one model, from their differences:
    wherever its features lie, none of their digits are lost.
    """
    return 2 * torch.pdist(scaled).square().div_(-2).exp_().sum()


def _kernel_sums(scaled: Float[Tensor, "m s h"]) -> Float[Tensor, "m m"]:
    """For each two models the sum of exp(-|x - y|^2 / 2) over their features x and y, features
    times sqrt(2 / width); 0 of a model with itself, which nobody asks for.

    The exponent is x'y - |x|^2 / 2 - |y|^2 / 2: one product of vectors that hold the squares beside
    the features. Each pair of models is met once.
    """
    m, s, _ = scaled.shape
    half = scaled.square().sum(dim=2, keepdim=True) / -2
    ones = torch.ones_like(half)
    one, other = torch.cat([scaled, half, ones], dim=2), torch.cat([scaled, ones, half], dim=2)
    at_once = max(_ROOM // s**2, 1)
    room = scaled.new_empty(min(at_once, m) * s, s)
    sums = scaled.new_zeros(m, m)
    for i in range(m):
        for start in range(i + 1, m, at_once):
            beside = one[start : start + at_once].flatten(0, 1)
            kernel = torch.mm(beside, other[i].T, out=room[: len(beside)]).clamp_(max=0).exp_()
            sums[i, start : start + at_once] = kernel.view(-1, s * s).sum(dim=1)
    return sums + sums.T


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
