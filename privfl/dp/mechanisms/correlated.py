"""Correlated Gaussian noise: a matrix mechanism over the rounds of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from privfl.core import (
    ConfigError,
    DpEvent,
    Examples,
    Guarantee,
    KeepsSecrets,
    NoiseSource,
    Participation,
    RunNoise,
    Sensitivity,
    Vector,
    WithMemory,
    require,
)
from privfl.dp.guarantee import correlated
from privfl.dp.noise import normals
from privfl.dp.strategies import Blt, NoiseStream, Strategy, StrategyMatrix


@dataclass(frozen=True, slots=True)
class Correlated(WithMemory):
    """Central Gaussian noise whose rounds cancel each other in sums over rounds, so that a model,
    which is such a sum, carries less of it (matrix mechanisms: Kairouz et al. 2021, DP-FTRL;
    Denisov et al. 2022; Choquette-Choo et al. 2023).

    Round t releases g_t + s (C^-1 Z)_t, s the sensitivity of g_t and Z independent normals of
    deviation z sens(C): one Gaussian mechanism of noise multiplier z over the whole run, at most
    ``k`` participations of a client at least ``b`` rounds apart being counted in sens(C). Nothing
    has to be amplified by sampling, so nobody has to keep cohorts secret. After t rounds the
    multiplier is z sens(C) / sens(C[:t, :t]).

    Where clients are drawn in turns and in secret (`CyclicPoisson`) and ``strategy`` is `Banded`, z
    is over the longest column of C in place of sens(C), and each turn is one sampled Gaussian of
    multiplier z (Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", Theorem 4).

    Guarantee: central DP against whoever sees the released models, with a server that is trusted to
    add the noise and to keep it: what it remembers of past noise is as secret as the updates.
    Neighbours are `zero_out` or `replace_one`; a client that comes more often than the run's
    participation says stops the run. The noise is in floating point.

    Raises:
        ConfigError: the noise multiplier is negative, or not finite.

    >>> Correlated(1.0, Blt(3)).over(Participation(rounds=100, most=1)).event(rows=100)
    DpEvent(mechanism='gaussian', parameters={'noise_multiplier': 1.0})
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}

    noise_multiplier: int | float
    strategy: Strategy = field(default_factory=Blt)

    def __post_init__(self) -> None:
        require.multiplier(noise_multiplier=self.noise_multiplier)

    @property
    def guarantee(self) -> Guarantee[WithMemory]:
        """Who sees what without noise, and what leaving noise out does."""
        return correlated(lambda: Correlated(0.0, self.strategy))

    def over(self, participation: Participation) -> CorrelatedRun:
        """The noise of one run.

        Raises:
            ConfigError: clients drawn in turns with more bands of C than there are turns.
        """
        matrix = self.strategy.matrix(participation)
        if participation.rate < 1 and matrix.bands > participation.apart:
            raise ConfigError(
                f"{type(self.strategy).__name__} makes a matrix of {matrix.bands} bands, and"
                f" clients that are drawn in {participation.apart} turns are amplified only by one"
                " of at most as many: use the strategy banded, or the sampler separated."
            )
        return CorrelatedRun(self.noise_multiplier, matrix, participation)


class CorrelatedState(KeepsSecrets):
    """What a server keeps of the noise of one vector, and how many rows it has drawn."""

    __slots__ = ("rows", "stream")

    def __init__(self, stream: NoiseStream) -> None:
        self.stream, self.rows = stream, 0


@dataclass(frozen=True, slots=True)
class CorrelatedRun(RunNoise[CorrelatedState]):
    """`Correlated` over one run: its C and who takes part how often at most.

    >>> run = Correlated(2.0, Blt(2)).over(Participation(rounds=8, most=2, apart=4))
    >>> run.event(8).parameters["noise_multiplier"], run.event(1).parameters["noise_multiplier"] > 2
    (2.0, True)
    """

    noise_multiplier: int | float
    matrix: StrategyMatrix = field(repr=False)
    participation: Participation

    @property
    def unit(self) -> float:
        """What the noise multiplier is over: how far one client moves C G, or, where it is drawn in
        turns, how far one participation does.
        """
        run = self.participation
        return self.matrix.sens(run.most, run.apart) if run.rate >= 1 else self.matrix.sens(1, 1)

    def event(self, rows: int) -> DpEvent:
        """One Gaussian of all rows so far.

        Raises:
            ConfigError: more rows than the run has.
        """
        run = self.participation
        return self._over(self.matrix.sens(run.most, run.apart, self._played(rows)))

    def sampled(self, rows: int) -> tuple[DpEvent, int] | None:
        """One Poisson-sampled Gaussian for each turn that a client has had; None where there are no
        turns.

        Raises:
            ConfigError: more rows than the run has.
        """
        run = self.participation
        if run.rate >= 1:
            return None
        one = self.matrix.sens(1, 1, self._played(rows))
        return self._over(one), -(-rows // run.apart)

    def _over(self, sens: float) -> DpEvent:
        return DpEvent("gaussian", {"noise_multiplier": self.noise_multiplier * (self.unit / sens)})

    def _played(self, rows: int) -> int:
        require.at_least(1, rows=rows)
        if rows > self.participation.rounds:
            raise ConfigError(
                f"this noise was made for {self.participation.rounds} rounds, and round {rows} of"
                " it was asked for: set rounds to all that the run will have."
            )
        return rows

    def init(self, d: int) -> CorrelatedState:
        """The state before the first row."""
        return CorrelatedState(self.matrix.stream())

    def release(
        self, vector: Vector, sensitivity: Sensitivity, state: CorrelatedState, noise: NoiseSource
    ) -> tuple[Vector, DpEvent, CorrelatedState]:
        """The aggregate with the next row of the noise, in units of its own sensitivity.

        Raises:
            ConfigError: the sensitivity is not finite and above 0; more rows than the run has.
        """
        require.finite(**{"a sensitivity to make noise for": sensitivity.l2})
        require.positive(**{"a sensitivity to make noise for": sensitivity.l2})
        event = self.event(state.rows + 1)
        z = normals(vector.numel(), noise, vector.dtype)
        z.mul_(self.noise_multiplier * self.unit)
        row = state.stream.next(z)
        state.rows += 1
        noisy = vector + row.mul(sensitivity.l2).to(vector.device).view_as(vector)
        return noisy, event, state
