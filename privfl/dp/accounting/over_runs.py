"""What several runs on the same data have spent together, and what one spent before another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from privfl.core import Charge, ClientId, Ledger, Unit
from privfl.dp.accounting.join import dominating
from privfl.dp.accounting.ledger import dearest_releases, spend
from privfl.dp.accounting.rdp_account import require_delta


def over_runs(ledgers: Iterable[Ledger], delta: float) -> Ledger:
    """At least all charges that anybody has to pay: of each run those under which none of its
    subjects (`join.dominating`) and participants is worse off, by unit.

    Two runs may deal the same data out in different ways, so a client or a sample of one run need
    not bear its number in the next: the sum over runs is an upper bound whoever it is (adaptive
    composition: Dwork, Rothblum, Vadhan 2010). Who pays most in each run alone would be none: who
    that is hangs on what the others add. Where some run charges a unit nothing, what the others
    charge it is void.

    Raises:
        ConfigError: delta is not in (0, 1).

    >>> over_runs([Ledger(), Ledger()], 1e-5).charges
    ()
    """
    require_delta(delta)
    runs = tuple(ledgers)
    units = [{charge.unit for charge in ledger.charges} for ledger in runs]
    charges: list[Charge] = []
    for ledger, own in zip(runs, units, strict=True):
        for unit in dict.fromkeys(charge.unit for charge in ledger.charges):
            everywhere = all(unit in others for others in units)
            mine = _of_dearest(ledger, unit, delta)
            charges += mine if everywhere else [_void(one, sorted(own)) for one in mine]
    return Ledger(tuple(charges))


def _void(charge: Charge, units: Sequence[Unit]) -> Charge:
    return replace(
        charge,
        void=charge.void
        or f"one of these runs charges {' and '.join(f'{unit}s' for unit in units)} and another"
        f" nothing to {charge.unit}s, of whom they claim nothing together.",
    )


def of_anybody(ledger: Ledger, clients: Collection[ClientId], delta: float) -> Ledger:
    """A ledger as it is to a run that follows it, with these clients: everybody may be any of those
    who paid.

    The second run may deal the same data out in another way, so whoever bears a number in it need
    not have borne it in the first. Charges of each client's samples become, for all clients, those
    under which none of them is worse off (`join.dominating`); rounds whose cohorts were seen become
    those of the dearest participant, for everybody.

    Raises:
        ConfigError: delta is not in (0, 1).

    >>> of_anybody(Ledger(), (0, 1), 1e-5).charges
    ()
    """
    require_delta(delta)
    charges: list[Charge] = []
    for unit in dict.fromkeys(charge.unit for charge in ledger.charges):
        own = [charge for charge in ledger.charges if charge.unit == unit]
        whole = [charge for charge in own if charge.subject == unit]
        if any(charge.cohort is not None for charge in whole):
            mine = [one for one in _of_participant(whole, delta) if one.cohort != ()]
            whole = [
                one if one.cohort is None else replace(one, cohort=None, cohort_hidden=False)
                for one in mine
            ]
        charges += whole
        parts = Ledger(tuple(charge for charge in own if charge.subject != unit))
        if parts.charges:
            dearest = _of_dearest(parts, unit, delta)
            charges += [
                replace(charge, subject=f"{unit} of client {client}")
                for client in clients
                for charge in dearest
            ]
    return Ledger(tuple(charges))


def _of_dearest(ledger: Ledger, unit: Unit, delta: float) -> list[Charge]:
    own = Ledger(tuple(charge for charge in ledger.charges if charge.unit == unit))
    by_subject: dict[str, list[Charge]] = {}
    for charge in own.charges:
        by_subject.setdefault(charge.subject, []).append(charge)
    refused = [one.subject for one in spend(own, delta, pld=False) if one.refused is not None]
    if refused:
        mine = by_subject[refused[0]]
    else:
        subjects = [
            _of_participant(paid, delta) if any(one.cohort is not None for one in paid) else paid
            for paid in by_subject.values()
        ]
        mine = dominating(subjects) if len(subjects) > 1 else subjects[0]
    return [replace(charge, subject=unit) for charge in mine]


def _of_participant(charges: Sequence[Charge], delta: float) -> list[Charge]:
    """The charges as they are to the client whose rounds were dearest, under the number 0."""
    rounds: dict[ClientId, list[int]] = {}
    for at, charge in enumerate(charges):
        for client in charge.cohort or ():
            rounds.setdefault(client, []).append(at)
    histories = {tuple(mine) for mine in rounds.values()}
    everybody = [at for at, charge in enumerate(charges) if charge.cohort is None]

    def cost(history: tuple[int, ...]) -> float:
        paid = [replace(charges[at], cohort_hidden=False) for at in (*history, *everybody)]
        return dearest_releases([replace(charge, cohort=None) for charge in paid], delta)[0]

    ordered = sorted(sorted(histories), key=cost)
    dearest = set(ordered[-1]) if ordered else set()
    return [
        charge if charge.cohort is None else replace(charge, cohort=(0,) if at in dearest else ())
        for at, charge in enumerate(charges)
    ]
