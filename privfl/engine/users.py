"""What is refused of a run that claims privacy for users."""

from __future__ import annotations

from collections import Counter

from privfl.core import ConfigError, is_private
from privfl.dp.refusals import UNBOUNDED
from privfl.engine.scenario import Scenario


def check_users(scenario: Scenario) -> None:
    """Refuse users of whom nothing can be promised: data that do not say whose a sample is, or that
    are not within the bounds; noise of two kinds, or none.

    Raises:
        ConfigError: they are.
    """
    bounds, ids = scenario.users, scenario.user_ids
    if bounds is None or ids is None:
        return
    private = is_private(scenario.workload.method.gradient)
    noised = scenario.pipeline().private
    if not private and not noised:
        raise ConfigError(
            "privacy is claimed for users, and nothing adds noise: set mechanism, or"
            " training.gradient to {name: dp, ...}."
        )
    if private and noised:
        raise ConfigError(
            "privacy is claimed for users, and both private training and a mechanism add noise:"
            " each claims something of users, and the two cannot be added up. Leave one out."
        )
    if private:
        _check_samples(scenario)
    records: Counter[int] = Counter()
    clients: Counter[int] = Counter()
    for client, index in scenario.clients.items():
        held = Counter(ids[index.cpu()].tolist())
        if bounds.one_user_per_client and len(held) > 1:
            raise ConfigError(
                f"users.one_user_per_client is set, and client {client} holds samples of"
                f" {len(held)} users: deal the data out by user (partition natural), or leave it"
                " out."
            )
        records += held
        clients += Counter(held.keys())
    for what, most, found in (
        ("max_records_per_user", bounds.max_records_per_user, records),
        ("max_clients_per_user", bounds.max_clients_per_user, clients),
    ):
        user, count = max(found.items(), key=lambda one: one[1])
        if most is not None and count > most:
            raise ConfigError(
                f"users.{what} is {most}, and user {user} has {count}: drop what is beyond before"
                " the run, as privfl.data.within_bounds does."
            )


def _check_samples(scenario: Scenario) -> None:
    bounds = scenario.users
    if bounds is not None and bounds.max_clients_per_user > 1:
        raise ConfigError(
            f"users.max_clients_per_user is {bounds.max_clients_per_user}, and clients that train"
            " privately each charge for their own samples, under rates of their own: for users set"
            " it to 1, so that each is at one client."
        )
    if bounds is not None and bounds.max_records_per_user is None:
        raise ConfigError(UNBOUNDED)
