"""What a ledger has spent, by unit and subject: RDP and PLD side by side, or the reason why no
claim can be made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from privfl.core import Charge, ConfigError, Ledger, NeighbourRelation, Unit
from privfl.dp.accounting.pld import NoPld, pld_epsilon
from privfl.dp.accounting.rdp_account import RdpAccount, require_delta
from privfl.dp.accounting.release import Release


@dataclass(frozen=True, slots=True)
class Spent:
    """What one subject has spent. Both figures are upper bounds; ``pld`` is None where no loss
    distribution is known or asked for.

    ``as_drawn`` is what it costs against those who know the seed of the cohorts and batches, where
    these follow from one: the other figures are then those of the same run with secret coins.
    ``refused`` says why the charges support no claim; then there are no figures. ``notes`` are what
    a reader must know beside them.
    """

    unit: Unit
    subject: str
    relation: NeighbourRelation
    delta: float
    releases: int
    rdp: float | None = None
    order: float | None = None
    pld: float | None = None
    refused: str | None = None
    notes: tuple[str, ...] = ()
    as_drawn: float | None = None

    @property
    def epsilon(self) -> float | None:
        """The smaller of the two bounds, or None where the claim is refused."""
        known = [bound for bound in (self.rdp, self.pld) if bound is not None]
        return min(known) if known else None

    def claim(self) -> float:
        """The epsilon.

        Raises:
            ConfigError: the claim is refused, and why.
        """
        if self.epsilon is None:
            raise ConfigError(f"no epsilon for {self.subject}: {self.refused}")
        return self.epsilon


def spend(ledger: Ledger, delta: float, *, pld: bool = True) -> tuple[Spent, ...]:
    """What every subject of a ledger has spent at ``delta``; empty for an empty ledger.

    Charges that make a claim unsound are refused in words: weights that differ outside of the
    sensitivity, a mean over those who survived under add_remove, noise that a seed repeats, mixed
    relations, a sampler that the relation does not have. A cohort that the adversary sees pays for
    every round in which it took part, without amplification. ``pld=False`` leaves the slower
    accountant out, for figures after every round.

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
    >>> [spent] = spend(Ledger((charge,) * 100), delta=1e-5)
    >>> round(spent.rdp, 4), round(spent.pld, 4)
    (7.8993, 7.0466)
    """
    require_delta(delta)
    subjects: dict[tuple[Unit, str], list[Charge]] = {}
    for charge in ledger.charges:
        subjects.setdefault((charge.unit, charge.subject), []).append(charge)
    return tuple(
        _spent(unit, subject, charges, delta, pld) for (unit, subject), charges in subjects.items()
    )


def spent_epsilon(ledger: Ledger, delta: float, *, pld: bool = False) -> tuple[float | None, str]:
    """The largest RDP epsilon over the subjects of a ledger, with what a reader must know; None
    with the reason where one is refused.

    A few milliseconds, so it can be asked after every round; ``pld`` takes the smaller of it and
    the tighter PLD figure, in up to a second or two.

    >>> spent_epsilon(Ledger(), 1e-5)
    (None, 'nothing was charged')
    """
    spent = spend(ledger, delta, pld=pld)
    if not spent:
        return None, "nothing was charged"
    for one in spent:
        if one.refused is not None:
            return None, one.refused
    dearest = max(spent, key=Spent.claim)
    by = "RDP" if dearest.pld is None or dearest.claim() < dearest.pld else "PLD"
    said = f"{by} at delta {delta:g}, {dearest.unit} level, {dearest.relation}"
    return dearest.claim(), "; ".join((said, *dearest.notes))


def _spent(unit: Unit, subject: str, charges: list[Charge], delta: float, pld: bool) -> Spent:
    relation, count = charges[0].relation, sum(charge.count for charge in charges)
    refused = _refusal(charges, delta)
    notes = _notes(charges)
    if refused is None:
        try:
            rdp, order, tight, more = _figures(charges, delta, pld)
            return Spent(
                unit,
                subject,
                relation,
                delta,
                count,
                rdp,
                order,
                tight,
                None,
                notes + more,
                _as_drawn(charges, delta, pld),
            )
        except ConfigError as impossible:
            refused = str(impossible)
    return Spent(unit, subject, relation, delta, count, refused=refused, notes=notes)


def repeated(charge: Charge) -> bool:
    """Whether sampling makes a charge cheaper, and a seed repeats the sample."""
    drawn = charge.sampling.scheme in ("poisson", "fixed_size") and charge.sampling.rate < 1
    return drawn and charge.cohort_hidden and charge.coins == "public"


def _as_drawn(charges: list[Charge], delta: float, pld: bool) -> float | None:
    """What charges cost whose samples a seed repeats, against those who know it."""
    if not any(repeated(charge) for charge in charges):
        return None
    seen = [replace(c, cohort_hidden=False) if repeated(c) else c for c in charges]
    rdp, _, tight, _ = _figures(seen, delta, pld and _short(seen))
    return rdp if tight is None else min(rdp, tight)


def _short(charges: list[Charge]) -> bool:
    """Whether a loss distribution of all is known without a grid, or nearly."""
    return all(charge.event.mechanism == "gaussian" for charge in charges) and all(
        not charge.cohort_hidden or charge.sampling.rate >= 1 for charge in charges
    )


def delta_protects_nobody(delta: float, population: int) -> str | None:
    """Why ``delta`` is too large for so many, or None: at 1 / population or more, a mechanism that
    publishes one whole record of somebody drawn at random would satisfy it (Dwork, Roth 2014,
    section 2.3).

    >>> delta_protects_nobody(1e-5, 60_000) is None
    True
    """
    if delta * population < 1:
        return None
    return (
        f"delta {delta:g} is not below 1 / {population}: a mechanism that publishes one whole"
        f" record would satisfy it. Use a delta below {1 / population:.2g}."
    )


def _refusal(charges: list[Charge], delta: float) -> str | None:
    """Why these charges support no claim, or None."""
    most = max(charge.sampling.people or charge.sampling.population for charge in charges)
    protects_nobody = delta_protects_nobody(delta, most)
    if protects_nobody is not None:
        return protects_nobody
    if any(charge.repeatable_noise for charge in charges):
        return (
            "void: the noise came from a seed, and who knows the seed subtracts it. Leave"
            " noise_seed out for a guarantee."
        )
    void = next((charge.void for charge in charges if charge.void), "")
    if void:
        return f"void: {void}"
    if any(not charge.uniform and not charge.weights_counted for charge in charges):
        return (
            "contributions had different weights, and the sensitivity does not count them: a client"
            " of weight w has the noise multiplier z / (K w) only. Use uniform weights, or put the"
            " largest weight into the sensitivity."
        )
    if any(charge.relation == "add_remove" and not charge.public_denominator for charge in charges):
        return (
            "the mean divided by the number of those present, which an added or removed client"
            " changes too. Give a public denominator, or use relation 'replace_one'."
        )
    relations = sorted({charge.relation for charge in charges})
    if len(relations) > 1:
        return (
            f"charges under the relations {' and '.join(relations)} cannot be added up: use one"
            " relation for the whole run."
        )
    return None


def _notes(charges: list[Charge]) -> tuple[str, ...]:
    notes = []
    if any(not charge.cohort_hidden for charge in charges):
        notes.append("the adversary sees who takes part, so sampling amplifies nothing.")
    if any(charge.sampling.scheme == "shuffled" for charge in charges):
        notes.append("shuffled batches are counted without amplification.")
    if any(charge.sampling.scheme == "arrival" for charge in charges):
        notes.append("arrival is no sampling: each client pays for every round that it was in.")
    if any(repeated(charge) for charge in charges):
        notes.append(
            "the samples follow from a seed: this is the epsilon of the same run with secret coins."
        )
    return tuple(notes)


def _figures(
    charges: list[Charge], delta: float, pld: bool
) -> tuple[float, float, float | None, tuple[str, ...]]:
    """RDP epsilon, its order, PLD epsilon and notes of whoever took part in the dearest rounds."""
    epsilon, order, releases = dearest_releases(charges, delta)
    if epsilon == float("inf"):
        return epsilon, order, epsilon, ("a release carried no noise: epsilon is infinite.",)
    if not pld:
        return epsilon, order, None, ()
    try:
        return epsilon, order, pld_epsilon(releases, delta), ()
    except NoPld as unknown:
        return epsilon, order, None, (str(unknown),)


def dearest_releases(
    charges: Iterable[Charge], delta: float
) -> tuple[float, float, Counter[Release]]:
    """What whoever took part in the dearest rounds pays for, with its RDP epsilon and the order of
    that.

    Raises:
        ConfigError: a release that no accountant knows.
    """
    dearest: tuple[float, float, Counter[Release]] = 0.0, float("inf"), Counter()
    for releases in _by_participant(charges):
        account = RdpAccount()
        for release, count in releases.items():
            account = account.plus(release, count)
        epsilon, order = account.optimum(delta)
        if not dearest[2] or epsilon > dearest[0]:
            dearest = epsilon, order, releases
    return dearest


def payers(charges: Iterable[Charge]) -> list[Counter[Release]]:
    """What everybody pays for, without those who pay for nothing that another does not pay for too:
    who is dearest at one delta need not be at another.

    Raises:
        ConfigError: a release that no accountant knows.
    """
    by_subject: dict[str, list[Charge]] = {}
    for charge in charges:
        by_subject.setdefault(charge.subject, []).append(charge)
    found: list[Counter[Release]] = []
    all_of_them = [one for mine in by_subject.values() for one in _by_participant(mine)]
    for one in sorted(all_of_them, key=lambda paid: -paid.total()):
        if not any(one <= other for other in found):
            found.append(one)
    return found


def _by_participant(charges: Iterable[Charge]) -> list[Counter[Release]]:
    """Releases of everybody who took part where that is public, once per distinct history; else of
    one subject that pays for all.
    """
    everybody: Counter[Release] = Counter()
    own: dict[int, Counter[Release]] = {}
    for charge in charges:
        release = Release.of(charge)
        if charge.cohort is not None and not charge.cohort_hidden:
            for client in charge.cohort:
                own.setdefault(client, Counter())[release] += charge.count
        else:
            everybody[release] += charge.count
    histories = {tuple(sorted(mine.items(), key=repr)) for mine in own.values()} or {()}
    return [everybody + Counter(dict(history)) for history in sorted(histories, key=repr)]
