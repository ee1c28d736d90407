"""The nouns of differential privacy: how a release was sampled, what noise it carried, whose privacy it charges, and the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from privfl.core.errors import ConfigError
from privfl.core.randomness import NoiseSource
from privfl.core.types import NeighbourRelation, Unit, Vector

Scheme: TypeAlias = Literal["poisson", "fixed_size", "all", "shuffled"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the contributions to one release were drawn: the scheme, the rate in (0, 1], the population it draws from.

    Raises:
        ConfigError: the rate is outside of (0, 1].

    >>> Sampling("poisson", rate=0.1, population=100).rate
    0.1
    """

    scheme: Scheme
    rate: float
    population: int

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"a sampling rate must lie in (0, 1], and is {self.rate}.")


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How far one neighbour moves a vector, by norm; inf where it is not bounded."""

    l2: float
    l1: float = float("inf")
    linf: float = float("inf")


@dataclass(frozen=True, slots=True)
class DpEvent:
    """One noisy release in the vocabulary of an accountant: the mechanism's name and its numbers.

    >>> DpEvent("gaussian", {"noise_multiplier": 1.1}).mechanism
    'gaussian'
    """

    mechanism: str
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Charge:
    """A release charged to somebody: everything that an epsilon claim must state, or it is refused.

    ``subject`` names whose privacy pays: ``"client"`` or ``"sample of client 3"``. ``relation`` is the neighbour relation under
    which the sensitivity was taken. ``uniform`` tells whether every contribution had the same weight, ``public_denominator``
    whether the mean divided by a fixed public number, ``cohort_hidden`` whether the adversary does not learn who took part (only
    then does sampling amplify), ``repeatable_noise`` whether a seed repeats the noise, which voids the claim.
    """

    round: int
    event: DpEvent
    sampling: Sampling
    unit: Unit
    relation: NeighbourRelation
    subject: str = "client"
    uniform: bool = True
    public_denominator: bool = True
    cohort_hidden: bool = True
    repeatable_noise: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Charge:
        """From what `to_json` made."""
        return cls(**{**data, "event": DpEvent(**data["event"]), "sampling": Sampling(**data["sampling"])})


@dataclass(frozen=True, slots=True)
class Ledger:
    """All charges of a run, in order. It only grows.

    >>> len(Ledger().charged(()).charges)
    0
    """

    charges: tuple[Charge, ...] = ()

    def charged(self, charges: tuple[Charge, ...]) -> Ledger:
        """The ledger with these charges added."""
        return Ledger(self.charges + charges)


@runtime_checkable
class Bound(Protocol):
    """What makes an update's norm at most ``l2``."""

    @property
    def l2(self) -> float:
        """The bound; inf where there is none."""
        ...

    def __call__(self, delta: Vector) -> Vector:
        """A vector of norm at most ``l2``; NaN and infinities pass through to be refused by name, never scaled away."""
        ...


@runtime_checkable
class Mechanism(Protocol):
    """Noise in two halves, one of which may be empty; the noise and the event that accounts for it are born together."""

    def share(self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource) -> tuple[Vector, DpEvent | None]:
        """At each client, before encoding: local noise, or its share of noise that ``among`` survivors must add up to."""
        ...

    def release(self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource) -> tuple[Vector, DpEvent | None]:
        """At the server, on the aggregate: central noise; the event of all the noise that is in it."""
        ...
