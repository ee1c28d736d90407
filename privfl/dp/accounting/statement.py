"""What a report says about a ledger: both accountants' figures for each unit, and what its readers
must be warned of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from privfl.core import Charge, ConfigError, Ledger, Unit
from privfl.dp.accounting.ledger import Spent, spend
from privfl.dp.accounting.release import Release

MOST_RELEASES = 12
"""Different sampled releases whose loss distributions are computed at the end of a run: each takes
up to a second or two.
"""
MOST_EPSILON = 30.0
"""Beyond it a loss distribution's grid has millions of points and takes minutes, to say that
nothing is private.
"""
_FLOATING = ("gaussian", "laplace")


@dataclass(frozen=True, slots=True)
class Stated:
    """One unit's line of a report: the dearest subject by RDP, and the largest PLD figure over all
    subjects; both are upper bounds.

    ``epsilon`` is the smaller of the two; all three are None where ``refused`` says why no claim
    can be made. ``subjects`` is how many pay, ``releases`` how many releases the dearest pays for.
    """

    unit: Unit
    subject: str
    subjects: int
    relation: str
    delta: float
    releases: int
    epsilon: float | None = None
    rdp: float | None = None
    pld: float | None = None
    refused: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite figure is the word, which JSON has no number for."""
        plain = asdict(self) | {"notes": list(self.notes)}
        return {key: "infinite" if value == math.inf else value for key, value in plain.items()}


@dataclass(frozen=True, slots=True)
class Statement:
    """All lines and warnings."""

    lines: tuple[Stated, ...]
    warnings: tuple[str, ...]


def statement(ledger: Ledger, delta: float) -> Statement:
    """What a ledger has spent at ``delta``, by unit, with both accountants; PLD is left out, and
    said so, where it would take long.

    Raises:
        ConfigError: delta is not in (0, 1).

    >>> from privfl.core import DpEvent, Sampling
    >>> charge = Charge(
    ...     0,
    ...     DpEvent("gaussian", {"noise_multiplier": 1.0}),
    ...     Sampling("poisson", 0.1, 1000),
    ...     "client",
    ...     "add_remove",
    ... )
    >>> told = statement(Ledger((charge,) * 100), delta=1e-5)
    >>> round(told.lines[0].rdp, 4), round(told.lines[0].pld, 4)
    (7.8993, 7.0466)
    >>> told.warnings[0][:44]
    'The noise is Gaussian in floating point: its'
    """
    by_unit: dict[Unit, list[Spent]] = {}
    for spent in spend(ledger, delta, pld=False):
        by_unit.setdefault(spent.unit, []).append(spent)
    return Statement(
        tuple(_line(ledger, unit, spent, delta) for unit, spent in by_unit.items()),
        _warnings(ledger.charges),
    )


def _line(ledger: Ledger, unit: Unit, spent: Sequence[Spent], delta: float) -> Stated:
    dearest = max(spent, key=lambda one: (one.refused is not None, one.rdp or 0.0))
    told = Stated(
        unit,
        dearest.subject,
        len(spent),
        dearest.relation,
        delta,
        dearest.releases,
        notes=dearest.notes,
    )
    if dearest.refused is not None:
        return replace(told, refused=dearest.refused)
    told = replace(told, epsilon=dearest.rdp, rdp=dearest.rdp)
    if told.rdp is not None and MOST_EPSILON < told.rdp < math.inf:
        why = (
            f"PLD was not computed: at an epsilon of {told.rdp:.3g} it would take minutes;"
            " privfl.dp.spend(ledger, delta) does it."
        )
        return replace(told, notes=(*told.notes, why))
    charges = tuple(charge for charge in ledger.charges if charge.unit == unit)
    different = len({release for charge in charges if (release := Release.of(charge)).amplified})
    if different > MOST_RELEASES:
        why = (
            f"PLD was not computed: {different} different releases would take minutes;"
            " privfl.dp.spend(ledger, delta) does it."
        )
        return replace(told, notes=(*told.notes, why))
    tight = spend(Ledger(charges), delta)
    figures = [one.pld for one in tight if one.pld is not None]
    if len(figures) < len(tight):
        return replace(
            told, notes=tuple(dict.fromkeys(note for one in tight for note in one.notes))
        )
    return replace(told, pld=max(figures), epsilon=min(dearest.claim(), max(figures)))


def _warnings(charges: Sequence[Charge]) -> tuple[str, ...]:
    found = []
    if any(charge.repeatable_noise for charge in charges):
        found.append(
            "A noise seed was given: whoever knows it subtracts the noise, so NO privacy guarantee"
            " holds. Leave noise_seed out."
        )
    silent = sorted({charge.unit for charge in charges if _silent(charge)})
    if silent:
        found.append(
            f"A release carried no noise (noise_multiplier 0): epsilon at {' and '.join(silent)}"
            " level is infinite."
        )
    floating = sorted(
        {c.event.mechanism for c in charges if c.event.mechanism in _FLOATING and not _silent(c)}
    )
    if floating:
        kinds = " and ".join(name.capitalize() for name in floating)
        found.append(
            f"The noise is {kinds} in floating point: its last bits can tell more than the ideal"
            " mechanism does (Mironov 2012). The mechanisms discrete_gaussian and skellam have no"
            " such gap."
        )
    if any(
        charge.sampling.scheme in ("poisson", "fixed_size")
        and charge.sampling.rate < 1
        and charge.cohort_hidden
        for charge in charges
    ):
        found.append(
            "Sampling amplifies privacy only against those who do not learn who was drawn: not"
            " against the server, nor anybody who knows the run's seed."
        )
    return tuple(found)


def _silent(charge: Charge) -> bool:
    try:
        release = Release.of(charge)
    except ConfigError:
        return False
    return any(
        value == 0
        for name, value in release.parameters
        if name in ("noise_multiplier", "scale", "variance")
    )
