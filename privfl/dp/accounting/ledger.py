"""What a ledger has spent, by unit and subject: RDP and PLD side by side, or the reason why no
claim can be made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from privfl.core import Charge, ConfigError, Ledger, NeighbourRelation, Unit
from privfl.dp.accounting.pld import NoPld, pld_epsilon
from privfl.dp.accounting.rdp_account import RdpAccount, require_delta
from privfl.dp.accounting.release import Release


@dataclass(frozen=True, slots=True)
class Spent:
    """What one subject has spent. Both figures are upper bounds; ``pld`` is None where no loss
    distribution is known or asked for.

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


def spent_epsilon(ledger: Ledger, delta: float) -> tuple[float | None, str]:
    """The largest RDP epsilon over the subjects of a ledger, with what a reader must know; None
    with the reason where one is refused.

    A few milliseconds, so it can be asked after every round; `spend` adds the tighter PLD figure.

    >>> spent_epsilon(Ledger(), 1e-5)
    (None, 'nothing was charged')
    """
    spent = spend(ledger, delta, pld=False)
    if not spent:
        return None, "nothing was charged"
    for one in spent:
        if one.refused is not None:
            return None, one.refused
    dearest = max(spent, key=Spent.claim)
    said = f"RDP at delta {delta:g}, {dearest.unit} level, {dearest.relation}"
    return dearest.claim(), "; ".join((said, *dearest.notes))


def _spent(unit: Unit, subject: str, charges: list[Charge], delta: float, pld: bool) -> Spent:
    relation, count = charges[0].relation, sum(charge.count for charge in charges)
    refused = _refusal(charges)
    notes = _notes(charges, delta)
    if refused is None:
        try:
            rdp, order, tight, more = _figures(charges, delta, pld)
            return Spent(
                unit, subject, relation, delta, count, rdp, order, tight, None, notes + more
            )
        except ConfigError as impossible:
            refused = str(impossible)
    return Spent(unit, subject, relation, delta, count, refused=refused, notes=notes)


def _refusal(charges: list[Charge]) -> str | None:
    """Why these charges support no claim, or None."""
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


def _notes(charges: list[Charge], delta: float) -> tuple[str, ...]:
    notes = []
    if any(not charge.cohort_hidden for charge in charges):
        notes.append("the adversary sees who takes part, so sampling amplifies nothing.")
    if any(charge.sampling.scheme == "shuffled" for charge in charges):
        notes.append("shuffled batches are counted without amplification.")
    least = min(charge.sampling.population for charge in charges)
    if delta * least >= 1:
        notes.append(
            f"delta {delta:g} is not below 1 / {least}: a mechanism that publishes one whole record"
            " would satisfy it."
        )
    return tuple(notes)


def _figures(
    charges: list[Charge], delta: float, pld: bool
) -> tuple[float, float, float | None, tuple[str, ...]]:
    """RDP epsilon, its order, PLD epsilon and notes of whoever took part in the dearest rounds."""
    dearest: tuple[float, float, Counter[Release]] | None = None
    for releases in _by_participant(charges):
        account = RdpAccount()
        for release, count in releases.items():
            account = account.plus(release, count)
        epsilon, order = account.optimum(delta)
        if dearest is None or epsilon > dearest[0]:
            dearest = epsilon, order, releases
    if dearest is None:
        return 0.0, float("inf"), 0.0, ()
    epsilon, order, releases = dearest
    if epsilon == float("inf"):
        return epsilon, order, epsilon, ("a release carried no noise: epsilon is infinite.",)
    if not pld:
        return epsilon, order, None, ()
    try:
        return epsilon, order, pld_epsilon(releases, delta), ()
    except NoPld as unknown:
        return epsilon, order, None, (str(unknown),)


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
