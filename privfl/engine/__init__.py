"""The round engine: sample, train, bound, send, open, aggregate, record."""

from privfl.engine.adversaries import measures
from privfl.engine.attackers import Attacker, Schedule, choose_clients
from privfl.engine.engine import Engine, Played
from privfl.engine.folder import RunFolder, read_ledger
from privfl.engine.reading import hosts, opens_to, reads_ids, rule_reads, rule_reads_channel, unreadable
from privfl.engine.records import RoundRecord
from privfl.engine.samplers import All, FixedSize, Poisson, Sampler
from privfl.engine.scenario import Scenario
from privfl.engine.seams import CarriesNoise, Described, Grouped
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
    "Grouped",
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
    "hosts",
    "measures",
    "opens_to",
    "read_ledger",
    "reads_ids",
    "rule_reads",
    "rule_reads_channel",
    "unreadable",
]
