"""The round engine: sample, train, bound, send, open, aggregate, record."""

from privfl.engine.adversaries import measures
from privfl.engine.attackers import Attacker, AttackSchedule, choose_clients
from privfl.engine.compatibility import (
    hosts,
    opens_to,
    reads_ids,
    rule_reads,
    rule_reads_channel,
    unreadable,
)
from privfl.engine.engine import Engine, RoundResult
from privfl.engine.folder import RunFolder, read_ledger
from privfl.engine.forward import forward_of
from privfl.engine.records import RoundRecord
from privfl.engine.samplers import All, FixedSize, Poisson, Sampler
from privfl.engine.scenario import Scenario
from privfl.engine.seams import CarriesNoise, Described, Grouped
from privfl.engine.server_oracles import ServerOracles
from privfl.engine.session import Session
from privfl.engine.state import RunState

__all__ = [
    "All",
    "AttackSchedule",
    "Attacker",
    "CarriesNoise",
    "Described",
    "Engine",
    "FixedSize",
    "Grouped",
    "Poisson",
    "RoundRecord",
    "RoundResult",
    "RunFolder",
    "RunState",
    "Sampler",
    "Scenario",
    "ServerOracles",
    "Session",
    "choose_clients",
    "forward_of",
    "hosts",
    "measures",
    "opens_to",
    "read_ledger",
    "reads_ids",
    "rule_reads",
    "rule_reads_channel",
    "unreadable",
]
