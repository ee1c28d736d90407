"""What one round costs: charged before its first message, settled once it has been played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from privfl.core import Charge, Ledger
from privfl.dp.charges import played_again
from privfl.dp.memory import NoiseMemory
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
    round takes them over. ``memory`` is that of noise that hangs together over rounds: one charge
    then stands for all rounds of its block, in an entry of its own, and each round takes its place.
    ``present``: this is what one client owes, in rounds that it knows it was in: what not being
    drawn would save is not counted, for it has no charge for the other rounds.
    ``account`` is with the budget of the data, where there is one: it comes first, because a round
    that it refuses is not played, and each attempt is charged to it.
    """

    order: Order
    journal: Journal
    known: Ledger
    memory: NoiseMemory | None = None
    account: Account | None = None
    present: bool = False
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
        self.journal.take_over(self.known)
        again, self.before = self.journal.played(number)
        if self.memory is not None:
            self.memory.shared |= self.present
            self._share(self.memory)
        found = pipeline.charges(self.order.plans, memory=self.memory, released=released)
        if self.present:
            found = tuple(replace(one, cohort_hidden=False) for one in found)
        self.released = found
        if self.account is not None:
            self._hold(self.account)
        if self.memory is not None and self.released:
            self.memory.entry = self.journal.enter(self.released, self.memory.entry)
        self.entry = self.journal.enter(self._altogether(), again)

    def _hold(self, account: Account) -> None:
        """Put the round on the account: what stands in its own entry, and its block's charge in the
        place of what the block had before.
        """
        if self.memory is not None:
            self.memory.held = account.hold(self.released, self.memory.held)
        self.held = account.hold(self._counted)

    def _share(self, memory: NoiseMemory) -> None:
        """Where another block had this round already, both have its cohort if a seed draws it:
        neither is amplified.
        """
        for name, charges in self.journal.covering(self.order.plan.number).items():
            if name != memory.entry and self.order.pipeline.coins == "public":
                memory.shared = True
                self.journal.enter([replace(one, cohort_hidden=False) for one in charges], name)

    def settle(self, released: Sequence[Charge]) -> None:
        """What the releases came to, with those who survived; a round that failed keeps what it was
        entered with.
        """
        self.released = tuple(released)
        if self.memory is not None and self.released:
            self.memory.shared |= any(not one.cohort_hidden for one in self.released)
            self.journal.settle(self.memory.entry, self.released)
        self.journal.settle(self.entry, self._altogether())
        if self.account is not None:
            if self.memory is not None and self.released:
                self.account.settle(self.memory.held, self.released)
            self.account.settle(self.held, self._counted)

    def fail(self) -> None:
        """Nothing was released: what was sent is charged as it was, and that nothing was released
        tells who was drawn.
        """
        untold = self.order.pipeline.charges(self.order.plans, memory=self.memory, released=False)
        self.settle(untold or self.released)

    @property
    def _own(self) -> tuple[Charge, ...]:
        """What this attempt at the round costs, without what its block of noise has an entry
        for.
        """
        return self.charges if self.memory is None else self.trained

    @property
    def _counted(self) -> tuple[Charge, ...]:
        """What of it counts in the budget. Where a hidden cohort protects clients, what their
        samples pay does not: only clients who were drawn pay it, so the round at which the budget
        ends the run would tell the cohorts. What a client pays covers its samples.
        """
        pipeline = self.order.pipeline
        if not pipeline.private or pipeline.sees_cohort:
            return self._own
        return tuple(one for one in self._own if one.unit == pipeline.neighbours.unit)

    def _altogether(self) -> tuple[Charge, ...]:
        """What stands in the round's own entry."""
        return played_again(self.before, self._own, redrawn=True)
