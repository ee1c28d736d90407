"""What one round costs: charged before its first message, settled once it has been played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from privfl.core import Charge, Ledger
from privfl.dp.pipeline import played_again
from privfl.engine.budget import Account
from privfl.engine.carrier import Noisy
from privfl.engine.journal import Journal
from privfl.engine.order import Order


@dataclass(slots=True)
class Spending:
    """The charges of the round of one order, in a journal that holds those of all rounds before.

    A round that was entered before is played again with the same cohort and the same batches where
    these are drawn from the run's seed: both attempts are charged together. Where they are secret
    they were forgotten, and are drawn anew: each attempt is a release of its own.

    ``known`` are the charges of the state that the round starts from: a journal that knows of no
    round takes them over. ``account`` is with the budget of the data, where there is one: it comes
    first, because a round that it refuses is not played, and each attempt is charged to it.
    """

    order: Order
    journal: Journal
    known: Ledger
    account: Account | None = None
    held: str = field(default="", init=False)
    trained: tuple[Charge, ...] = field(default=(), init=False)
    released: tuple[Charge, ...] = field(default=(), init=False)
    entry: str = field(default="", init=False)
    before: tuple[Charge, ...] = field(default=(), init=False)

    @property
    def charges(self) -> tuple[Charge, ...]:
        """What the round cost: clients' training, and what left of it."""
        return self.trained + self.released

    def enter(self, noisy: Noisy, *, released: bool = True) -> None:
        """Charge the round, with the most that it can cost; on disk when this returns, where there
        is one. Nothing that hangs on clients' data has been sent before. Not ``released``: it is
        known already that nothing will leave of it.

        Raises:
            BudgetSpent: the budget of the data has not so much left.
        """
        pipeline, number = self.order.pipeline, self.order.plan.number
        self.trained = tuple(
            charge
            for client, steps in noisy.items()
            for charge in pipeline.trained(number, client, steps)
        )
        self.released = pipeline.charges(self.order.plans, released=released)
        if self.account is not None:
            self.held = self.account.hold(self.charges)
        self.journal.take_over(self.known)
        again, self.before = self.journal.played(number)
        self.entry = self.journal.enter(self._altogether(), again)

    def settle(self, released: Sequence[Charge]) -> None:
        """What the releases came to, with those who survived; a round that failed keeps what it was
        entered with.
        """
        self.released = tuple(released)
        self.journal.settle(self.entry, self._altogether())
        if self.account is not None:
            self.account.settle(self.held, self.charges)

    def fail(self) -> None:
        """Nothing was released: what was sent is charged as it was, and that nothing was released
        tells who was drawn.
        """
        untold = self.order.pipeline.charges(self.order.plans, released=False)
        self.settle(untold or self.released)

    def _altogether(self) -> tuple[Charge, ...]:
        return played_again(self.before, self.charges, redrawn=True)
