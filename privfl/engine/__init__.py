"""The round engine: sample, train, bound, send, open, aggregate, record."""

from privfl.engine.adversaries import measures
from privfl.engine.attackers import Attacker, Schedule, choose_clients
from privfl.engine.engine import Engine, Played
from privfl.engine.folder import RunFolder, read_ledger
from privfl.engine.records import RoundRecord
from privfl.engine.samplers import All, FixedSize, Poisson, Sampler
from privfl.engine.scenario import CarriesNoise, Described, Scenario, opens_to, rule_reads, rule_reads_channel
from privfl.engine.session import Session
from privfl.engine.state import RunState
from privfl.engine.trusted import Trusted

__all__ = [
    "All",
    "Attacker",
    "CarriesNoise",
    "Described",
    "Engine",
    "FixedSize",
    "Played",
    "Poisson",
    "RoundRecord",
    "RunFolder",
    "RunState",
    "Sampler",
    "Scenario",
    "Schedule",
    "Session",
    "Trusted",
    "choose_clients",
    "measures",
    "opens_to",
    "read_ledger",
    "rule_reads",
    "rule_reads_channel",
]
