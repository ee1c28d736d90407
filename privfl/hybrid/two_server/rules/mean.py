"""The mean of rows whose norms are proved: every accepted row counts once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privfl.core import RoundPlan
from privfl.crypto.mpc import Demand
from privfl.crypto.mpc.operations import Open
from privfl.hybrid.two_server.checks import CHECKS, checking
from privfl.hybrid.two_server.fixed_checks import FIXED_CHECKS, open_scores
from privfl.hybrid.two_server.fixed_stock import Nothing, RuleStock
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.opened_scores import SCORES, Gather, opened
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters
from privfl.hybrid.two_server.public_sum import accept
from privfl.hybrid.two_server.rules.rule import Reveal, Traits


@dataclass(frozen=True, slots=True)
class MeanOnShares:
    """Verified clipping (a `SharedRule`); ``weighted``: each row carries its weight as one more
    word.
    """

    kind: ClassVar[str] = "mean"

    reveal: Reveal
    weighted: bool = False

    @property
    def traits(self) -> Traits:
        """Sums of whole rows, under weights that both servers know."""
        return Traits(weighted=self.weighted, capped=True)

    @property
    def stock(self) -> RuleStock:
        """Nothing."""
        return Nothing()

    @property
    def leaks(self) -> str:
        """Norms, where they are opened."""
        if self.reveal == "scores":
            return "every accepted update's norm"
        return "how many clients count" if self.reveal == "aggregate" else "which clients count"

    def needs(self, plan: RoundPlan) -> Needs:
        """Sums and norms alone."""
        return Needs()

    def preprocessing(self, now: TwoServerParameters, n: int) -> Demand:
        """The checks."""
        return checking(now, n)

    def program(
        self, now: TwoServerParameters, least: int, close: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """The checks, norms where they are opened, and the sum."""
        if now.malicious:
            told = (*open_scores(dots=False), OpenNorms()) if self.reveal == "scores" else ()
            return (*FIXED_CHECKS, *told, Everyone(), *close)
        norms: tuple[Step, ...] = (
            (Gather(dots=False), Open(SCORES), OpenNorms()) if self.reveal == "scores" else ()
        )
        return (*CHECKS, *norms, Everyone(), *close)


@dataclass(frozen=True, slots=True)
class Everyone:
    """Each valid row counts once."""

    def act(self, machine: Machine) -> None:
        """Set the public weights."""
        accept(machine, machine.valid)


@dataclass(frozen=True, slots=True)
class OpenNorms:
    """Everybody's exact norm is disclosed; nothing is decided by it."""

    def act(self, machine: Machine) -> None:
        """Name them."""
        opened(machine)
