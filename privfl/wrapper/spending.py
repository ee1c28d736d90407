"""What a layer's rounds cost: charged before their first message, settled once they were played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from privfl.core import Charge, ClientId, ConfigError, Ledger, RoundPlan
from privfl.dp.charges import played_again
from privfl.dp.pipeline import Pipeline
from privfl.engine.budget import Account
from privfl.engine.journal import Journal
from privfl.wrapper.asked import Asked, Noised

Plans = Mapping[str, RoundPlan]


@dataclass(slots=True)
class FailedRound:
    """A round that was charged and did not end well: its entry, its charges, and what the account
    with the budget calls it. The same clients again are no fresh draw of a sample.
    """

    entry: str = ""
    charges: tuple[Charge, ...] = ()
    held: str = ""


@dataclass(slots=True)
class LayerSpending:
    """The journal of a layer, its account with the budget of the data, what was asked of its noise,
    and the rounds that failed, by cohort.
    """

    journal: Journal
    delta: float
    account: Account | None = None
    asked: Asked | None = None
    failed: dict[frozenset[ClientId], FailedRound] = field(default_factory=dict)

    def enter(self, pipeline: Pipeline, plans: Plans, *, opens: bool = True) -> EnteredRound:
        """Charge a round with the most that it can cost; on disk, where there is one, when this
        returns. Not ``opens``: it is known already that nothing will leave of it.

        Raises:
            BudgetSpent: the round would pass the budget, or the epsilon that was asked for.
            ConfigError: another process tries the same round again.
        """
        plan = plans["delta"]
        cohort = frozenset(plan.cohort)
        last = self.failed.get(cohort, FailedRound())
        # what was saved of it may be older than its entry, which has all that it cost since
        known = self.journal.entries().get(last.entry, last.charges)
        before = tuple(replace(charge, round=plan.number) for charge in known)
        charged = played_again(before, pipeline.charges(plans, released=opens))

        def permit() -> None:
            """Refuse where another process has since spent, or tried the same round again."""
            if self.journal.entries().get(last.entry, last.charges) != known:
                raise ConfigError(
                    "another process that shares the ledger tries the same failed round again:"
                    " nothing of this try was sent. Let one of them go on."
                )
            if self.asked is not None:
                self.asked.refuse_beyond(self.journal, charged, last.entry, self.delta)

        permit()  # before the budget holds anything, and again where nobody else can enter
        held = "" if self.account is None else self.account.hold(charged, last.held)
        if plan.n:
            self.failed[cohort] = replace(last, held=held)
        entry = self.journal.enter(charged, last.entry, permit)
        if plan.n:  # until it has ended well; a round of nobody always does
            self.failed[cohort] = FailedRound(entry, charged, held)
        return EnteredRound(self, cohort, before, entry, held)

    def to_json(self) -> dict[str, Any]:
        """Everything but the account, which is the budget's, as plain data."""
        asked = self.asked
        found = None if asked is None or asked.found is None else asked
        return {
            "entries": {name: _plain(held) for name, held in self.journal.entries().items()},
            "failed": [
                [sorted(cohort), one.entry, _plain(one.charges), one.held]
                for cohort, one in self.failed.items()
            ],
            "noise": None if found is None else [found.multiplier, _plain(found.planned)],
        }

    def take(self, body: Mapping[str, Any]) -> Noised | None:
        """Go on from what `to_json` wrote; the noise that was found for an epsilon.

        Raises:
            ConfigError: the ledger's file does not hold all of it.
        """
        known = self.journal.entries()
        for name, charges in body["entries"].items():
            if self.journal.path is None:
                self.journal.enter(_charges(charges), name)
            elif name not in known:
                raise ConfigError(
                    f"the ledger '{self.journal.path}' does not hold all that the saved layer has"
                    " spent: give the ledger file that it was saved with."
                )
        for cohort, entry, charges, held in body["failed"]:
            self.failed[frozenset(cohort)] = FailedRound(entry, _charges(charges), held)
        if self.asked is None or body["noise"] is None:
            return None
        multiplier, planned = body["noise"]
        return self.asked.restored(float(multiplier), _charges(planned))

    @property
    def ledger(self) -> Ledger:
        """All charges."""
        return self.journal.ledger()


def _plain(charges: Sequence[Charge]) -> list[dict[str, Any]]:
    return [charge.to_json() for charge in charges]


def _charges(written: Any) -> tuple[Charge, ...]:
    return tuple(map(Charge.from_json, written))


@dataclass(frozen=True, slots=True)
class EnteredRound:
    """A round that was charged: its clients, what a failed attempt before had cost, its entry, and
    what the account calls it.
    """

    spending: LayerSpending
    cohort: frozenset[ClientId]
    before: tuple[Charge, ...]
    entry: str
    held: str

    def settle(self, spent: Sequence[Charge]) -> None:
        """The round ended well, and came to this."""
        now = self.spending
        charges = played_again(self.before, spent)
        now.journal.settle(self.entry, charges)
        if now.account is not None:
            now.account.settle(self.held, charges)
        now.failed.pop(self.cohort, None)

    def fail(self, untold: Sequence[Charge]) -> None:
        """The rule refused what was opened: that nothing was released costs ``untold``."""
        if untold:
            charges = played_again(self.before, untold)
            self.spending.failed[self.cohort] = FailedRound(self.entry, charges, self.held)
            self.spending.journal.settle(self.entry, charges)
