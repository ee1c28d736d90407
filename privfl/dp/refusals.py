"""Of which neighbours, and of which samples of clients, nothing is known that a claim could be made
from.
"""

from __future__ import annotations

from collections.abc import Mapping

from privfl.core import ConfigError, Neighbours, Sampling
from privfl.dp.opening import Opens, fewest_of, for_everybody
from privfl.dp.part_release import PartRelease

Releases = Mapping[str, PartRelease]
UNBOUNDED = (
    "private training noises samples, and nothing says how many of them one user has at most: set"
    " max_records_per_user in users."
)


def noised(releases: Releases) -> str:
    """The parts that are noised, in words."""
    return " and ".join(f"'{part}'" for part, one in releases.items() if one.noised)


def refuse_other_neighbours(releases: Releases, neighbours: Neighbours, sampling: Sampling) -> None:
    """Refuse neighbours who differ in another way than the sampling or the noise is made for.

    Raises:
        ConfigError: a client comes or goes, and cohorts are of a fixed size or of who is ready, or
            noise is correlated.
    """
    if (neighbours.relation, sampling.scheme) == ("add_remove", "fixed_size"):
        raise ConfigError(
            "a cohort of a fixed size has no neighbour with a client more or less: claim"
            " replace_one."
        )
    if (neighbours.relation, sampling.scheme) == ("add_remove", "arrival"):
        raise ConfigError(
            "who arrives when hangs on who else is there, so that a client that comes or goes"
            " changes who takes part in every round: claim zero_out (it is there and sends zero) or"
            " replace_one."
        )
    over = any(release.over is not None for release in releases.values())
    if over and neighbours.relation == "add_remove":
        raise ConfigError(
            "correlated noise is made for who takes part in which round, and a client that"
            " comes or goes may change that for others: claim zero_out (it is there and sends"
            " zero) or replace_one."
        )


def refuse_users_over_rounds(releases: Releases, sampling: Sampling) -> None:
    """Refuse users at several clients under noise that is made for one client's turns.

    Raises:
        ConfigError: it is.
    """
    if sampling.group > 1 and any(release.over is not None for release in releases.values()):
        raise ConfigError(
            f"correlated noise is made for how often one client comes, and a user at"
            f" {sampling.group} clients comes more often: set max_clients_per_user to 1."
        )


def refuse_personal_rates(releases: Releases, sampling: Sampling, *, amplified: bool) -> None:
    """Refuse rates of clients' own where they save nobody anything, or nobody knows what.

    Raises:
        ConfigError: whom the claim is against sees who is drawn; noise is in each row, or hangs
            together over rounds; a user is at several clients, who may be of several classes.
    """
    if not sampling.classes:
        return
    why = ""
    if any(one.rule is None for one in releases.values()):
        why = "every client noises its own row, and pays in full for each round that it is in"
    elif any(one.over is not None for one in releases.values()):
        why = "correlated noise is priced at one rate for everybody"
    elif sampling.group > 1:
        why = f"a user is at {sampling.group} clients, which may have several rates"
    elif not amplified:
        why = "whoever the claim is against sees who is drawn, so a lower rate saves nothing"
    if why:
        raise ConfigError(
            f"clients are drawn at rates of their own, and {why}: use the sampler poisson, or noise"
            " on the aggregate against those who do not see cohorts."
        )


def refuse_unpriced_sample(releases: Releases, neighbours: Neighbours, sampling: Sampling) -> None:
    """Refuse samples whose price is known for Gaussian noise alone.

    Raises:
        ConfigError: the noise is another, and releases are several, or a client of a sample of
            fixed size is there and sends zero.
    """
    if _all_gaussian(releases):
        return
    if len(releases) > 1:
        raise ConfigError(
            f"a round releases {noised(releases)} of one sampled cohort, whose joint cost is"
            " known for Gaussian noise only: use gaussian, or a sampler that takes everybody."
        )
    if sampling.scheme == "fixed_size" and neighbours.relation == "zero_out":
        raise ConfigError(
            "a fixed-size sample has another client in the place of one that is not drawn,"
            " which zero_out prices for Gaussian noise only: claim replace_one."
        )


def _all_gaussian(releases: Releases) -> bool:
    events = [
        None if release.mechanism is None else release.mechanism.event(1)
        for release in releases.values()
        if release.over is None
    ]
    return all(event is not None and event.mechanism == "gaussian" for event in events)


def refuse_seen_presence(
    neighbours: Neighbours, sampling: Sampling, opens: Opens, *, sees_drawn: bool
) -> None:
    """Refuse neighbours of whom one more is there where that is seen: in whether a round is
    released, or in who is drawn (``sees_drawn``).

    Raises:
        ConfigError: a client comes or goes, and that is seen.
    """
    if neighbours.relation != "add_remove":
        return
    population = sampling.population
    if not for_everybody(opens, population):
        least = max(fewest_of(opens, population), 2)
        raise ConfigError(
            f"of {population} clients a round is released with {least} contributions or more,"
            " so that it is, or is not, tells whether a client is there: claim zero_out (it is"
            " there and sends zero) or replace_one."
        )
    if sees_drawn:
        raise ConfigError(
            "whom the claim is made against sees who takes part, and so whether a client is"
            " there at all: claim zero_out (it is there and sends zero) or replace_one."
        )
