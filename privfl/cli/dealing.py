"""``privfl deal``: what a dealer makes before a run, so that it need not be online."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.running import Settings
from privfl.cli.screen import say
from privfl.core import ConfigError
from privfl.crypto.primitives import Identity
from privfl.engine import round_ahead
from privfl.federation import Federation

SPARE = 2
"""Dealings beyond one a round: a round that fails, or is played again after a crash, takes
another."""


def deal(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The run's config.")],
    out: Annotated[
        Path, typer.Option("--out", help="The folder for the files, one for each server.")
    ],
    settings: Settings = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", help=f"How many dealings; one a round and {SPARE} more unless said."
        ),
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(
            help="The dealer's identity file, made where there is none; a key of its own that is"
            " forgotten unless said."
        ),
    ] = None,
) -> None:
    """Deal ahead, as the dealer of a config: a file for each server, so that the dealer need not be
    online.
    """
    federation = Federation.from_config(config, settings or ())
    scenario = federation.scenario
    if scenario.channel.able.deals is None:
        raise ConfigError(
            f"{type(scenario.channel).__name__}, as it is set, has no dealer that can deal ahead:"
            " that is for two_server with security 'semi_honest'."
        )
    plan = round_ahead(scenario)
    dealer = _dealer(identity)
    rounds = scenario.rounds + SPARE if count is None else count
    scenario.channel.able.deals.deal(plan, out, rounds, dealer)
    key = dealer.hello[:32].hex()
    say(
        f"privfl: {rounds} dealings for rounds of {plan.n} clients and {plan.d} values are in"
        f" {out}, a file for each server. Who has a server's file reads every update with the other"
        " server: bring each to its server as you bring keys, and leave no copy."
    )
    say(
        f"privfl: run with --set channel.preprocessing={out} --set channel.dealer_key={key}"
        f"{'' if identity else ' (the key is forgotten: nobody can deal more under it)'}"
    )


def _dealer(path: Path | None) -> Identity:
    if path is None:
        return Identity.fresh("dealer")
    if not path.exists():
        made = Identity.fresh("dealer")
        made.write(path)
        return made
    found = Identity.read(path)
    if found.who != "dealer":
        raise ConfigError(f"{path} is the identity of {found.who}, and not of the dealer.")
    return found
