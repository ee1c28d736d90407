"""A claim in a sentence that says whom it is against, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from privfl.core import Against, Charge
from privfl.dp.accounting.ledger import Spent, repeated

_ORDER: tuple[Against, ...] = ("model_recipients", "server", "server_and_clients")


def weakest(charges: Sequence[Charge]) -> Against:
    """Against whom all charges together are a claim: whoever reads the released models is weaker
    than the server, which reads them too.
    """
    return min((charge.against for charge in charges), key=_ORDER.index)


def who(charges: Sequence[Charge]) -> str:
    """The adversary in words."""
    against, colluders = weakest(charges), min(charge.colluders for charge in charges)
    with_clients = f" with {colluders} clients that collude" if colluders else ""
    if against == "model_recipients":
        return f"whoever reads the released models{with_clients}"
    if _of_training(charges):
        return "the server and all other clients, which read what this client sends"
    return f"the server, which follows the protocol{with_clients}"


def unknown_to(charges: Sequence[Charge]) -> str:
    """What the adversary must not learn beside what is released."""
    if _of_training(charges):
        if not any(charge.cohort_hidden for charge in charges):
            return "who may know each batch, and learn no seed of the noise"
        return "who learns no batch, coin or seed"
    if all(charge.cohort_hidden for charge in charges):
        return "who learns no cohort, coin or seed"
    return "who sees each cohort and learns no coin or seed of the noise"


def sentence(spent: Spent, charges: Sequence[Charge], excluded: Sequence[str] = ()) -> str:
    """The statement of one subject's claim: against whom, what, of whose neighbours, over which
    rounds, what holds against the server, and what is not counted.

    >>> from privfl.core import DpEvent, Ledger, Sampling
    >>> from privfl.dp.accounting.ledger import spend
    >>> charge = Charge(
    ...     0,
    ...     DpEvent("gaussian", {"noise_multiplier": 1.0}),
    ...     Sampling("all", 1.0, 1000),
    ...     "client",
    ...     "zero_out",
    ... )
    >>> print(sentence(spend(Ledger((charge,)), 1e-5, pld=False)[0], (charge,), ["root data"]))
    Against whoever reads the released models, who learns no cohort, coin or seed: (4.73, 1e-05), \
client, zero_out, rounds 0..0. Against the server: none. Excluded: root data.
    """
    server = _server(spent, charges)
    left_out = f" Excluded: {'; '.join(excluded)}." if excluded else ""
    if spent.refused is not None or spent.epsilon is None:
        why = (spent.refused or "nothing accounts for it").rstrip(".")
        return f"No claim for any {spent.unit}: {why}.{left_out}"
    told = (
        f"Against {who(charges)}, {unknown_to(charges)}: ({above(spent.epsilon)},"
        f" {spent.delta:g}), {_whose(spent, charges)}, {spent.relation}, {_rounds(charges)}"
    )
    if any(map(repeated, charges)):
        told += ", the epsilon of the same run with secret coins"
        if spent.as_drawn is not None:
            told += (
                f"; as it was drawn, against whoever knows its seed: ({above(spent.as_drawn)},"
                f" {spent.delta:g}), {_seen(spent)}"
            )
    return f"{told}. Against the server: {server}.{left_out}"


def _of_training(charges: Sequence[Charge]) -> bool:
    """Whether they are of one client's own training."""
    return charges[0].unit == "sample" or charges[0].subject != charges[0].unit


def _whose(spent: Spent, charges: Sequence[Charge]) -> str:
    """The unit; of users also who is one, and what of them takes part."""
    bounds = sorted({one.users.words for one in charges if one.users is not None})
    return spent.unit if not bounds else f"{spent.unit} {'; '.join(bounds)}"


def _rounds(charges: Sequence[Charge]) -> str:
    """Those of this run; how many there were before its start, whose numbers are negative."""
    numbers = {charge.round for charge in charges}
    before, own = sorted(n for n in numbers if n < 0), sorted(n for n in numbers if n >= 0)
    told = [f"rounds {own[0]}..{own[-1]}"] if own else []
    if before:
        told.append(f"{-before[0]} rounds before its start")
    return " and ".join(told)


def above(epsilon: float) -> str:
    """Three digits, never fewer than the number says.

    >>> above(1.2341), above(17.0), above(float("inf"))
    ('1.24', '17', 'infinite')
    """
    if not math.isfinite(epsilon):
        return "infinite"
    if epsilon <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    nearest = round(epsilon / unit)
    told = f"{nearest * unit:.3g}"
    return told if float(told) >= epsilon else f"{(nearest + 1) * unit:.3g}"


def _seen(spent: Spent) -> str:
    """Whoever sees a cohort sees whether somebody is there, who can then only send zero."""
    return "zero_out" if spent.relation == "add_remove" else spent.relation


def _server(spent: Spent, charges: Sequence[Charge]) -> str:
    if weakest(charges) == "model_recipients":
        return "none"
    return "the same"
