"""What an accountant is asked about: one kind of release, with everything that changes its price
and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from privfl.core import Charge, ConfigError, NeighbourRelation, Scheme, require, unknown
from privfl.dp.joint import farther

Accountant: TypeAlias = Literal["rdp", "pld", "moments", "zcdp", "basic", "advanced"]


@dataclass(frozen=True, slots=True)
class Release:
    """A mechanism with its numbers, how its contributions were drawn, and the relation under which
    its sensitivity was taken.

    ``noise_multiplier`` of a Gaussian is sigma over the sensitivity UNDER THE RELATION, of one
    contribution. ``group`` is how many contributions neighbours differ in; it is priced of
    Gaussians under Poisson sampling, where records come, go or become zero (`accounting.mixture`),
    and folded into the noise multiplier where nothing is sampled.

    Raises:
        ConfigError: a rate outside of (0, 1]; a fixed-size sample with neighbours of different
            size; a group that cannot be priced.

    >>> Release.gaussian(1.1, rate=0.01).parameter("noise_multiplier")
    1.1
    """

    mechanism: str
    parameters: tuple[tuple[str, int | float], ...]
    scheme: Scheme = "poisson"
    rate: int | float = 1.0
    relation: NeighbourRelation = "add_remove"
    group: int = 1

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
        require.at_least(1, group=self.group)
        if self.group > 1 and not self.grouped(self.mechanism, self.scheme, self.relation):
            raise ConfigError(
                f"a group of {self.group} is priced for Gaussian noise under Poisson sampling and"
                f" add_remove or zero_out, and this is {self.mechanism} under {self.scheme} and"
                f" {self.relation}: multiply its sensitivity instead."
            )

    @staticmethod
    def grouped(mechanism: str, scheme: Scheme, relation: NeighbourRelation) -> bool:
        """Whether it is known what sampling saves a group."""
        return (mechanism, scheme) == ("gaussian", "poisson") and relation != "replace_one"

    @classmethod
    def gaussian(
        cls,
        noise_multiplier: int | float,
        scheme: Scheme = "poisson",
        rate: int | float = 1.0,
        relation: NeighbourRelation = "add_remove",
        group: int = 1,
    ) -> Release:
        """A Gaussian release, sigma over the sensitivity of one contribution under the relation.

        >>> Release.gaussian(6.0, group=3) == Release.gaussian(2.0)
        True
        """
        if not noise_multiplier >= 0 or math.isinf(noise_multiplier):
            raise ConfigError(
                "noise_multiplier must be a finite number of at least 0, and is"
                f" {noise_multiplier}."
            )
        if rate == 1:  # all of a group is there
            noise_multiplier, group = noise_multiplier / group, 1
        stated = (("noise_multiplier", float(noise_multiplier)),)
        return cls("gaussian", stated, scheme, rate, relation, group)

    @classmethod
    def of(cls, charge: Charge) -> Release:
        """What a charge was for. An adversary who sees who takes part gains nothing from sampling,
        so there the rate is 1. Where it is not known what sampling saves a group, it saves nothing:
        all of the group may be there, and the vector moves so many times as far.
        """
        drawn, event = charge.sampling, charge.event
        visible = not charge.cohort_hidden or drawn.scheme in ("all", "shuffled", "arrival")
        grouped = cls.grouped(event.mechanism, drawn.scheme, charge.relation)
        if visible or drawn.rate == 1 or (drawn.group > 1 and not grouped):
            scheme: Scheme = "all" if visible or drawn.group > 1 else drawn.scheme
            rate, group = 1.0, 1
            event = farther(event, drawn.group)
        else:
            scheme, rate, group = drawn.scheme, drawn.rate, drawn.group
        parameters = tuple(sorted((name, float(value)) for name, value in event.parameters.items()))
        return cls(event.mechanism, parameters, scheme, rate, charge.relation, group)

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
