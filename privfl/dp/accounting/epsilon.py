"""One number for one plan: what epsilon some noise costs, and what noise some epsilon buys."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import get_args

from privfl.core import ConfigError, NeighbourRelation, Scheme, require, unknown
from privfl.dp.accounting.classical import advanced_epsilon, basic_epsilon, zcdp_epsilon
from privfl.dp.accounting.pld import pld_epsilon
from privfl.dp.accounting.rdp_account import RdpAccount, require_delta
from privfl.dp.accounting.release import Accountant, Release

_MOST_NOISE = 1e6
_LEAST_NOISE = 1e-2


def epsilon(
    *,
    noise_multiplier: int | float,
    sample_rate: int | float,
    steps: int,
    delta: int | float,
    accountant: Accountant = "rdp",
    relation: NeighbourRelation = "add_remove",
    sampler: Scheme = "poisson",
) -> float:
    """The epsilon that ``steps`` noisy sums of clipped contributions spend at ``delta``; inf
    without noise.

    Args:
        noise_multiplier: sigma over the clip C, whatever the relation; replacing a record moves the
            sum by 2C, and that is accounted for.
        sample_rate: the chance of a record (or client) to be in a step, or the fraction of a
            fixed-size sample.
        steps: how many releases.
        delta: the chance of failure; below one over the number of records.
        accountant: ``"rdp"`` or ``"pld"`` (tighter, slower); for comparison ``"moments"`` (RDP with
            the conversion of 2016), ``"zcdp"``, ``"basic"`` and ``"advanced"`` composition.
        relation: ``"add_remove"``, ``"replace_one"``, or ``"zero_out"`` (a record's contribution
            becomes zero).
        sampler: ``"poisson"``; ``"fixed_size"`` without replacement (replace_one or zero_out);
            ``"all"`` takes everybody in every step; ``"shuffled"`` takes everybody once an epoch,
            with no amplification: ceil(steps * rate) participations; ``"arrival"`` takes whoever is
            ready, who may be the same in every step.

    Raises:
        ConfigError: a number out of range, a sampler that does not fit the relation, or an
            accountant that cannot do the pair.

    >>> round(epsilon(noise_multiplier=1.1, sample_rate=0.01, steps=10_000, delta=1e-5), 4)
    5.632
    """
    return spent_by([noise_multiplier], [steps], sample_rate, delta, accountant, relation, sampler)


def spent_by(
    noise_multipliers: Sequence[int | float],
    counts: Sequence[int],
    sample_rate: int | float,
    delta: int | float,
    accountant: Accountant = "rdp",
    relation: NeighbourRelation = "add_remove",
    sampler: Scheme = "poisson",
) -> float:
    """`epsilon` of steps with different noise: ``counts[i]`` of them with
    ``noise_multipliers[i]``.
    """
    require_delta(delta)
    require_accountant(accountant)
    for count in counts:
        require.at_least(0, steps=count)
    halved = relation == "replace_one"
    releases: Counter[Release] = Counter()
    for z, count in zip(noise_multipliers, counts, strict=True):
        release = Release.gaussian(z / 2 if halved else z, sampler, sample_rate, relation)
        steps = math.ceil(count * sample_rate - 1e-9) if sampler == "shuffled" else count
        if sampler in ("all", "shuffled", "arrival"):
            release = Release.gaussian(z / 2 if halved else z, "all", 1.0, relation)
        releases[release] += steps
    if not sum(releases.values()):
        return 0.0
    if accountant == "pld":
        return pld_epsilon(releases, delta)
    if accountant in ("rdp", "moments"):
        account = RdpAccount()
        for release, count in releases.items():
            account = account.plus(release, count)
        return account.epsilon(delta, moments=accountant == "moments")
    return _classical(releases, delta, accountant)


def _classical(releases: Counter[Release], delta: float, accountant: Accountant) -> float:
    if len(releases) > 1:
        raise ConfigError(
            f"accountant '{accountant}' compares steps of equal noise only: use 'rdp' or 'pld' for"
            " a schedule."
        )
    ((release, count),) = releases.items()
    z, rate = release.parameter("noise_multiplier"), release.rate
    if accountant == "zcdp":
        return zcdp_epsilon(z, count, delta)
    if release.amplified and (release.scheme, release.relation) not in (
        ("poisson", "add_remove"),
        ("poisson", "zero_out"),
    ):
        raise ConfigError(
            f"accountant '{accountant}' knows Poisson sampling under add_remove only: use 'rdp' or"
            " 'pld'."
        )
    return (basic_epsilon if accountant == "basic" else advanced_epsilon)(z, rate, count, delta)


def require_accountant(accountant: str) -> None:
    """Refuse an accountant that is not offered.

    Raises:
        ConfigError: an unknown accountant, or one that is not offered.
    """
    if accountant == "gdp":
        raise ConfigError(
            "accountant 'gdp' is not offered: its limit theorem understates epsilon under"
            " subsampling; use 'pld'."
        )
    if accountant not in get_args(Accountant):
        raise ConfigError(unknown("accountant", accountant, get_args(Accountant)))


def calibrate(
    *,
    epsilon: int | float,
    delta: int | float,
    sample_rate: int | float,
    steps: int,
    accountant: Accountant = "rdp",
    relation: NeighbourRelation = "add_remove",
    sampler: Scheme = "poisson",
    schedule: Sequence[int | float] | None = None,
) -> float:
    """The least noise multiplier (within 1e-4 of itself, never too small) with which ``steps``
    steps spend at most ``epsilon``.

    ``schedule`` gives one factor a step: step t then has the noise multiplier ``schedule[t]`` times
    the result.

    Raises:
        ConfigError: a number out of range, or an epsilon that no noise up to 1e6 reaches.

    >>> import privfl.dp
    >>> z = calibrate(epsilon=3.0, delta=1e-5, sample_rate=0.01, steps=1000)
    >>> spent = privfl.dp.epsilon(noise_multiplier=z, sample_rate=0.01, steps=1000, delta=1e-5)
    >>> 2.99 < spent <= 3.0
    True
    """
    require.positive(epsilon=epsilon, steps=steps)
    factors, counts = [1.0], [steps]
    if schedule is not None:
        if len(schedule) != steps:
            raise ConfigError(
                f"a schedule gives one factor a step: {steps} steps, and {len(schedule)} factors."
            )
        require.positive(**{"a schedule's factors": min(schedule)})
        grouped = Counter(schedule)
        factors, counts = list(grouped), list(grouped.values())

    def spent(z: float, by: Accountant) -> float:
        return spent_by([z * f for f in factors], counts, sample_rate, delta, by, relation, sampler)

    start: Accountant = "rdp" if accountant == "pld" else accountant
    low, high = _LEAST_NOISE, 1.0
    while spent(high, start) > epsilon:
        low, high = high, high * 2
        if high > _MOST_NOISE:
            raise ConfigError(
                f"epsilon {epsilon} at delta {delta} over {steps} steps is out of reach: no noise"
                f" up to {_MOST_NOISE:g} gives it."
            )
    high = _least(lambda z: spent(z, start), epsilon, low, high)
    if accountant == "pld":  # tighter than RDP, so its answer lies below: far below at small rates
        high *= 1.001
        low = high * 0.6
        while low > _LEAST_NOISE and spent(low, "pld") <= epsilon:
            low, high = low * 0.6, low
        high = _least(lambda z: spent(z, "pld"), epsilon, low, high)
    return high


def _least(spent: Callable[[float], float], epsilon: float, low: float, high: float) -> float:
    """The least z between, with spent(z) <= epsilon: false position on log scales, which flattens
    both ends, then a safe bracket.
    """
    if spent(low) <= epsilon:
        return low
    at_low, at_high = spent(low), spent(high)
    while high > low * (1 + 1e-4):
        middle = math.sqrt(low * high)
        if math.isfinite(at_low) and 0 < at_high < at_low:
            share = math.log(at_low / epsilon) / math.log(at_low / at_high)
            middle = math.exp(math.log(low) + min(max(share, 0.05), 0.95) * math.log(high / low))
            middle *= 1 + 2e-5 if middle * (1 + 2e-5) < high else 1
        value = spent(middle)
        if value <= epsilon:
            high, at_high = middle, value
        else:
            low, at_low = middle, value
    return high
