"""Pre-aggregators, which compose with any rule: nearest-neighbour mixing, bucketing, clipping, adaptive robust clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from privfl.aggregators.median_of_means import group_means
from privfl.aggregators.perturb import clipped
from privfl.aggregators.seats import Before, finite_rows
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Rows, require
from privfl.core.geometry import squared_distances, squared_norms


@dataclass(frozen=True, slots=True)
class NearestNeighbourMixing(Before[None]):
    """Replace every row by the mean of its n - f nearest, itself included (Allouah et al. 2023, Algorithm 1: NNM).

    With it, the rules of this package reach the optimal order of robustness under heterogeneous data, where n > 2f. One distance matrix
    and one [n, n] x [n, d] product. Rows that are not finite are nobody's neighbours and pass through, to be met by the rule. Ids and
    weights stay with their rows.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> NearestNeighbourMixing(f=1).before(Rows.of([[0.0], [1.0], [2.0], [99.0]]), None, context)[0].values.T
    tensor([[ 1.,  1.,  1., 34.]])
    """

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The mixed rows.

        Raises:
            TooManyByzantine: n <= 2f.
        """
        require.honest_majority(rule="NearestNeighbourMixing", n=rows.n, f=self.f, at_least=2 * self.f + 1)
        finite = finite_rows(rows.values)
        whole = bool(finite.all())
        values = rows.values if whole else rows.values[finite]
        near = values.new_zeros(len(values), len(values))
        keep = min(rows.n - self.f, len(values))
        if keep:
            nearest = squared_distances(values).argsort(dim=1, stable=True)[:, :keep]
            near.scatter_(1, nearest.to(near.device), 1 / keep)
        mixed = near @ values
        if not whole:
            mixed, part = rows.values.clone(), mixed
            mixed[finite] = part
        return Verdict(Rows(mixed, rows.weights, rows.ids), touched=rows.d if self.f else 0), None


@dataclass(frozen=True, slots=True)
class Bucketing(Before[None]):
    """Means of ``size`` random rows in the rows' place (Karimireddy, He, Jaggi 2022, Algorithm 1).

    Lessens the variance that a rule sees by ``size`` and multiplies the share of bad rows by as much: the rule after it needs
    ceil(n / size) > 2f and its f set for buckets. Buckets are drawn anew every round; the last may be smaller. The rows that come out are
    anonymous and of weight 1, so rules with a memory per client refuse them. A row that is not finite spoils its bucket.

    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> Bucketing(size=2).before(Rows.of([[1.0], [1.0], [1.0]]), None, context)[0].n
    2
    """

    size: int = 2

    def __post_init__(self) -> None:
        require.at_least(1, size=self.size)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The buckets' means."""
        order = torch.randperm(rows.n, generator=context.rng)
        buckets = [order[start : start + self.size] for start in range(0, rows.n, self.size)]
        finite = finite_rows(rows.values)
        if bool(finite.all()):
            means = group_means(rows.values, buckets)
        else:  # in a product, 0 times NaN would spoil every bucket
            means = torch.stack([rows.values[bucket].mean(dim=0) for bucket in buckets])
        return Verdict(Rows(means, torch.ones(len(buckets))), touched=rows.d if self.size > 1 else 0), None


@dataclass(frozen=True, slots=True)
class Clipping(Before[None]):
    """Scale rows longer than ``bound`` down to it: static clipping before a rule. Rows that are not finite pass through.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> Clipping(bound=5.0).before(Rows.of([[30.0, 40.0], [3.0, 0.0]]), None, context)[0].values
    tensor([[3., 4.],
            [3., 0.]])
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        require.positive(bound=self.bound)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The rows, clipped."""
        return clipped(rows, self.bound), None


@dataclass(frozen=True, slots=True)
class AdaptiveRobustClipping(Before[None]):
    """Clip the k = floor(2 f (n - f) / n) longest rows to the length of the next one (Allouah et al. 2025, Algorithm 2: ARC).

    Keeps a rule's robustness, where n > 2f, and bounds what the longest rows add. Rows that are not finite count among the longest and pass
    through, to be met by the rule.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> AdaptiveRobustClipping(f=1).before(Rows.of([[1.0], [2.0], [3.0], [99.0]]), None, context)[0].values.T
    tensor([[1., 2., 3., 3.]])
    """

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The rows, clipped.

        Raises:
            TooManyByzantine: n <= 2f.
        """
        require.honest_majority(rule="AdaptiveRobustClipping", n=rows.n, f=self.f, at_least=2 * self.f + 1)
        norms = squared_norms(rows.values).sqrt().nan_to_num(nan=torch.inf)
        longest = norms.sort(descending=True).values
        bound = float(longest[2 * self.f * (rows.n - self.f) // rows.n])
        return (clipped(rows, bound) if bound < torch.inf else Verdict(rows)), None
