"""Who takes part in a round; each sampler names the sampling event that privacy accounting rests
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from privfl.core import ClientId, ConfigError, Sampling, require


@runtime_checkable
class Sampler(Protocol):
    """Draws a round's cohort."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """The cohort, in the order of ``clients``."""
        ...

    def sampling(self, population: int) -> Sampling:
        """The event of one draw."""
        ...


@dataclass(frozen=True, slots=True)
class All:
    """Everybody, every round.

    >>> All().draw([1, 2], torch.Generator())
    (1, 2)
    """

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """All clients."""
        return tuple(clients)

    def sampling(self, population: int) -> Sampling:
        """Rate 1."""
        return Sampling("all", 1.0, population)


@dataclass(frozen=True, slots=True)
class FixedSize:
    """``size`` clients, uniformly without replacement.

    Raises:
        ConfigError: there are fewer clients than that.

    >>> len(FixedSize(2).draw(range(5), torch.Generator().manual_seed(0)))
    2
    """

    size: int

    def __post_init__(self) -> None:
        require.at_least(1, size=self.size)

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """A uniform subset of fixed size."""
        self.sampling(len(clients))
        chosen = torch.randperm(len(clients), generator=rng)[: self.size].sort().values
        return tuple(clients[int(i)] for i in chosen)

    def sampling(self, population: int) -> Sampling:
        """Rate size / population, without replacement."""
        if self.size > population:
            raise ConfigError(
                f"sampler.size is {self.size}, and there are only {population} clients."
            )
        return Sampling("fixed_size", self.size / population, population)


@dataclass(frozen=True, slots=True)
class Poisson:
    """Each client by an independent coin of probability ``rate``: a cohort's size varies and may be
    0.

    Raises:
        ConfigError: the rate is outside of (0, 1].

    >>> Poisson(1.0).draw([4, 5], torch.Generator())
    (4, 5)
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"sampler.rate must lie in (0, 1], and is {self.rate}.")

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """Independent coins."""
        heads = torch.rand(len(clients), generator=rng, dtype=torch.float64) < self.rate
        return tuple(client for client, head in zip(clients, heads.tolist(), strict=True) if head)

    def sampling(self, population: int) -> Sampling:
        """Poisson at this rate."""
        return Sampling("poisson", self.rate, population)
