"""Records of a table out of an update: numbers and categories together, from several starts that
vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inference import auxiliary as auxiliary_of
from privfl.attacks.inversion.batch_size import tried
from privfl.attacks.inversion.columns import categories
from privfl.attacks.inversion.matching import Problem, problem
from privfl.attacks.inversion.repeated import Repeated
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Records
from privfl.core import ClientId, Examples, View

_ROWS = 30
"""So few rows of one's own show no categories."""
_STILL = 1e-6
"""A column of no more deviation does not vary."""


@dataclass(frozen=True, slots=True)
class TabLeak(Targeted):
    """Records out of tables (Vero, Balunović, Dimitrov, Vechev 2023): numbers, and categories as
    softmaxes, are matched to the update by the cosine of gradients.

    Several starts end in different records. They are matched to those of the best start
    (Hungarian) and pooled: the mean softmax and the median number. Where starts agree a field is
    likely right: its confidence is 1 less the entropy of the pooled softmax, relative to the
    greatest, and 1 less the numbers' spread over the starts in standard deviations.

    Which columns are one category is read off the auxiliary rows, and which numbers never vary:
    those are claimed as they are there, and records are not told apart by what does not vary.

    >>> TabLeak().restarts
    6
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 20, "restarts": 2}}
    iterations: int = 800
    restarts: int = 6
    lr: float = 0.06
    target: Target = "client"
    client: ClientId | None = None

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Records:
        """Records from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: the recipe, the labels or own rows are not known, own rows hold what is no
                number, or samples are no records.
        """
        forward = recipe(views[0], knowledge)
        if forward.tokens:
            raise Lacking("records of a table have one feature a column, and text has none.")
        if self.restarts < 1 or self.iterations < 1:
            raise Lacking("TabLeak needs restarts and iterations of at least 1.")
        own = auxiliary_of(knowledge, "TabLeak", _ROWS).x.flatten(1)
        if not bool(torch.isfinite(own).all()):
            raise Lacking("TabLeak's own rows hold NaN or infinite fields: fill them in.")
        observed = observe(views[0], knowledge, self.target, self.client)
        groups = categories(own)
        told = tried(
            observed, forward, knowledge, lambda one: self._solved(one, forward, knowledge, groups)
        )
        if not isinstance(told, Records):
            raise TypeError(f"{told}")
        return told

    def _solved(
        self,
        observed: Observed,
        forward: Forward,
        knowledge: Knowledge,
        groups: tuple[slice, ...],
    ) -> Records:
        posed = problem(observed, forward, knowledge, adaptive=True, scale_free=True)
        own = auxiliary_of(knowledge, "TabLeak", _ROWS).x.flatten(1)
        rng = knowledge.generator(61)

        def slope(free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """The objective at columns with logits, its slope, and the records there."""
            leaf = free.detach().requires_grad_()
            x = _softened(leaf, groups)
            loss = posed.mismatch(x.view(len(x), *posed.low.shape), "cosine")
            (by_leaf,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), by_leaf, x.detach()

        step = Repeated(slope, self.restarts * self.iterations)
        ends = [self._descend(posed, own, groups, step, rng) for _ in range(self.restarts)]
        ends.sort(key=lambda end: end[1])
        deviation = own.std(dim=0).clamp(min=_STILL)
        aligned = [_aligned(ends[0][0], end, posed.labels, deviation) for end, _ in ends]
        samples, confidence = _pooled(torch.stack(aligned), groups, deviation)
        return Records(
            type(self).__name__,
            observed.view.adversary,
            samples.view(-1, *forward.shape),
            posed.labels,
            ends[0][1],
            confidence,
            notes={"starts": len(ends), "categories": len(groups)},
        )

    def _descend(
        self,
        posed: Problem,
        own: Tensor,
        groups: Sequence[slice],
        step: Repeated,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "n columns"], float]:
        """Records [n, columns] with softmaxes for categories, and the objective there."""
        n = len(posed.labels)
        drawn = torch.randn((n, own.shape[1]), generator=rng)
        free = (own.mean(dim=0) + own.std(dim=0) * drawn).to(posed.goal.dtype)
        for group in groups:  # logits around zero: every category is possible
            free[:, group] = drawn[:, group]
        varies = own.std(dim=0) > _STILL
        for group in groups:
            varies[group] = True  # a category that own rows lack is possible
        adam = torch.optim.Adam([free], lr=self.lr)
        best, least = _softened(free, groups), math.inf
        for i in range(self.iterations):
            if i in (self.iterations // 2, 3 * self.iterations // 4):
                adam.param_groups[0]["lr"] /= 3
            objective, slope, x = step(free)
            value = objective.item()
            if value < least:
                best, least = x.clone(), value
            free.grad = slope * varies
            adam.step()
        return best, least


def _softened(free: Tensor, groups: Sequence[slice]) -> Tensor:
    """Columns as they are, and softmaxes where they are one category."""
    parts: list[Tensor] = []
    at = 0
    for group in groups:
        parts += [free[:, at : group.start], free[:, group].softmax(dim=1)]
        at = group.stop
    return torch.cat([*parts, free[:, at:]], dim=1)


def _aligned(
    like: Float[Tensor, "n columns"],
    end: Float[Tensor, "n columns"],
    labels: Int[Tensor, " n"],
    deviation: Float[Tensor, " columns"],
) -> Float[Tensor, "n columns"]:
    """The records in the order in which they are most like the others, each with its label; of the
    columns that vary.
    """
    from scipy.optimize import linear_sum_assignment

    varies = deviation > _STILL
    scale = deviation[varies]
    apart = torch.cdist(like[:, varies] / scale, end[:, varies] / scale)
    apart = apart + 1e6 * (labels[:, None] != labels[None])
    _, columns = linear_sum_assignment(apart.numpy())
    return end[torch.from_numpy(columns)]


def _pooled(
    ends: Float[Tensor, "starts n columns"],
    groups: Sequence[slice],
    deviation: Float[Tensor, " columns"],
) -> tuple[Float[Tensor, "n columns"], Float[Tensor, "n columns"]]:
    """Records with one category each, and how sure each column is."""
    x = ends.median(dim=0).values
    spread = ends.std(dim=0, unbiased=False) / deviation
    sure = (1 - spread).clamp(min=0)
    for group in groups:
        share = ends[:, :, group].mean(dim=0)
        entropy = torch.special.entr(share).sum(dim=1) / math.log(share.shape[1])
        x[:, group] = 0
        x[:, group] = x[:, group].scatter(1, share.argmax(dim=1, keepdim=True), 1.0)
        sure[:, group] = (1 - entropy).clamp(min=0)[:, None].expand(-1, share.shape[1])
    return x, sure
