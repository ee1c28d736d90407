"""The server of a run over a network: a federation whose clients are elsewhere."""

from __future__ import annotations

from typing import Any

from privfl import assembly
from privfl.config import Config
from privfl.core import ConfigError
from privfl.crypto.primitives import Directory, Identity
from privfl.engine import Scenario, over_network
from privfl.engine.carrier import Carrier
from privfl.federation import Federation
from privfl.flower.carrier import Networked
from privfl.flower.heads import Terms
from privfl.flower.talk import SERVER
from privfl.flower.wire import Patience, Wire


def federation_over(
    config: Config,
    wire: Wire,
    identity: Identity,
    directory: Directory,
    *,
    patience: Patience | None = None,
) -> Federation:
    """The federation that a config describes, over a network. Mail is signed, whatever it says,
    and cohorts, batches and lots are drawn from secret coins unless it is ``repeatable``.

    Args:
        config: as `privfl run` has it; its data are the server's own: the test set, and samples
            that the server keeps.
        wire: what carries envelopes.
        identity: the keys of ``server``.
        directory: who is who.
        patience: how long nodes are waited for.

    Raises:
        ConfigError: a config that cannot be, or that needs clients' data at the server; keys that
            are not the server's.
    """
    if identity.who != SERVER:
        raise ConfigError(f"these are the keys of {identity.who}, and the server needs its own.")
    if config.noise_seed is not None:
        raise ConfigError(
            "noise_seed repeats noise, and over a network nothing stands in for it: leave it out."
        )
    signed = config.model_copy(update={"mail": "signed", "executor": "sequential"})
    scenario = over_network(assembly.scenario(signed, "server"))

    def carried(made: Scenario) -> Carrier[Any]:
        terms = Terms(signed, tuple(made.test.x.shape[1:]), made.test.classes)
        return Networked(made, terms, identity, directory, wire, patience)

    return Federation.elsewhere(scenario, signed, carried)
