"""What is known of the model that a run starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from privfl.core import ConfigError, Ledger
from privfl.dp import of_anybody
from privfl.engine import Journal, RunState, Scenario, holds_run, start_ledger
from privfl.engine.before import carried_on
from privfl.engine.standing import continued


def start_of(
    start: Literal["public"] | Ledger | Path | str | None,
) -> Literal["public"] | Ledger | None:
    """That a model is public, or all that was charged for it: a ledger, the file of one, or the
    folder of the run that made it.

    Raises:
        ConfigError: there is no such folder or file.
        DataCorrupt: the file is no ledger, or charges in it were changed.

    >>> start_of("public")
    'public'
    """
    if start is None or isinstance(start, Ledger):
        return start
    if start == "public":
        return "public"
    path = Path(start)
    if path.is_dir() and holds_run(path):
        return start_ledger(path)
    if not path.is_file():
        raise ConfigError(
            f"start is 'public', or the ledger or the run folder of the model, and '{start}' is"
            " neither."
        )
    return Journal(path).ledger()


def begun(
    state: RunState,
    scenario: Scenario,
    spent: Ledger,
    delta: float,
    left: RunState | None = None,
) -> RunState:
    """The first state of a run, with all that was charged for the model that it starts from: by a
    run of the same federation (``spent``), which ``left`` a state, or by those before.
    """
    state = continued(scenario.workload, state, left)
    if state.ledger.charges:  # of a journal that took them over before the run was killed
        return state
    if not spent.charges and isinstance(scenario.start, Ledger):
        whole = of_anybody(scenario.start, tuple(scenario.clients), delta)
        spent = carried_on(whole, scenario.noised_units)
    return replace(state, ledger=before_the_start(spent))


def before_the_start(ledger: Ledger) -> Ledger:
    """The charges of earlier runs, in rounds with negative numbers: the last one is -1.

    >>> before_the_start(Ledger()).charges
    ()
    """
    after = max((charge.round for charge in ledger.charges), default=-1) + 1
    return Ledger(tuple(replace(c, round=c.round - after) for c in ledger.charges))
