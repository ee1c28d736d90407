"""Who takes part in a round; each sampler names the sampling event that privacy accounting rests
on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import torch

from privfl.core import ClientId, ConfigError, Participation, Sampling, require


@runtime_checkable
class Sampler(Protocol):
    """Draws a round's cohort."""

    __slots__ = ()

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """The cohort, in the order of ``clients``."""
        ...

    def sampling(self, population: int) -> Sampling:
        """The event of one draw."""
        ...

    def at(self, round: int) -> Sampler:
        """A round's own sampler: itself, unless rounds take turns."""
        return self

    def participation(self, rounds: int) -> Participation:
        """How often one client takes part in so many rounds at most, and how far apart."""
        return Participation(rounds, most=rounds)


@dataclass(frozen=True, slots=True)
class All(Sampler):
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
class FixedSize(Sampler):
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
class Poisson(Sampler):
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


@dataclass(frozen=True, slots=True)
class PersonalPoisson(Sampler):
    """Each client by an independent coin of its own class's rate, so that whoever wants to spend
    less is drawn less often (the Sample mechanism: Jorgensen, Yu, Cormode 2015, section 4.2).

    ``rates`` are by class, ``members`` the clients of each; one class may be left out of these, and
    has everybody else. Classes are public. The run claims what the class at the largest rate
    spends, which holds for everybody, and its summary says what each class does
    (`dp.personal`; `dp.personal_rates` finds rates). It is refused where sampling saves nothing.

    Raises:
        ConfigError: a rate outside of (0, 1]; a class without a rate; more than one without
            members; a client in two classes, or in none.

    >>> sampler = PersonalPoisson({"strict": 0.1, "usual": 0.5}, {"strict": [0, 1]})
    >>> sampler.sampling(6).classes, sampler.sampling(6).expected
    ((('strict', 0.1, 2), ('usual', 0.5, 4)), 2.2)
    """

    rates: Mapping[str, float]
    members: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            if not 0 < rate <= 1:
                raise ConfigError(f"sampler.rates.{name} must lie in (0, 1], and is {rate}.")
        strange = sorted(self.members.keys() - self.rates.keys())
        if strange:
            raise ConfigError(f"sampler.members names '{strange[0]}', which has no rate in rates.")
        left = sorted(self.rates.keys() - self.members.keys())
        if len(left) > 1 or not self.rates:
            raise ConfigError(
                f"sampler.members leaves {left} out, and one class at most has everybody else."
            )
        named = [client for members in self.members.values() for client in members]
        if len(set(named)) < len(named):
            raise ConfigError("sampler.members has a client twice: each is in one class.")

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """Independent coins."""
        rates = torch.tensor([self.rates[self.class_of(c)] for c in clients], dtype=torch.float64)
        heads = torch.rand(len(clients), generator=rng, dtype=torch.float64) < rates
        return tuple(client for client, head in zip(clients, heads.tolist(), strict=True) if head)

    def sampling(self, population: int) -> Sampling:
        """Poisson at the largest rate, with the classes."""
        named = {name: len(members) for name, members in self.members.items()}
        rest = population - sum(named.values())
        if rest < 0 or (rest and not self.rates.keys() - named.keys()):
            raise ConfigError(
                f"sampler.members names {population - rest} clients, and there are {population}:"
                " name each once, or leave the members of one class out."
            )
        counts = {name: named.get(name, rest) for name in self.rates}
        there = tuple((name, self.rates[name], n) for name, n in counts.items() if n)
        rate = max(rate for _, rate, _ in there)
        return Sampling("poisson", rate, population, classes=there)

    def class_of(self, client: ClientId) -> str:
        """A client's class.

        Raises:
            ConfigError: it has none.
        """
        for name, members in self.members.items():
            if client in members:
                return name
        left = sorted(self.rates.keys() - self.members.keys())
        if not left:
            raise ConfigError(f"client {client} is in no class of sampler.members.")
        return left[0]


@dataclass(frozen=True, slots=True)
class Separated(Sampler):
    """Clients take turns, by a public schedule: round t takes all whose id is t modulo ``apart``,
    so that a client comes back after ``apart`` rounds, and ``most`` times at most (Kairouz et al.
    2021; Choquette-Choo et al. 2023, fixed-epoch-order participation).

    A client's turn hangs on its own id alone. Nothing is amplified, for everybody knows who takes
    part; noise that hangs together over rounds (`dp.Correlated`) needs no more.

    Raises:
        ConfigError: a number under 1, fewer clients than turns, or more rounds than ``most`` turns
            of everybody are.

    >>> Separated(apart=2).at(1).draw(range(5), torch.Generator())
    (1, 3)
    >>> Separated(apart=2).participation(rounds=5)
    Participation(rounds=5, most=3, apart=2, rate=1.0)
    """

    apart: int
    most: int | None = None
    turn: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        require.at_least(1, apart=self.apart, most=1 if self.most is None else self.most)

    def at(self, round: int) -> Separated:
        """The sampler of the round's turn."""
        return _in_turn(self, round % self.apart)

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """Those whose turn it is."""
        return tuple(client for client in clients if client % self.apart == self.turn)

    def sampling(self, population: int) -> Sampling:
        """Once in ``apart`` rounds, without amplification."""
        _require_turns(self.apart, population)
        return Sampling("shuffled", 1 / self.apart, population)

    def participation(self, rounds: int) -> Participation:
        """Every ``apart`` rounds."""
        if self.most is not None and rounds > self.most * self.apart:
            raise ConfigError(
                f"{rounds} rounds in turns of {self.apart} take a client"
                f" {-(-rounds // self.apart)} times, and sampler.most is {self.most}: raise most or"
                " apart, or lower rounds."
            )
        return Participation(rounds, -(-rounds // self.apart), self.apart)


@dataclass(frozen=True, slots=True)
class CyclicPoisson(Sampler):
    """Clients take turns, and in its turn each is drawn by a coin of its own: round t draws from
    those whose id is t modulo ``turns``, each with probability ``rate`` (Choquette-Choo et al.
    2023, "(Amplified) banded matrix factorization", algorithm 2).

    Correlated noise whose matrix has at most ``turns`` bands (`dp.strategies.Banded`) is amplified
    so: one sampled Gaussian for each turn. Noise of other kinds is refused under it.

    Raises:
        ConfigError: a number under 1, a rate outside of (0, 1], fewer clients than turns.

    >>> CyclicPoisson(turns=2, rate=1.0).at(3).draw(range(5), torch.Generator())
    (1, 3)
    """

    turns: int
    rate: float
    turn: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        require.at_least(1, turns=self.turns)
        if not 0 < self.rate <= 1:
            raise ConfigError(f"sampler.rate must lie in (0, 1], and is {self.rate}.")

    def at(self, round: int) -> CyclicPoisson:
        """The sampler of the round's turn."""
        return _in_turn(self, round % self.turns)

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        """Independent coins of those whose turn it is."""
        mine = [client for client in clients if client % self.turns == self.turn]
        return Poisson(self.rate).draw(mine, rng)

    def sampling(self, population: int) -> Sampling:
        """Poisson at the rate that a client has on average over the rounds."""
        _require_turns(self.turns, population)
        return Sampling("poisson", self.rate / self.turns, population)

    def participation(self, rounds: int) -> Participation:
        """Every ``turns`` rounds, if drawn."""
        return Participation(rounds, -(-rounds // self.turns), self.turns, self.rate)


T = TypeVar("T", Separated, CyclicPoisson)


def _in_turn(sampler: T, turn: int) -> T:
    """The sampler at one of its turns, which no config sets."""
    made = copy.copy(sampler)
    object.__setattr__(made, "turn", turn)
    return made


def _require_turns(turns: int, population: int) -> None:
    if turns > population:
        raise ConfigError(
            f"{population} clients cannot take {turns} turns: some rounds would have nobody."
        )
