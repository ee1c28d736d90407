"""What a report says about a ledger: both accountants' figures for each unit, and what its readers
must be warned of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from privfl.core import Charge, ConfigError, Ledger, Unit
from privfl.dp.accounting.changes import Change, changes
from privfl.dp.accounting.ledger import Spent, payers, repeated, spend
from privfl.dp.accounting.profile import group_epsilon
from privfl.dp.accounting.release import Release
from privfl.dp.accounting.risk import Risk, risk_of
from privfl.dp.accounting.sentence import above, sentence

MOST_RELEASES = 12
"""Different sampled releases whose loss distributions are computed at the end of a run: each takes
up to a second or two.
"""
MOST_EPSILON = 30.0
"""Beyond it a loss distribution's grid has millions of points and takes minutes, to say that
nothing is private.
"""
GROUPS = (2, 5, 10)
"""So many records of one person, or clients, whose epsilon together a report shows."""
_FLOATING = ("gaussian", "laplace")


@dataclass(frozen=True, slots=True)
class Stated:
    """One unit's line of a report: the dearest subject by RDP, and the largest PLD figure over all
    subjects; both are upper bounds.

    ``epsilon`` is the smaller of the two; all three are None where ``refused`` says why no claim
    can be made. ``subjects`` is how many pay, ``releases`` how many releases the dearest pays for.
    ``as_drawn`` is the epsilon against those who know the seed that drew the samples, where one
    did: the others are then of the same run with secret coins. ``claim`` is the statement in words,
    ``groups`` the epsilon of k neighbours together by k, ``risk`` what is left to any attack, each
    of whoever is worst off by it, and ``changes`` what would change the RDP figure.
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
    as_drawn: float | None = None
    claim: str = ""
    groups: Mapping[int, float] = field(default_factory=dict)
    risk: Risk | None = None
    changes: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite figure is the word, which JSON has no number for."""
        plain = asdict(self) | {
            "notes": list(self.notes),
            "groups": {str(k): _finite(value) for k, value in self.groups.items()},
            "changes": [{"what": c.what, "epsilon": _finite(c.epsilon)} for c in self.changes],
        }
        return {key: _finite(value) for key, value in plain.items()}


def _finite(value: Any) -> Any:
    return "infinite" if value == math.inf else value


@dataclass(frozen=True, slots=True)
class Statement:
    """All lines and warnings."""

    lines: tuple[Stated, ...]
    warnings: tuple[str, ...]


def statement(ledger: Ledger, delta: float, excluded: Sequence[str] = ()) -> Statement:
    """What a ledger has spent at ``delta``, by unit, with both accountants; PLD is left out, and
    said so, where it would take long. ``excluded`` is what the claim does not count.

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
    >>> print(told.lines[0].claim)
    Against whoever reads the released models, who learns no cohort, coin or seed: (7.05, 1e-05), \
client, add_remove, rounds 0..0. Against the server: none.
    >>> told.warnings[0][:44]
    'The noise is Gaussian in floating point: its'
    """
    told = claims(ledger, delta, excluded)
    return Statement(tuple(_whole(ledger, one) for one in told), _warnings(ledger.charges))


def claims(ledger: Ledger, delta: float, excluded: Sequence[str] = ()) -> tuple[Stated, ...]:
    """The lines of a ledger's `statement` with their claims, and without what follows from the
    whole profile: groups, risk, and what would change them.

    Raises:
        ConfigError: delta is not in (0, 1).

    >>> claims(Ledger(), 1e-5)
    ()
    """
    by_unit: dict[Unit, list[Spent]] = {}
    for spent in spend(ledger, delta, pld=False):
        by_unit.setdefault(spent.unit, []).append(spent)
    return tuple(_said(ledger, unit, spent, delta, excluded) for unit, spent in by_unit.items())


def printed(ledger: Ledger, delta: float) -> float:
    """The largest epsilon of a ledger's lines, as its statement prints it, without the lines.

    Raises:
        ConfigError: delta is not in (0, 1), a claim is refused (the sentence says why), or nothing
            was charged.
    """
    by_unit: dict[Unit, list[Spent]] = {}
    for spent in spend(ledger, delta, pld=False):
        by_unit.setdefault(spent.unit, []).append(spent)
    figures = []
    for unit, all_spent in by_unit.items():
        line = _line(ledger, unit, all_spent, delta)
        if line.epsilon is None:
            raise ConfigError(f"no epsilon for {line.subject}: {line.refused}")
        figures.append(line.epsilon)
    if not figures:
        raise ConfigError("nothing was charged, so there is no epsilon.")
    return max(figures)


def _said(
    ledger: Ledger, unit: Unit, spent: Sequence[Spent], delta: float, excluded: Sequence[str]
) -> Stated:
    """A unit's line with its claim in words."""
    told = _line(ledger, unit, spent, delta)
    mine = [c for c in ledger.charges if (c.unit, c.subject) == (unit, told.subject)]
    dearest = next(one for one in spent if one.subject == told.subject)
    drawn = [one.as_drawn for one in spent if one.as_drawn is not None]
    told = replace(told, as_drawn=max(drawn, default=None))
    figures = replace(dearest, rdp=told.epsilon, pld=None, as_drawn=told.as_drawn)
    return replace(told, claim=sentence(figures, mine, excluded))


def _whole(ledger: Ledger, told: Stated) -> Stated:
    """A line with what follows from the whole profile."""
    if told.epsilon is None or not told.epsilon < math.inf:
        return told
    delta, charges = told.delta, [one for one in ledger.charges if one.unit == told.unit]
    releases, *others = payers(charges)
    by_pld = told.pld is not None and len(others) < MOST_RELEASES
    return replace(
        told,
        groups={k: group_epsilon(releases, delta, k, pld=by_pld, others=others) for k in GROUPS},
        risk=risk_of(releases, pld=by_pld, others=others),
        changes=changes(charges, delta),
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
            f"PLD was not computed: at an epsilon of {above(told.rdp)} it would take minutes;"
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
    if any(map(repeated, charges)):
        found.append(
            "The samples follow from a seed, as far as is said: every amplified epsilon is that of"
            " the same run with secret coins, and holds against nobody who knows the seed. Draw"
            " them from the operating system, and say so: threat {sampling: secret}, in code"
            " Threat(sampling='secret')."
        )
    elif any(c.cohort_hidden and c.sampling.rate < 1 for c in charges):
        found.append(
            "Sampling amplifies privacy only against those who do not learn who was drawn: not"
            " against whoever draws."
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
