"""How well scores rank members above others: areas, rates and their intervals, where the samples of
one client hang together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr
from torch import Tensor

from privfl.audit.intervals import (
    FEW,
    Figure,
    Floats,
    Ints,
    auc_figure,
    by_cluster,
    clustered_mean,
    multiplicities,
    proportion,
    stretched,
)

EVEN = 0.05
"""How unlike the shares of members of clusters may be for a test over all samples together."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How well scores tell members: AUC, balanced accuracy at the best threshold, true positives at
    1 % and 0.1 % false ones (NaN under 100 and 1,000 non-members: nothing smaller can be seen), the
    ROC; over how many samples (``units``) of how many clusters. ``luck`` is how likely the best of
    area and rates would be if members of each cluster were drawn at random after the scores were
    fixed (`luck`).
    """

    auc: Figure
    balanced: float
    at_hundredth: Figure
    at_thousandth: Figure
    false_positives: Float[Tensor, " t"]
    true_positives: Float[Tensor, " t"]
    units: int = 0
    clusters: int = 0
    luck: float = 1.0


def membership(
    scores: Float[Tensor, " n"],
    members: Bool[Tensor, " n"],
    *,
    clusters: Int[Tensor, " n"] | None = None,
    tied: bool = False,
    seed: int = 0,
    draws: int = 1000,
) -> Membership:
    """Figures of scores against the truth.

    Args:
        clusters: which samples hang together (those of one client). Members are compared with the
            others of their own cluster only (clusters weighted as in van Elteren's test, 1960), so
            that what makes a cluster differ from others decides nothing, and intervals are over
            clusters: of the area as `clustered_mean` has them, of rates from clusters drawn anew,
            or under ten of them from their rates. Of rates they hold the truth in 84 to 93 % of
            cases where clusters differ much. None: samples are independent; where all samples of a
            cluster have the same truth, reduce it to one number first (`reduced`).
        tied: the scores of all clusters are centred in each of several looks, and half of the
            clusters are members in it: then areas of clusters hang together, and those of two say
            the same.

    Raises:
        ValueError: a score is no number, or there are no members or no others.

    >>> told = membership(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([True, True, False]))
    >>> told.auc.value, str(told.at_hundredth)
    (1.0, 'too few samples')
    """
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{int((~torch.isfinite(scores)).sum())} scores are no numbers.")
    if not bool(members.any()) or bool(members.all()):
        raise ValueError(
            f"{int(members.sum())} of {len(members)} are members: nothing is ranked without both."
        )
    inside, outside = scores[members].double().numpy(), scores[~members].double().numpy()
    fpr, tpr = _roc(inside, outside)
    if clusters is None:
        auc = auc_figure(_auc(inside, outside), len(inside), len(outside))
        drawn, k = None, len(scores)
    else:
        names, at = torch.unique(clusters, return_inverse=True)
        ins, outs = at[members].numpy(), at[~members].numpy()
        k = len(names)
        auc = _clustered_auc(inside, outside, ins, outs, k, tied)
        drawn = (multiplicities(k, seed + 1, draws if k >= FEW else 0), ins, outs)
    return Membership(
        auc=auc,
        balanced=float(np.max((tpr + 1 - fpr) / 2)),
        at_hundredth=_at(0.01, inside, outside, drawn),
        at_thousandth=_at(0.001, inside, outside, drawn),
        false_positives=torch.from_numpy(np.append(0.0, fpr)).float(),
        true_positives=torch.from_numpy(np.append(0.0, tpr)).float(),
        units=len(scores),
        clusters=k,
        luck=_luck(scores, members, clusters, tied),
    )


def null_membership(
    scores: Float[Tensor, " n"],
    members: Bool[Tensor, " n"],
    *,
    clusters: Int[Tensor, " n"] | None = None,
    tied: bool = False,
    seed: int = 0,
) -> Membership:
    """The control: the same scores against memberships dealt out at random (within each cluster),
    which must score chance.
    """
    rng = torch.Generator().manual_seed(seed + 7919)
    order = torch.randperm(len(members), generator=rng)
    if clusters is not None:  # a permutation that keeps to the clusters
        shuffled = order[clusters[order].argsort(stable=True)]
        home = clusters.argsort(stable=True)
        order = torch.empty_like(order).scatter_(0, home, shuffled)
    return membership(scores, members[order], clusters=clusters, tied=tied, seed=seed)


def reduced(
    scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"], clusters: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " k"], Bool[Tensor, " k"]]:
    """One mean score and one truth for each cluster whose scores all have the same truth: several
    looks at one client, or at one run, are no several clients.

    >>> looks = torch.tensor([1.0, 3.0, 5.0])
    >>> reduced(looks, torch.tensor([True, True, False]), torch.tensor([7, 7, 8]))
    (tensor([2., 5.]), tensor([ True, False]))
    """
    names, at = torch.unique(clusters, return_inverse=True)
    count = torch.bincount(at, minlength=len(names))
    mean = torch.zeros(len(names), dtype=scores.dtype).index_add(0, at, scores) / count
    of = torch.zeros(len(names)).index_add(0, at, truth.float()) / count
    return mean, of > 0.5


def _auc(inside: Floats, outside: Floats) -> float:
    """The chance that a member scores above a non-member, ties by half."""
    return float(_wins(inside, np.sort(outside)).mean() / len(outside))


def _wins(inside: Floats, ordered: Floats) -> Floats:
    """How many of the ordered non-members each member beats, ties by half."""
    below = np.searchsorted(ordered, inside, side="left")
    upto = np.searchsorted(ordered, inside, side="right")
    wins: Floats = (below + upto) / 2
    return wins


def _roc(inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    tpr = np.searchsorted(np.sort(-inside), -thresholds, side="right") / len(inside)
    fpr = np.searchsorted(np.sort(-outside), -thresholds, side="right") / len(outside)
    return fpr, tpr


def _clustered_auc(
    inside: Floats, outside: Floats, ins: Ints, outs: Ints, k: int, tied: bool
) -> Figure:
    m, n = (np.bincount(of, minlength=k).astype(np.float64) for of in (ins, outs))
    at = ((m > 0) & (n > 0)).nonzero()[0]
    if not len(at):
        return Figure(float("nan"))
    each = np.array([_auc(inside[ins == c], outside[outs == c]) for c in at])
    m, n = m[at], n[at]
    weights = m * n / (m + n + 1)
    found = clustered_mean(each, weights, units=int((m + n).sum()), within=(0.0, 1.0))
    alone = _stratified(found.value, m, n, weights, tied)
    if len(at) == 1 or bool((each == each[0]).all()):  # samples are all that there is to go by
        return alone
    more = math.sqrt(_more(len(at), tied) / (1 - _alike(len(at), tied)))
    low, high = (found.value + more * (end - found.value) for end in (found.low, found.high))
    # clusters that agree, as all do at an AUC of 1, and few areas of few pairs, which are no normal
    # ones: then samples of each cluster, of whom members were drawn at random, must say so too
    if len(at) < FEW or high - low < (alone.high - alone.low) / 2:
        low, high = min(low, alone.low), max(high, alone.high)
    return Figure(found.value, max(0.0, low), min(1.0, high))


def _stratified(value: float, m: Floats, n: Floats, weights: Floats, tied: bool) -> Figure:
    """The interval of an area that is a mean over clusters of so many independent members and
    others [k]. Only pairs of one cluster are compared: all together are worth as many samples as
    have, at .5, the variance of van Elteren's test, 1 / (12 sum of the weights).
    """
    worth = float(weights.sum()) / _more(len(m), tied)
    inside, outside = float(m.sum()), float(n.sum())
    pairs, both = inside * outside, worth * (inside + outside)
    share = (both + math.sqrt(both**2 + 4 * pairs * worth)) / (2 * pairs)
    step = float((weights / (m * n)).min() / weights.sum())
    return auc_figure(value, share * inside, share * outside, step=step)


def _alike(k: int, tied: bool) -> float:
    """The correlation of areas of k clusters whose scores are centred in each look, and of whom
    half are members in it.
    """
    return 1 / (k - 1) ** 2 if tied and k > 2 else 0.0


def _more(k: int, tied: bool) -> float:
    """How many times the variance of independent clusters that is: two that are tied are one."""
    return k / (k - 1) if tied and k > 1 else 1.0


def _luck(
    scores: Float[Tensor, " n"],
    members: Bool[Tensor, " n"],
    clusters: Int[Tensor, " n"] | None,
    tied: bool,
) -> float:
    """How likely area and rates, the best of them, would be so high, if who is a member had been
    drawn at random within each cluster: then nothing hangs on how scores of one cluster hang
    together, nor on how many clusters there are.

    Of the area it is van Elteren's test (1960), of a rate the hypergeometric one: of so many
    samples above the threshold at most so few are others (where clusters have unlike shares of
    members, in the whole only). Bonferroni's correction is for these three.
    """
    from scipy.stats import hypergeom

    at = torch.zeros(len(scores), dtype=torch.int64)
    if clusters is not None:
        at = torch.unique(clusters, return_inverse=True)[1]
    order, who, home = (part.numpy() for part in (scores.double(), members, at))
    above, variance, asked = 0.0, 0.0, 0
    for number in range(int(home.max()) + 1):
        here = home == number
        inside, outside = order[here & who], order[here & ~who]
        m, n = len(inside), len(outside)
        if m and n:
            above += (_auc(inside, outside) - 0.5) * m * n / (m + n + 1)
            variance += m * n / (12 * (m + n + 1))
            asked += 1
    variance *= _more(asked, tied)
    found = [float(ndtr(-above / variance**0.5))] if variance else []
    inside, outside = order[who], order[~who]
    shares = np.bincount(home, weights=who) / np.bincount(home)
    even = clusters is None or float(shares.max() - shares.min()) < EVEN
    for rate in (0.01, 0.001):
        if even and len(outside) * rate >= 1:
            among = int(rate * len(outside))
            hits = int((inside > np.sort(outside)[::-1][among]).sum())
            found.append(float(hypergeom.cdf(among, len(scores), len(outside), hits + among)))
    return min([1.0, *(3 * chance for chance in found)])


def _redrawn(rate: float, inside: Floats, outside: Floats) -> tuple[float, float]:
    """The ends of a rate's interval where the threshold is not known either: so many of the others
    are above the true one as a binomial law says.
    """
    rng = np.random.default_rng(0)
    ordered = np.sort(outside)[::-1]
    above = np.minimum(rng.binomial(len(outside), rate, size=4000), len(outside) - 1)
    beaten = np.searchsorted(np.sort(-inside), -ordered, side="left") / len(inside)
    rates = rng.binomial(len(inside), beaten[above]) / len(inside)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def _at(
    rate: float,
    inside: Floats,
    outside: Floats,
    drawn: tuple[Floats, Ints, Ints] | None,
) -> Figure:
    """True positives where at most ``rate`` of the others are taken for members; with clusters, the
    threshold is found anew in each draw. Few clusters are not drawn: then the interval holds that
    of independent samples, and Student's of the clusters' rates where these differ more.
    """
    if len(outside) * rate < 1:
        return Figure(float("nan"))
    threshold = np.sort(outside)[::-1][int(rate * len(outside))]
    alone = proportion(int((inside > threshold).sum()), len(inside))
    if drawn is None or not len(drawn[0]):
        low, high = _redrawn(rate, inside, outside)
        low, high = min(low, alone.low), max(high, alone.high)
        if drawn is not None:
            rates, count = by_cluster((inside > threshold).astype(np.float64), drawn[1])
            apart = clustered_mean(rates, count, units=len(inside), within=(0.0, 1.0))
            if len(rates) > 1:
                low, high = max(min(low, apart.low), 0.0), min(max(high, apart.high), 1.0)
        return Figure(alone.value, low, high)
    times, ins, outs = drawn
    order = np.argsort(-outside, kind="stable")
    behind = np.cumsum(times[:, outs[order]], axis=1)
    first = (behind > rate * behind[:, -1:]).argmax(axis=1)
    weight = times[:, ins]
    above = inside[None, :] > outside[order][first][:, None]
    rates = (weight * above).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)
    held = np.bincount(ins, minlength=times.shape[1]).astype(np.float64)
    low, high = stretched(rates, alone.value, held)
    return Figure(alone.value, max(min(low, alone.low), 0.0), min(max(high, alone.high), 1.0))
