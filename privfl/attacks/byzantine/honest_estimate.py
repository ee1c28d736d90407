"""What colluding attackers reckon honest clients to send."""

from __future__ import annotations

from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from privfl.core import RoundKnowledge

Sees: TypeAlias = Literal["own", "benign"]
"""Whether statistics of honest updates come from the attackers' own honest updates, or from
all honest updates of the round.
"""


def honest_estimate(
    attack: str, sees: Sees, own: Float[Tensor, "f d"], knowledge: RoundKnowledge
) -> Float[Tensor, "h d"]:
    """The honest updates that an attack reckons with: those that it may see, or its own before it
    changes them.

    Raises:
        ConfigError: honest updates are withheld, or there are none.
    """
    return own if sees == "own" else knowledge.honest(attack).values


def cohort(sees: Sees, own: Float[Tensor, "f d"], knowledge: RoundKnowledge) -> int:
    """How many rows the server will read."""
    return (
        knowledge.plan.n
        if sees == "own" or knowledge.benign is None
        else knowledge.benign.n + len(own)
    )
