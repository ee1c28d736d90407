"""What each class of clients has spent, where clients are drawn at rates of their own (the Sample
mechanism: Jorgensen, Yu, Cormode 2015, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from privfl.core import Charge, ConfigError, DpEvent, Ledger, NeighbourRelation, Sampling, require
from privfl.dp.accounting.ledger import Spent, spend

_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class OfClass:
    """A class of ``clients`` that are drawn at ``rate``, and what each of them has spent."""

    name: str
    clients: int
    rate: float
    spent: Spent


def personal(ledger: Ledger, delta: float, *, pld: bool = True) -> tuple[OfClass, ...]:
    """What a client of each class has spent at ``delta``; empty where all have one rate.

    A client's own coin alone decides whether its row is in a sum, and whoever else is drawn is
    drawn without it: given the others, a round is a Gaussian that is sampled at the client's own
    rate, and their mixture is no farther from its neighbour (joint quasi-convexity). So each class
    pays as if everybody had its rate. The classes and their rates are public: a rate that was
    chosen by what a client holds tells of that, and no epsilon counts it.

    Raises:
        ConfigError: delta is not in (0, 1).

    >>> drawn = Sampling("poisson", 0.5, 10, classes=(("strict", 0.1, 4), ("usual", 0.5, 6)))
    >>> noise = DpEvent("gaussian", {"noise_multiplier": 2.0})
    >>> one = Charge(0, noise, drawn, "client", "add_remove")
    >>> [(of.name, round(of.spent.claim(), 2)) for of in personal(Ledger((one,) * 9), 1e-3)]
    [('strict', 0.42), ('usual', 2.53)]
    """
    whole = [one for one in ledger.charges if one.subject == one.unit]
    known = {name: (rate, n) for one in whole for name, rate, n in one.sampling.classes}
    found = []
    for name, (rate, clients) in known.items():
        mine = Ledger(tuple(_of(name, one) for one in whole))
        [spent] = spend(mine, delta, pld=pld)
        found.append(OfClass(name, clients, rate, spent))
    return tuple(found)


def personal_rates(
    epsilons: Mapping[str, float],
    delta: float,
    *,
    noise_multiplier: float,
    rounds: int,
    relation: NeighbourRelation = "add_remove",
) -> dict[str, float]:
    """The largest rate at which each class of clients spends at most its epsilon in so many rounds
    of this noise, by RDP; 1 where all rounds cost less.

    Raises:
        ConfigError: a number out of range; an epsilon that no rate over 1e-9 reaches.

    >>> rates = personal_rates({"strict": 1.0, "usual": 8.0}, 1e-5, noise_multiplier=1.0, rounds=50)
    >>> {name: round(rate, 3) for name, rate in rates.items()}
    {'strict': 0.007, 'usual': 0.139}
    """
    require.at_least(1, rounds=rounds)
    require.positive(noise_multiplier=noise_multiplier, **dict(epsilons))
    event = DpEvent("gaussian", {"noise_multiplier": noise_multiplier})

    def costs(rate: float) -> float:
        drawn = Sampling("poisson", rate, 1)
        charge = Charge(0, event, drawn, "client", relation, count=rounds)
        [spent] = spend(Ledger((charge,)), delta, pld=False)
        return spent.claim()

    found = {}
    for name, epsilon in epsilons.items():
        low, high = 1e-9, 1.0
        if costs(low) > epsilon:
            raise ConfigError(
                f"no rate gives '{name}' an epsilon of {epsilon:g} in {rounds} rounds: raise the"
                " noise multiplier or the epsilon."
            )
        if costs(high) <= epsilon:
            low = high
        for _ in range(_HALVINGS):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if costs(middle) <= epsilon else (low, middle)
        found[name] = low
    return found


def _of(name: str, charge: Charge) -> Charge:
    """A charge as it is to one class; as it was where it has no such class."""
    rates = {own: rate for own, rate, _ in charge.sampling.classes}
    if name not in rates:
        return charge
    return replace(charge, sampling=replace(charge.sampling, rate=rates[name], classes=()))
