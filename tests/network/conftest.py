"""Federations whose nodes are functions from envelope to envelope, asleep in between."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from privfl import assembly
from privfl.config import load
from privfl.core import Seeds
from privfl.crypto.primitives import Directory, Identity
from privfl.flower.disk import NodeDisk
from privfl.flower.inprocess import InProcess
from privfl.flower.party import NodeParty
from privfl.flower.policy import Policy
from privfl.flower.server import federation_over
from privfl.flower.wire import Patience

BASE = {
    "data": {"name": "digits", "clients": 3},
    "rounds": 2,
    "repeatable": True,
    "executor": "sequential",
    "training": {"name": "sgd", "weighting": "uniform", "steps": 2},
    "bound": {"name": "clip", "l2": 1.0},
}
HELPERS = ("server/1", "dealer", "decryptor/0", "decryptor/1", "decryptor/2", "key_holder")
CHANNELS = [
    "plain",
    "secagg",
    "chain",
    "bucketed_secagg",
    "additive_sharing",
    "chain",
    "two_server",
    "bfv",
    "ckks",
    "mp_rlwe",
    "paillier",
    "one_time_rlwe",
    "encrypted_cosine",
]
OPEN = Policy(channels=CHANNELS, training=["sgd", "scaffold", "fednova"], quorum=1, repeatable=True)


def same(who, back, raw):
    return raw


@dataclass
class Machines:
    """The machines of one federation."""

    folder: Path
    clients: int = 3
    policies: dict = field(default_factory=dict)
    asleep: bool = True

    def __post_init__(self):
        self.parties = [*(f"client/{i}" for i in range(self.clients)), *HELPERS]
        self.keys = {who: Identity.fresh(who) for who in (*self.parties, "server")}
        self.directory = Directory.of({w: key.public for w, key in self.keys.items()})
        self.disks = {w: NodeDisk(self.folder / w.replace("/", "-")) for w in self.parties}

    def started(self, config):
        """Fresh processes on these disks."""
        config = load(config)
        split = assembly.data_set(config)
        parts, _ = assembly.deal(config, split, Seeds(config.seed))
        nodes = {}
        for who in self.parties:
            own = None
            if who.startswith("client/") and int(who[7:]) in parts:
                own = partial(split.train.take, parts[int(who[7:])])
            policy = self.policies.get(who, OPEN)
            nodes[who] = NodeParty(
                self.keys[who], self.directory, policy, self.disks[who], own, self.asleep
            )
        return nodes

    def federation(self, config, tap=same, nodes=None, patience=None):
        wire = InProcess({w: n.answer for w, n in (nodes or self.started(config)).items()}, tap)
        return federation_over(
            load(config),
            wire,
            self.keys["server"],
            self.directory,
            patience=patience or Patience(0.3, 0.3, 0.3),
        )


@pytest.fixture
def machines(tmp_path):
    return Machines(tmp_path / "nodes")


@pytest.fixture
def make(tmp_path):
    return lambda clients, **given: Machines(tmp_path / "nodes", clients, **given)


@pytest.fixture
def base():
    return BASE
