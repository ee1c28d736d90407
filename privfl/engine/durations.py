"""How long clients take to train, in simulated time: what an asynchronous run's order of arrival
comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import torch

from privfl.core import ClientId, ConfigError, require, unknown

Law: TypeAlias = Literal["equal", "half_normal", "exponential"]
"""How long a task takes: always 1; the absolute value of a standard Gaussian (Nguyen et al. 2022);
exponential with mean 1.
"""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long one task takes: a draw from ``law``, over the client's entry in ``speeds`` (1 where
    it has none). Times hang on nobody's data.

    Raises:
        ConfigError: no such law, or a speed that is not above 0 and finite.

    >>> Durations("equal", {3: 2.0}).draw(3, torch.Generator())
    0.5
    """

    law: Law = "half_normal"
    speeds: Mapping[ClientId, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.law not in get_args(Law):
            raise ConfigError(unknown("law of durations", self.law, get_args(Law)))
        for client, speed in self.speeds.items():
            require.positive(**{f"speeds of client {client}": speed})
            require.finite(**{f"speeds of client {client}": speed})

    def draw(self, client: ClientId, rng: torch.Generator) -> float:
        """The time that one task of this client takes."""
        took = 1.0
        if self.law == "half_normal":
            took = abs(float(torch.randn((), generator=rng, dtype=torch.float64)))
        elif self.law == "exponential":
            took = -float(torch.rand((), generator=rng, dtype=torch.float64).neg().log1p())
        return took / self.speeds.get(client, 1.0)
