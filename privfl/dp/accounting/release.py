"""What an accountant is asked about: one kind of release, with everything that changes its price
and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from privfl.core import Charge, ConfigError, NeighbourRelation, Scheme, unknown

Accountant: TypeAlias = Literal["rdp", "pld", "moments", "zcdp", "basic", "advanced"]


@dataclass(frozen=True, slots=True)
class Release:
    """A mechanism with its numbers, how its contributions were drawn, and the relation under which
    its sensitivity was taken.

    ``noise_multiplier`` of a Gaussian is sigma over the sensitivity UNDER THE RELATION.

    Raises:
        ConfigError: a rate outside of (0, 1]; a fixed-size sample with neighbours of different
            size.

    >>> Release.gaussian(1.1, rate=0.01).parameter("noise_multiplier")
    1.1
    """

    mechanism: str
    parameters: tuple[tuple[str, int | float], ...]
    scheme: Scheme = "poisson"
    rate: int | float = 1.0
    relation: NeighbourRelation = "add_remove"

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"sample_rate must lie in (0, 1], and is {self.rate}.")
        if self.scheme not in get_args(Scheme):
            raise ConfigError(unknown("sampler", self.scheme, get_args(Scheme)))
        if self.relation not in get_args(NeighbourRelation):
            raise ConfigError(unknown("relation", self.relation, get_args(NeighbourRelation)))
        if self.scheme == "fixed_size" and self.relation == "add_remove":
            raise ConfigError(
                "a fixed-size sample has no add_remove neighbours (its size would change): use"
                " relation 'replace_one'."
            )

    @classmethod
    def gaussian(
        cls,
        noise_multiplier: int | float,
        scheme: Scheme = "poisson",
        rate: int | float = 1.0,
        relation: NeighbourRelation = "add_remove",
    ) -> Release:
        """A Gaussian release, sigma over the sensitivity under the relation."""
        if not noise_multiplier >= 0 or math.isinf(noise_multiplier):
            raise ConfigError(
                "noise_multiplier must be a finite number of at least 0, and is"
                f" {noise_multiplier}."
            )
        return cls(
            "gaussian", (("noise_multiplier", float(noise_multiplier)),), scheme, rate, relation
        )

    @classmethod
    def of(cls, charge: Charge) -> Release:
        """What a charge was for. An adversary who sees who takes part gains nothing from sampling,
        so there the rate is 1.
        """
        parameters = tuple(
            sorted((name, float(value)) for name, value in charge.event.parameters.items())
        )
        visible = not charge.cohort_hidden or charge.sampling.scheme in ("all", "shuffled")
        scheme, rate = ("all", 1.0) if visible else (charge.sampling.scheme, charge.sampling.rate)
        return cls(charge.event.mechanism, parameters, scheme, rate, charge.relation)

    def parameter(self, name: str) -> float:
        """One number of the mechanism.

        Raises:
            ConfigError: the event does not state it.
        """
        for known, value in self.parameters:
            if known == name:
                return value
        raise ConfigError(
            f"an event '{self.mechanism}' must state {name}, and states"
            f" {[known for known, _ in self.parameters]}."
        )

    @property
    def z(self) -> float:
        """A Gaussian's sigma over the farthest that two of its worlds lie apart.

        A fixed-size sample that lacks the record has another one in its place, so even a zeroed
        record moves it by 2C.
        """
        stated = self.parameter("noise_multiplier")
        return (
            stated / 2
            if self.scheme == "fixed_size" and self.relation == "zero_out" and self.amplified
            else stated
        )

    @property
    def amplified(self) -> bool:
        """Whether sampling makes it cheaper."""
        return self.scheme in ("poisson", "fixed_size") and self.rate < 1
