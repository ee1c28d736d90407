"""What a run with adversarial training measures beside its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from privfl.core import Seeds
from privfl.engine import Scenario
from privfl.training import FGSM, PGD, Ball, Climb, FreeAdversarial, LocalSGD, robust_accuracy

PGD_20 = "accuracy under PGD-20"
"""What the figure is called in records and on pages; clean accuracy is the round's own."""
SAMPLES = 1000
"""It is measured on so many of the samples that rounds are measured on, at most."""


@dataclass(frozen=True, slots=True)
class Robust:
    """Accuracy under 20 steps of PGD, in the ball that a training moved its samples in."""

    ball: Ball

    def measures(self, scenario: Scenario, round: int) -> dict[str, float]:
        """Of the model as it is, by name."""
        data = scenario.measured_on
        some = data.take(range(min(SAMPLES, data.n)))
        rng = Seeds(scenario.seed).generator("robust accuracy", round)
        module = scenario.workload.model.module
        return {PGD_20: robust_accuracy(module, some, Climb(self.ball), rng)}


def robust_of(scenario: Scenario) -> Robust | None:
    """What is measured of this run; None where nothing is moved, or by a plugin whose ball is not
    known.
    """
    method = scenario.workload.method
    seat = method.adversarial if isinstance(method, LocalSGD) else None
    if isinstance(seat, PGD | FGSM | FreeAdversarial):
        return Robust(Ball(seat.eps, seat.low, seat.high))
    return None
