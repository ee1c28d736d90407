"""What several runs on the same data have spent together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from privfl.core import Charge, ClientId, Ledger, Unit
from privfl.dp.accounting.ledger import dearest_releases, spend
from privfl.dp.accounting.rdp_account import require_delta


def over_runs(ledgers: Iterable[Ledger], delta: float) -> Ledger:
    """All charges that the one may have to pay who pays most: of each run those of its dearest
    subject and participant, by unit.

    Two runs may deal the same data out in different ways, so a client or a sample of one run need
    not bear its number in the next: the sum over each run's dearest is an upper bound whoever it is
    (adaptive composition: Dwork, Rothblum, Vadhan 2010).

    Raises:
        ConfigError: delta is not in (0, 1).

    >>> over_runs([Ledger(), Ledger()], 1e-5).charges
    ()
    """
    require_delta(delta)
    charges: list[Charge] = []
    for ledger in ledgers:
        for unit in dict.fromkeys(charge.unit for charge in ledger.charges):
            charges += _of_dearest(ledger, unit, delta)
    return Ledger(tuple(charges))


def of_anybody(ledger: Ledger, clients: Collection[ClientId], delta: float) -> Ledger:
    """A ledger as it is to a run that follows it, with these clients: everybody may be the one who
    paid most.

    The second run may deal the same data out in another way, so whoever bears a number in it need
    not have borne it in the first. Charges of each client's samples become the dearest client's
    for all clients; rounds whose cohorts were seen become those of the dearest participant, for
    everybody.

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
    spent = spend(own, delta, pld=False)
    dearest = max(spent, key=lambda one: (one.refused is not None, one.rdp or 0.0))
    mine = [charge for charge in own.charges if charge.subject == dearest.subject]
    if dearest.refused is None and any(charge.cohort is not None for charge in mine):
        mine = _of_participant(mine, delta)
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
