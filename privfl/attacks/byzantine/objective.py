"""What optimised attacks maximise, and on what of their rows: those that arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from privfl.core import ConfigError, RoundKnowledge, Vector

Deviation: TypeAlias = Literal["distance", "direction", "accuracy"]
"""How far the rule's result is from the honest mean, how far against its direction, or how bad the
model is after it on the attackers' own data.
"""


def deviation(
    objective: Deviation, mu: Vector, knowledge: RoundKnowledge
) -> Callable[[Vector], float]:
    """The harm of a result [d] of the server's where the honest mean is ``mu`` [d].

    ``distance`` is ||result - mu|| (Shejwalkar, Houmansadr 2021, equation 2). ``direction`` is
    -<result, mu> / ||mu||: how far the model goes back along the way that the honest clients went.
    ``accuracy`` is the loss of the model after the round on the attackers' own data. Under a bound
    on lengths they differ: far away across the honest direction costs the model little.

    Raises:
        ConfigError: ``accuracy``, and the attackers know no data.

    >>> import torch
    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1, 2), d=2, l2=9.0), torch.zeros(2))
    >>> deviation("direction", torch.tensor([1.0, 0.0]), known)(torch.tensor([-3.0, 9.0]))
    3.0
    """
    if objective == "distance":
        return lambda result: float((result - mu).norm())
    if objective == "direction":
        length = max(float(mu.norm()), 1e-30)
        return lambda result: -float(result @ mu) / length
    loss = knowledge.loss
    if loss is None:
        raise ConfigError(
            "harm 'accuracy' needs data of the attackers' own to measure on: use 'distance'"
            " or 'direction'."
        )
    return lambda result: loss(knowledge.before + knowledge.rate * result)


def arriving(knowledge: RoundKnowledge, adaptive: bool) -> Callable[[Vector], Vector]:
    """What arrives of a candidate [d]: after the client half and the encoding where the attack is
    adaptive and knows its path, and the candidate itself where it is naive.
    """
    arrive = rows_arriving(knowledge, adaptive)
    return lambda row: arrive(row[None])[0]


def rows_arriving(
    knowledge: RoundKnowledge, adaptive: bool
) -> Callable[[Float[Tensor, "f d"]], Float[Tensor, "f d"]]:
    """The same of rows side by side, one of each attacker or one that all of them send."""
    path = knowledge.path
    return (lambda rows: rows) if path is None or not adaptive else path.sent
