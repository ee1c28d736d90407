"""Mimic: all attackers echo one honest client, so that the others' data count less (Karimireddy,
He, Jaggi 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import ClientId, Knows, RememberingPoison, RoundKnowledge, Vector, require


@dataclass(frozen=True, slots=True)
class Watching:
    """What the attackers learnt: the direction z [d] of greatest spread, the running mean [d],
    rounds seen, whom they settled on.
    """

    z: Vector | None = None
    mean: Vector | None = None
    rounds: int = 0
    chosen: ClientId | None = None


@dataclass(frozen=True, slots=True)
class Mimic(RememberingPoison[Watching]):
    """Copy one honest client for good: the one farthest along the direction in which honest updates
    differ most.

    For ``warm_up`` rounds z follows the top eigenvector of the honest updates' covariance by Oja's
    rule, z <- norm(t / (1 + t) z + 1 / (1 + t) sum_i (u_i - m)(u_i - m)^T z) with m the running
    mean, and the attackers copy argmax <z, u_i>; the client of the last such round stays the chosen
    one (Karimireddy, He, Jaggi 2022: Byzantine-robust learning on heterogeneous datasets via
    bucketing, appendix B). Where it is not in a cohort, the attackers copy the present client that
    lies farthest along z.

    Seat: updates, in collusion, with memory. Knows all honest updates. The rows sent are honest
    ones: no distance reveals them.

    >>> from privfl.core import RoundPlan, Rows
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, (0, 1, 2, 3), d=1, l2=9.0),
    ...     torch.zeros(1),
    ...     benign=Rows.of([[1.0], [2.0], [9.0]]),
    ... )
    >>> attack, rng = Mimic(), torch.Generator().manual_seed(0)
    >>> sent, _ = attack.poison_and_remember(torch.ones(1, 1), known, attack.init(), rng)
    >>> float(sent) in (1.0, 9.0)
    True
    """

    warm_up: int = 20

    def __post_init__(self) -> None:
        require.at_least(1, warm_up=self.warm_up)

    @property
    def knows(self) -> Knows:
        """All honest updates."""
        return "benign"

    def init(self) -> Watching:
        """Nothing seen yet."""
        return Watching()

    def poison_and_remember(
        self,
        own: Float[Tensor, "f d"],
        knowledge: RoundKnowledge,
        memory: Watching,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "f d"], Watching]:
        """One honest row, once for each attacker [f, d], and what was learnt."""
        benign = knowledge.honest("Mimic")
        ids = benign.ids or tuple(range(benign.n))
        z, learnt = memory.z, memory
        if memory.chosen is None or z is None:
            learnt = self._watch(benign.values, memory, rng)
            z = learnt.z if learnt.z is not None else torch.zeros(benign.d)
        farthest = int((benign.values @ z).argmax())
        if memory.chosen is not None and memory.chosen in ids:
            farthest = ids.index(memory.chosen)
        if memory.chosen is None and learnt.rounds >= self.warm_up:
            learnt = Watching(learnt.z, learnt.mean, learnt.rounds, ids[farthest])
        return benign.values[farthest].expand(own.shape).clone(), learnt

    def _watch(
        self, honest: Float[Tensor, "h d"], memory: Watching, rng: torch.Generator
    ) -> Watching:
        """One step of the estimate."""
        t = memory.rounds
        now = honest.mean(dim=0)
        mean = now if memory.mean is None else (t * memory.mean + now) / (1 + t)
        z = torch.randn(honest.shape[1], generator=rng).to(honest) if memory.z is None else memory.z
        apart = honest - mean
        z = t / (1 + t) * z + (apart.T @ (apart @ z)) / (1 + t)
        return Watching(z / z.norm().clamp(min=1e-30), mean, t + 1)
