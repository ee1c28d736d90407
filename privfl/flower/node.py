"""A node's folder, and the resident process that works in it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from privfl import assembly
from privfl.assembly.validation import set_aside
from privfl.config import load
from privfl.core import ConfigError, Dataset, PartyId, Seeds, client_of
from privfl.crypto.primitives import Directory, Identity
from privfl.flower.disk import NodeDisk
from privfl.flower.party import NodeParty
from privfl.flower.policy import Policy
from privfl.flower.resident import serve

LOG = logging.getLogger("privfl.network")


class NodeConfig(BaseModel):
    """A node's file, ``node.yaml``: whose it is, where the SuperLink is, its data and its policy.

    ``data`` is as in a run's config: a data set by name, a file (``{name: csv, ...}``) or a
    function of the operator's own; all its training samples are this client's, or those of client
    number ``client`` where ``clients`` and a ``partition`` deal them out as a simulation with that
    ``seed`` does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    party: PartyId
    superlink: str
    policy: Policy
    data: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> NodeConfig:
        """The file of a node's folder.

        Raises:
            ConfigError: there is none, or a key or value that cannot be.
        """
        path = folder / "node.yaml"
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls.model_validate(given)
        except OSError as error:
            raise ConfigError(f"cannot read '{path}': {error.strerror or error}.") from None
        except (yaml.YAMLError, ValidationError) as wrong:
            raise ConfigError(f"'{path}' is no node's file: {wrong}") from None


def own_samples(part: dict[str, Any]) -> Dataset:
    """The samples that a node's ``data`` names.

    Raises:
        ConfigError: as a run's data, or there is no such client.
        DataMissing: they are not on this machine.

    >>> own_samples({"name": "digits", "clients": 3, "client": 0}).classes
    10
    """
    data = dict(part)
    who, seed = data.pop("client", None), data.pop("seed", 0)
    config = load({"data": data, "seed": seed})
    split, _ = set_aside(assembly.data_set(config), config.data.validation, Seeds(config.seed))
    if who is None:
        return split.train
    dealt, _ = assembly.deal(config, split, Seeds(config.seed))
    if who not in dealt:
        raise ConfigError(f"data.client is {who!r}, and there are {len(dealt)} clients.")
    return split.train.take(dealt[who])


def party_in(folder: Path, *, asleep: bool = False) -> tuple[NodeConfig, NodeParty]:
    """The node of a folder, as `setup.set_up` makes it and its operator has changed it.

    Raises:
        ConfigError: a file is missing or wrong; a client without data, or keys of another party;
            another process works in it.
    """
    config = NodeConfig.read(folder)
    identity = Identity.read(folder / "identity")
    if identity.who != config.party:
        raise ConfigError(
            f"'{folder}' holds the keys of {identity.who}, and its file is {config.party}'s."
        )
    data = config.data
    if client_of(config.party) is not None and data is None:
        raise ConfigError(f"{config.party} is a client: give its file data.")
    own = None if data is None else (lambda: own_samples(data))
    directory = Directory.read(folder / "directory.json")
    disk = NodeDisk(folder / "state")
    disk.hold()
    return config, NodeParty(identity, directory, config.policy, disk, own, asleep)


def run_node(folder: Path) -> None:
    """Be the node of a folder, until the process ends.

    Raises:
        ConfigError: as `party_in`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config, party = party_in(folder)
    LOG.info("%s answers to %s", config.party, config.superlink)
    serve(config.superlink, folder / "ca.crt", folder / "node.key", party.answer)
