"""Where the coins of a run come from whose parties are on several machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from privfl.core import CoinSource, ConfigError, SecretCoins, Seeds, is_private
from privfl.engine.scenario import Scenario
from privfl.training import Method


def coins_of(seed: int, *, repeatable: bool) -> CoinSource:
    """What one party on a network draws from: its operating system, unless everybody is told to
    draw from the run's seed.

    >>> coins_of(3, repeatable=True), coins_of(3, repeatable=False)
    (Seeds(seed=3), SecretCoins())
    """
    return Seeds(seed) if repeatable else SecretCoins()


def secret_batches(method: Method) -> Method:
    """The method with batches of private training that nobody can draw again; one that is not
    private, or draws them so already, is itself.

    Raises:
        ConfigError: a gradient or method of somebody's own that cannot be set so; or one whose
            noise a seed repeats.
    """
    if not is_private(method.gradient) or method.gradient.sampling == "secret":
        return method
    gradient: Any = method.gradient
    try:
        secret = replace(gradient, sampling="secret")
        return replace(method, gradient=secret)  # type: ignore[type-var]
    except TypeError as no_such_field:
        raise ConfigError(
            f"{type(gradient).__name__} draws its batches from a seed, and over a network batches"
            " are secret: give it sampling='secret', or set repeatable: true, which claims nothing"
            " of batches."
        ) from no_such_field


def over_network(scenario: Scenario) -> Scenario:
    """The scenario as parties on several machines play it.

    The server draws cohorts and lots, and each client its batches, from the operating system of the
    machine that they are on (`core.SecretCoins`), and what sampling saves is claimed of secret
    coins. Where the scenario is ``repeatable`` it stays as it is: all draw from its seed, as a
    simulation does, and end with the same bits as that.

    Raises:
        ConfigError: noise or batches that a seed repeats, in a scenario that is not ``repeatable``.
    """
    if scenario.repeatable:
        return scenario
    if scenario.noise.repeatable or scenario.channel.able.seeded:
        raise ConfigError(
            "noise_seed repeats the noise, and over a network nothing follows from a seed: leave"
            " noise_seed out, or set repeatable: true for a run that claims nothing."
        )
    method = secret_batches(scenario.workload.method)
    drawn = "drawn by each party from the operating system of its machine"
    return replace(
        scenario,
        workload=replace(scenario.workload, method=method),
        threat=replace(scenario.threat, sampling="secret"),
        coins=SecretCoins(),
        facts={**scenario.facts, "cohorts, batches and lots": drawn},
    )
