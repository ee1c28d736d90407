"""CRFL (Xie, Chen, Chen, Li 2021): clip and smooth the global model every round, and certify what
backdoors cannot change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from privfl.aggregators.base import After
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Context, Examples, Released, Vector, norm, require

ClipSchedule = Callable[[int], float]


def growing(round: int) -> float:
    """The authors' schedule on MNIST: 0.1 t + 2."""
    return 0.1 * round + 2


@dataclass(frozen=True, slots=True)
class CRFL(After[None]):
    """After the rule, clip the model to norm rho_t and, in all but the last round, add N(0,
    sigma^2) noise (Algorithm 1).

    The last model is smoothed where it is used: `certify` takes the votes of many noisy copies.
    What is guaranteed: their majority is the same as without the attack, if the backdoor stays
    within `certified_radius`. Noise is from the run's simulation randomness.

    >>> from privfl.core import RoundPlan
    >>> context = Context(
    ...     RoundPlan(0, (1,), d=2, l2=1.0), torch.tensor([3.0, 0.0]), torch.Generator()
    ... )
    >>> CRFL(rounds=1).after(Released(torch.tensor([0.0, 4.0])), None, context)[0]
    tensor([-1.8000,  1.6000])
    """

    examples: ClassVar[Examples] = {"": {"rounds": 3}}

    rounds: int
    sigma: float = 0.01
    bound: ClipSchedule = growing

    def __post_init__(self) -> None:
        require.at_least(1, rounds=self.rounds)
        require.positive(sigma=self.sigma)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def judge_after(
        self, released: Released, state: None, context: Context
    ) -> tuple[Verdict[Vector], None]:
        """The change that leads to the clipped and smoothed model."""
        vector = released.vector
        model = context.parameters + vector
        length, most = norm(model), self.bound(context.plan.number)
        clipped = length > most
        out = model * (most / length) - context.parameters if clipped else vector
        noisy = context.plan.number + 1 < self.rounds
        if noisy:
            out = out + torch.randn(len(out), generator=context.rng).to(out) * self.sigma
        return (
            Verdict(
                out,
                touched=len(out) if clipped or noisy else 0,
                scores={"norm": torch.tensor(length)},
            ),
            None,
        )


@dataclass(frozen=True, slots=True)
class Poisoner:
    """One attacker: its share p of the aggregate, scale factor gamma, local steps tau, learning
    rate eta, poisoned share q/n of a batch.
    """

    share: float
    scale: float
    steps: int
    rate: float
    poisoned: float


def certify(votes: Int[Tensor, " classes"], alpha: float = 0.001) -> tuple[int, float, float]:
    """The majority class of M smoothed votes, a lower bound of its probability, an upper bound of
    the runner-up's (Hoeffding, 1 - alpha).

    Raises:
        ConfigError: no votes, or fewer than 2 classes.

    >>> certify(torch.tensor([990, 10]))[0]
    0
    """
    total = int(votes.sum())
    if total < 1 or len(votes) < 2:
        raise ConfigError(
            f"a certificate needs votes among at least 2 classes, and got {total} among"
            f" {len(votes)}."
        )
    slack = math.sqrt(math.log(1 / alpha) / (2 * total))
    top = votes.to(torch.float64).sort(descending=True).values / total
    return int(votes.argmax()), float(top[0]) - slack, min(float(top[1]) + slack, 1.0)


def certified_radius(
    p_a: float,
    p_b: float,
    *,
    sigma: float,
    lipschitz: float,
    attackers: Sequence[Poisoner],
    later: Sequence[tuple[float, float]],
) -> float | None:
    """The largest backdoor (L2, a sample) that cannot change the majority (Theorem 1 with its
    corollary), or None: abstain.

    RAD^2 = -ln(1 - (sqrt(p_a) - sqrt(p_b))^2) sigma^2 / (2 R L^2 S P), with S the sum over
    attackers of (p gamma tau eta q)^2 and P the product over later rounds of 2 Phi(rho_t / sigma_t)
    - 1.

    Args:
        p_a, p_b: bounds from `certify`; p_a <= p_b certifies nothing.
        sigma: the noise in the round of the attack.
        lipschitz: L, of the loss's gradient in the data.
        attackers: who poisoned.
        later: (rho_t, sigma_t) of every round after the attack.

    >>> certified_radius(
    ...     0.2,
    ...     0.6,
    ...     sigma=0.01,
    ...     lipschitz=1.0,
    ...     attackers=[Poisoner(0.1, 10, 5, 0.1, 0.2)],
    ...     later=[],
    ... ) is None
    True
    """
    if p_a <= p_b or p_a <= 0:
        return None
    gap = (math.sqrt(min(p_a, 1)) - math.sqrt(max(p_b, 0))) ** 2
    if gap >= 1:
        return math.inf
    reach = sum((a.share * a.scale * a.steps * a.rate * a.poisoned) ** 2 for a in attackers)
    kept = math.prod(
        math.erf(rho / (s * math.sqrt(2))) for rho, s in later
    )  # 2 Phi(x) - 1 = erf(x / sqrt 2)
    harm = 2 * len(attackers) * lipschitz**2 * reach * kept
    return math.sqrt(-math.log(1 - gap) * sigma**2 / harm) if harm > 0 else math.inf
