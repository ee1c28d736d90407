"""What a config asks for and cannot have, said before anything is built or loaded."""

from __future__ import annotations

import torch

from privfl import catalog
from privfl.config import Config
from privfl.core import ConfigError, is_private, unknown
from privfl.data import Split
from privfl.training import Method


def refuse_unreadable(config: Config) -> None:
    """Say which rules would work where this one cannot, and through which channels it would.

    Raises:
        ConfigError: channel or aggregator is unknown, or the rule cannot read what the channel
            opens.
    """
    for seam, table, part in (
        ("channel", catalog.CHANNELS, config.channel),
        ("aggregator", catalog.AGGREGATORS, config.aggregator),
    ):
        if part["name"] not in table:
            refuse_in_the_wrong_place(seam, part["name"])
            raise ConfigError(unknown(seam, part["name"], table))
    name, over = config.aggregator["name"], config.channel["name"]
    if catalog.works(name, over):
        return
    why = catalog.verdict(name, over)["because"]
    able = [rule for rule in catalog.AGGREGATORS.usable() if catalog.works(rule, over)]
    through = [
        channel
        for channel in catalog.CHANNELS.usable()
        if catalog.works(name, channel) and channel != "plain"
    ]
    ways = (
        f"{name} works through {', '.join(through)}, and over plain"
        if through
        else f"{name} works over plain alone"
    )
    raise ConfigError(
        f"aggregator '{name}' does not go with channel '{over}': {why}."
        f" {ways[0].upper() + ways[1:]}; over {over} work: {', '.join(able)}. See 'privfl list"
        " --compat'."
    )


def refuse_in_the_wrong_place(seam: str, name: str) -> None:
    """Say where a rule that is named among the defences, or the other way round, belongs.

    Raises:
        ConfigError: it is.
    """
    if seam == "aggregator" and name in catalog.DEFENCES:
        raise ConfigError(
            f"'{name}' is no aggregator but a defence beside one: name it in defences, as in"
            f" defences: [{name}]."
        )
    if seam == "defence" and name in catalog.AGGREGATORS:
        raise ConfigError(
            f"'{name}' is no defence but an aggregator: name it there, as in aggregator: {name}."
        )


def refuse_idle_noise_seed(config: Config, method: Method) -> None:
    """A noise seed has streams for the noise on aggregates and on what is summed, and none for that
    of training: it would not repeat the run.

    Raises:
        ConfigError: training draws noise of its own.
    """
    if config.noise_seed is None or not is_private(method.gradient):
        return
    raise ConfigError(
        f"noise_seed={config.noise_seed} repeats the noise on aggregates, and that of DP-SGD is"
        " drawn at the clients from the operating system, whatever the seed: leave noise_seed out."
    )


def refuse_other_unit(config: Config, *, private: bool, noised: bool) -> None:
    """Refuse a unit that the noise does not claim: ``private`` training noises samples, and
    ``noised`` says that aggregates or shares are.

    Raises:
        ConfigError: it does not.
    """
    if (config.users is not None) != (config.unit == "user"):
        raise ConfigError(
            "unit: user and users go together: users: {ids: ...} says whose a sample is, and unit"
            " that the claim is for them. Set both, or neither."
        )
    if config.unit == "sample" and not private:
        raise ConfigError(
            "unit is sample, and nothing noises samples: set training.gradient to {name: dp, ...},"
            " or leave unit out."
        )
    if config.unit == "client" and not noised:
        raise ConfigError(
            "unit is client, and nothing noises what clients send: set mechanism, or leave unit"
            " out."
        )


def refuse_fitted(split: Split, *, noised: bool) -> None:
    """Refuse to claim privacy of rows from which something was taken before any noise.

    Raises:
        ConfigError: it was.
    """
    if noised and split.fitted:
        raise ConfigError(
            f"data set '{split.name}': {', '.join(split.fitted)} would be taken from clients' rows,"
            " and no noise counts that: give data.bounds, data.categories and data.classes, which"
            " are public, or leave such columns out with data.drop."
        )


def refuse_device(device: str) -> None:
    """Refuse a device before anything is loaded onto it.

    Raises:
        ConfigError: torch knows no such device, or cannot use it here; it keeps no values, or none
            in float64, in which losses and distances are summed.
    """
    try:
        torch.zeros(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"config key 'device': torch cannot use '{device}' here ({why}); 'cpu' always works."
        ) from None
