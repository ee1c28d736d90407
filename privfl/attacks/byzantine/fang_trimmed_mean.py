"""Local model poisoning of the trimmed mean and the median (Fang, Cao, Jia, Gong 2020, sections 3.3
and 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.honest_estimate import Sees, honest_estimate
from privfl.attacks.byzantine.search import most_harm
from privfl.core import Knows, Path, RoundKnowledge, UpdatePoison, require

TRIES = 20


@dataclass(frozen=True, slots=True)
class FangTrimmedMean(UpdatePoison):
    """Send, in every coordinate, values just beyond the honest ones, on the side that the mean
    update does not go to (Fang et al. 2020).

    Full knowledge (section 3.3): where the mean grows, uniform on [min / b, min], or on [b min,
    min] where min < 0; where it falls, uniform on [max, b max], or on [max, max / b] where max < 0.
    Partial knowledge (``sees="own"``): uniform on [mu - 4 sigma, mu - 3 sigma], mirrored. min, max,
    mu, sigma are of models, as in the paper, or of ``updates``; against medians it is the same
    attack. Where a bound or an encoding changes rows on their way, they are moved towards or away
    from the honest mean until what arrives does most harm (``adaptive=False``: never).

    Seat: updates, in collusion. Knows all honest updates, or its own; takes the server's rule to be
    a trimmed mean or a median.

    >>> from privfl.core import RoundPlan, Rows
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, (1, 2, 3), d=1, l2=9.0),
    ...     torch.tensor([10.0]),
    ...     benign=Rows.of([[1.0], [2.0]]),
    ... )
    >>> sent = known.before + FangTrimmedMean().poison_updates(
    ...     torch.ones(1, 1), known, torch.Generator()
    ... )
    >>> bool(5.5 <= sent <= 11.0)
    True
    """

    b: float = 2.0
    sees: Sees = "benign"
    of: Literal["models", "updates"] = "models"
    adaptive: bool = True

    def __post_init__(self) -> None:
        require.at_least(1, b=self.b)

    @property
    def knows(self) -> Knows:
        """All honest updates, or its own."""
        return self.sees

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Values beyond the honest ones, drawn for every attacker and coordinate [f, d]."""
        honest = honest_estimate("FangTrimmedMean", self.sees, own, knowledge)
        seen = honest if self.sees == "own" else torch.cat([honest, own])
        grows = seen.mean(dim=0) > 0
        start = knowledge.before if self.of == "models" else torch.zeros_like(knowledge.before)
        values = start + honest
        if self.sees == "own":
            sigma, mu = torch.std_mean(values, dim=0, correction=0)
            low = torch.where(grows, mu - 4 * sigma, mu + 3 * sigma)
            high = torch.where(grows, mu - 3 * sigma, mu + 4 * sigma)
        else:
            least, most = values.amin(dim=0), values.amax(dim=0)
            low = torch.where(grows, torch.where(least > 0, least / self.b, least * self.b), most)
            high = torch.where(grows, least, torch.where(most > 0, most * self.b, most / self.b))
        rows = low + (high - low) * torch.rand(own.shape, generator=rng).to(own) - start
        if not self.adaptive or knowledge.path is None:
            return rows
        return _arriving(rows, honest, knowledge.path)


def _arriving(
    rows: Float[Tensor, "f d"], honest: Float[Tensor, "h d"], path: Path
) -> Float[Tensor, "f d"]:
    """The rows themselves where they arrive as they are; else, between the honest mean and them,
    those that move the trimmed mean of what arrives farthest against the honest direction.
    """
    mu, f = honest.mean(dim=0), len(rows)
    if torch.equal(path.sent(rows), rows):
        return rows

    def harm(factor: float) -> float:
        seen = torch.cat([honest, path.sent(mu + factor * (rows - mu))]).sort(dim=0).values
        kept = seen[f : len(seen) - f] if len(seen) > 2 * f else seen
        return -float(kept.mean(dim=0) @ mu)

    factor, _ = most_harm(harm, 1.0, TRIES)
    return mu + factor * (rows - mu)
