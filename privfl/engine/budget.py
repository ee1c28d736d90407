"""What the releases of one data set may spend altogether, over all runs."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from privfl.core import BudgetSpent, Charge, ConfigError, Ledger, Unit, require
from privfl.dp import Spent, above, over_runs, spend
from privfl.engine.journal import Journal


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that all runs on one data set may spend: ``epsilon`` at ``delta``, counted in the
    file ``ledger``, which all of them share and which lasts as long as the data do.

    It counts the unit that all these runs claim: clients, samples, or users told apart by one
    attribute; of a run whose hidden cohorts protect clients, clients alone. Where cohorts or
    batches are drawn from a seed it counts what they cost those who know the seed. Who publishes
    what did not go through a run with this budget spends without it.

    Raises:
        ConfigError: a number out of range.

    >>> Budget(3.0, 1e-5, Path("digits.ledger.jsonl")).epsilon
    3.0
    """

    epsilon: int | float
    delta: float
    ledger: Path

    def __post_init__(self) -> None:
        require.positive(**{"budget.epsilon": self.epsilon, "budget.delta": self.delta})
        require.finite(**{"budget.epsilon": self.epsilon})
        require.positive(**{"1 - budget.delta": 1 - self.delta})
        if not isinstance(self.ledger, Path):
            raise ConfigError(f"budget.ledger must be a Path, and is {self.ledger!r}.")

    def require_delta(self, name: str, delta: float) -> None:
        """Refuse another delta beside this one: the two epsilons would be of two claims.

        Raises:
            ConfigError: ``delta``, which its owner calls ``name``, is another one.
        """
        if delta != self.delta:
            raise ConfigError(
                f"budget.delta is {self.delta:g} and {name} is {delta:g}, so the epsilon of the"
                " budget and the one that is shown are of two claims: give both the same."
            )

    def opened(self) -> Account:
        """An account for one run.

        Raises:
            ConfigError: the ledger cannot be read, or an older copy has taken its place.
            DataCorrupt: the file is no ledger.
        """
        return Account(self)


class Account:
    """One run's account with a budget. A round is held before its first message, with the most that
    it can cost, and settled once it has been played; what was held is never given back.

    The file is locked from the look at what is left until the charge is on disk, so two processes
    cannot both spend the rest.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        # one file has one lock and one head, by whatever link or working folder it is reached
        self._path = budget.ledger.resolve()
        self._journal = Journal(self._path)
        self._run = secrets.token_hex(8)

    def hold(self, charges: Sequence[Charge], again: str = "") -> str:
        """Charge a round that is about to be played, or the entry ``again`` anew; the entry's name.

        Raises:
            BudgetSpent: the round would pass the budget, or cannot be priced in it.
            ConfigError: the ledger cannot be written.
        """
        name = again or f"{self._run}/{secrets.token_hex(8)}"
        if not charges:
            return name
        with _locked(self._path):
            entries = {**self._journal.entries(), name: tuple(charges)}
            self._refuse(entries)
            return self._journal.enter(charges, name)

    def settle(self, name: str, charges: Sequence[Charge]) -> None:
        """What a round came to."""
        with _locked(self._path):
            self._journal.settle(name, charges)

    def _refuse(self, entries: Mapping[str, tuple[Charge, ...]]) -> None:
        runs: dict[str, tuple[Charge, ...]] = {}
        for name, charges in entries.items():
            run = name.partition("/")[0]
            runs[run] = (*runs.get(run, ()), *charges)
        ledgers = [Ledger(charges) for charges in runs.values() if charges]
        units = [{charge.unit for charge in ledger.charges} for ledger in ledgers]
        counted: set[Unit] = set.intersection(*units) if units else set()
        if not counted:
            raise BudgetSpent(
                f"the budget in '{self.budget.ledger}' counts runs that claim for"
                f" {_listed(set().union(*units))}, which cannot be added up: give each a ledger of"
                " its own."
            )
        told_apart = {one.users.ids for run in runs.values() for one in run if one.users}
        if len(told_apart) > 1:
            raise BudgetSpent(
                f"the budget in '{self.budget.ledger}' counts users by {_listed(told_apart)}, who"
                " are not the same people: give each a ledger of its own."
            )
        whole = over_runs(ledgers, self.budget.delta)
        for unit in sorted(counted):
            own = Ledger(tuple(charge for charge in whole.charges if charge.unit == unit))
            self._refuse_unit(own)

    def _refuse_unit(self, ledger: Ledger) -> None:
        """Refuse what passes the budget by RDP, and by the tighter PLD where that is known."""
        for tight in (False, True):
            spent = spend(ledger, self.budget.delta, pld=tight)
            refused = next((one for one in spent if one.refused is not None), None)
            if refused is not None:
                raise BudgetSpent(f"no round can be charged to the budget: {refused.refused}")
            most = max(map(_figure, spent), default=0.0)
            if most <= self.budget.epsilon:
                return
        raise BudgetSpent(
            f"this round would bring what '{self.budget.ledger}' has spent to epsilon"
            f" {above(most)} at delta {self.budget.delta:g}, and the budget is"
            f" {self.budget.epsilon:g}: nothing of it was sent. End here, or raise budget.epsilon."
        )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for name in sorted(names))


def _figure(spent: Spent) -> float:
    """What it costs against those who know a seed, where one draws."""
    return max(spent.claim(), spent.as_drawn or 0.0)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with a file, among all processes, by a lock file beside it."""
    try:
        with path.with_name(f"{path.name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            yield
    except OSError as error:
        raise ConfigError(f"cannot lock the ledger '{path}': {error.strerror or error}.") from None
