"""Membership of a released model by shadow models: Shokri's classifier, LiRA, RMIA; all from the
same shadows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.attacks.inference import Family, Inference, Lacking, auxiliary, candidates, recipe
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Scores
from privfl.core import Dataset, Vector, View

Statistic: TypeAlias = Literal["lira_online", "lira_offline", "rmia", "rmia_offline", "shokri"]

OFFLINE_A = 0.3
"""RMIA's a: how a likelihood with and without a sample go together (its authors' value for small
shadows).
"""


@dataclass(frozen=True, slots=True)
class ShadowMembership(Inference):
    """Whether candidates were trained on, from the released model and K shadow models trained on
    random halves of a pool.

    ``lira_online``: the likelihood ratio of the target's logit margin under normal fits to shadows
    that held the candidate and to those that did not, one variance for all candidates of few
    shadows; ``lira_offline`` uses the latter only (Carlini et al. 2022, algorithm 1 and section
    VI). ``rmia``: how often the candidate's likelihood, relative to its mean over shadows, beats
    that of population samples (Zarifzadeh, Liu, Shokri 2024, equation 9, with a = 1 and gamma = 1
    online; ``rmia_offline`` from shadows without the candidate alone, equation 10). ``shokri``: one
    logistic attack model by class on the shadows' outputs (Shokri et al. 2017, section V). The
    halves are drawn of the candidates; the auxiliary samples are RMIA's population.

    Args:
        shadows: K, an even number: every candidate is in half of them.
        epochs: of each shadow's training in one place; as many as the target had in all.
        train: "federated" plays shadow federations of as many clients and rounds as the views show
            (Knowledge.federated), whose models are out of step with single samples as the target's
            is; "central" trains each shadow in one place (Knowledge.trainer), which fits closer
            than a federation does. Without shadow federations central ones are taken.

    >>> ShadowMembership("rmia").shadows
    16
    """

    family: ClassVar[Family] = "membership"
    statistic: Statistic = "lira_online"
    shadows: int = 16
    epochs: int = 30
    train: Literal["federated", "central"] = "federated"

    @property
    def variant(self) -> tuple[str, ...]:
        """``statistic``."""
        return (self.statistic,)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """Scores at the last view's released model.

        Raises:
            Lacking: no candidates, text, no shadow training, fewer than 20 auxiliary samples, or
                fewer than 4 shadows.
        """
        view = views[-1]
        forward = recipe(view, knowledge)
        pool = candidates(knowledge, type(self).__name__)
        held = auxiliary(knowledge, type(self).__name__, 20)
        if pool.y.ndim > 1:
            raise Lacking("shadows are scored on one label a sample, and these have one a token.")
        no_power = knowledge.trainer is None and not self._federated(knowledge)
        if no_power or self.shadows < 4:
            raise Lacking(
                "shadow models must be trained, 4 at least: give Knowledge(trainer=...) and shadows"
                " >= 4."
            )
        both = Dataset(torch.cat([pool.x, held.x]), torch.cat([pool.y, held.y]), pool.classes)
        inside = halves(self.shadows, both.n, knowledge.generator(21))
        inside[:, pool.n :] = (
            False  # shadows of the target's size, and a population that no model has seen
        )
        deltas = self._trained(views, both, inside, knowledge)
        margins = torch.stack(
            [_margins(forward, views[0].before + delta, both) for delta in deltas]
        )
        target = _margins(forward, view.after, both)
        scores = _score(self.statistic, target, margins, inside, both, pool.n)
        return Scores(
            type(self).__name__,
            view.adversary,
            scores,
            notes={
                "shadows": self.shadows,
                "statistic": self.statistic,
                "trained": "as a federation" if self._federated(knowledge) else "in one place",
            },
        )

    def _federated(self, knowledge: Knowledge) -> bool:
        return knowledge.federated is not None and self.train != "central"

    def _trained(
        self,
        views: tuple[View, ...],
        both: Dataset,
        inside: Bool[Tensor, "K all"],
        knowledge: Knowledge,
    ) -> Float[Tensor, "K d"]:
        """The changes that shadow training makes, from the model before the first view."""
        members = [row.nonzero().squeeze(1) for row in inside]
        start, seed = views[0].before, knowledge.seed
        if knowledge.federated is not None and self.train != "central":
            rng, n = knowledge.generator(22), max(1, views[0].plan.n)
            dealt = [
                list(index[torch.randperm(len(index), generator=rng)].chunk(n)) for index in members
            ]
            return knowledge.federated(start, both, dealt, rounds=len(views), seed=seed)
        if knowledge.trainer is None:
            raise Lacking("shadow models must be trained: give Knowledge(trainer=...).")
        return knowledge.trainer(start, both, members, epochs=self.epochs, seed=seed)


def halves(K: int, n: int, rng: torch.Generator) -> Bool[Tensor, "K n"]:
    """Random subsets such that every sample is in exactly half of them.

    >>> halves(6, 5, torch.Generator()).sum(dim=0)
    tensor([3, 3, 3, 3, 3])
    """
    return (torch.rand(K, n, generator=rng).argsort(dim=0) < K // 2).contiguous()


def _margins(forward: Forward, parameters: Vector, data: Dataset) -> Float[Tensor, " n"]:
    """Log p_y / (1 - p_y), computed from logits, so that it does not saturate."""
    module = Simulator(forward, parameters).module
    with torch.no_grad():
        logits = torch.cat([module(part) for part in torch.split(data.x, 512)]).double()
    own = logits.gather(1, data.y[:, None]).squeeze(1)
    rest = logits.scatter(1, data.y[:, None], float("-inf")).logsumexp(dim=1)
    return (own - rest).float()


def _score(
    statistic: Statistic,
    target: Tensor,
    margins: Float[Tensor, "K all"],
    inside: Bool[Tensor, "K all"],
    both: Dataset,
    n: int,
) -> Float[Tensor, " n"]:
    if statistic == "shokri":
        return _shokri(target, margins, inside, both, n)
    if statistic in ("rmia", "rmia_offline"):
        return _rmia(target, margins, inside, n, offline=statistic == "rmia_offline")
    held, out = inside[:, :n].float(), (~inside[:, :n]).float()
    m, t = margins[:, :n], target[:n]
    mean_in, mean_out = (m * held).sum(0) / held.sum(0), (m * out).sum(0) / out.sum(0)
    var_in = ((m - mean_in).square() * held).sum() / held.sum()
    var_out = ((m - mean_out).square() * out).sum() / out.sum()
    if statistic == "lira_offline":
        return (t - mean_out) / var_out.sqrt()
    return ((t - mean_out).square() / var_out - (t - mean_in).square() / var_in) / 2


def _rmia(
    target: Float[Tensor, " all"],
    margins: Float[Tensor, "K all"],
    inside: Bool[Tensor, "K all"],
    n: int,
    *,
    offline: bool,
) -> Float[Tensor, " n"]:
    """The share of the population whose likelihood ratio each candidate's beats; found by one sort
    of the population.
    """
    likelihoods = torch.sigmoid(margins)
    # offline, shadows with the candidate are not to be had: their mean is OFFLINE_A times that
    # without it, and the rest of one
    if offline:
        out = ~inside
        mean = (
            (1 + OFFLINE_A) * (likelihoods * out).sum(dim=0) / out.sum(dim=0).clamp(min=1)
            + 1
            - OFFLINE_A
        ) / 2
    else:
        mean = likelihoods.mean(dim=0)
    ratio = torch.sigmoid(target) / mean.clamp(min=1e-12)
    beaten = torch.searchsorted(ratio[n:].sort().values, ratio[:n].contiguous(), right=True) / len(
        ratio[n:]
    )
    return beaten + 1e-6 * ratio[:n]  # ties by the ratio itself


def _shokri(
    target: Tensor, margins: Tensor, inside: Tensor, both: Dataset, n: int
) -> Float[Tensor, " n"]:
    """Within each class, the log odds that a shadow's sample of that margin was inside, by
    kernel-free quadratic logistic regression.
    """
    scores = torch.zeros(n)
    for c in range(both.classes):
        at = both.y == c
        if not bool(at[:n].any()):
            continue
        x, y = margins[:, at].flatten(), inside[:, at].flatten().float()
        centre, spread = x.mean(), x.std().clamp(min=1e-6)
        w = torch.zeros(3)
        X = _features((x - centre) / spread)
        for _ in range(25):  # Newton
            p = torch.sigmoid(X @ w)
            H = (X * (p * (1 - p))[:, None]).T @ X + 1e-3 * torch.eye(3)
            w = w + torch.linalg.solve(H, X.T @ (y - p) - 1e-3 * w)
        scores[at[:n]] = _features((target[:n][at[:n]] - centre) / spread) @ w
    return scores


def _features(z: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    return torch.stack([torch.ones_like(z), z, z.square()], dim=1)
