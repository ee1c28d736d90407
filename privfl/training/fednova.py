"""FedNova (Wang, Liu, Liang, Joshi, Poor 2020): clients that take more steps do not pull the model
harder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from privfl.core import Broadcast, ClientState, Vector
from privfl.training.method import State
from privfl.training.sgd import LocalSGD


@dataclass(frozen=True)
class FedNova(LocalSGD):
    """Local SGD whose delta is divided by |a|_1, the sum of the weights that its gradients have in
    it.

    The server multiplies the aggregate by the aggregated |a|_1, sent as the extra vector ``tau``
    [1]: equation 7 with their tau_eff = sum p_i |a_i|_1. Momentum, Nesterov's too, and prox are
    counted exactly; for plain SGD |a|_1 is the number of steps.

    >>> FedNova().effective_steps(5), round(FedNova(momentum=0.5).effective_steps(2), 3)
    (5.0, 2.5)
    """

    def effective_steps(self, steps: int, round: int = 0) -> float:
        """|a|_1: how far this optimiser goes in units of lr when every gradient is 1 (their section
        3 and appendix, for any mix).
        """
        lr, velocity, way = self.rate(round), 0.0, 0.0
        for _ in range(steps):
            gradient = 1.0 - self.prox * lr * way
            velocity = self.momentum * velocity + gradient
            way += gradient + self.momentum * velocity if self.nesterov else velocity
        return way

    def parts(self, d: int) -> Mapping[str, int]:
        """The sum |a|_1."""
        return {"tau": 1}

    def hand_out(
        self, delta: Vector, broadcast: Broadcast, state: ClientState, steps: int
    ) -> tuple[Mapping[str, Vector], ClientState]:
        """Normalise the delta; |a|_1 goes beside it."""
        tau = self.effective_steps(steps, broadcast.version)
        delta.div_(tau)
        return {"tau": torch.tensor([tau])}, state

    def combine(
        self, aggregate: Vector, aux: Mapping[str, Vector], state: State, cohort_fraction: float
    ) -> tuple[Vector, State]:
        """The aggregated direction times the aggregated |a|_1."""
        return aggregate * aux["tau"].to(aggregate.device), state
