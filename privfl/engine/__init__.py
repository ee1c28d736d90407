"""The round engine: sample, train, bound, send, open, aggregate, record."""

from privfl.engine.adversaries import measures
from privfl.engine.ahead import round_ahead
from privfl.engine.attackers import Attacker, AttackSchedule, choose_clients
from privfl.engine.budget import Budget
from privfl.engine.buffered import BufferedPace, StaleSynchronous
from privfl.engine.calibration import noise_for
from privfl.engine.chain import TRANSCRIPT, read_chain
from privfl.engine.checks import check_scenario
from privfl.engine.coins import coins_of, over_network, secret_batches
from privfl.engine.compatibility import check_declared, rule_reads_channel, unreadable
from privfl.engine.engine import Engine, RoundResult
from privfl.engine.every_bucket import EveryBucket
from privfl.engine.fingerprint import fingerprint, packages_of
from privfl.engine.folder import (
    PUBLIC,
    RunFolder,
    holds_run,
    read_ledger,
    refuse_lost_config,
    start_ledger,
    tensors_of,
)
from privfl.engine.forward import facts_in, forward_in, forward_of
from privfl.engine.journal import Journal
from privfl.engine.opening import too_few
from privfl.engine.pace import Clock, Pace, Synchronous
from privfl.engine.records import RoundRecord
from privfl.engine.releases import pipeline_of
from privfl.engine.rounding import rounding_said
from privfl.engine.samplers import (
    All,
    CyclicPoisson,
    FixedSize,
    PersonalPoisson,
    Poisson,
    Sampler,
    Separated,
)
from privfl.engine.scenario import Scenario
from privfl.engine.server_oracles import ServerOracles
from privfl.engine.session import MAIL, MailMode, Session
from privfl.engine.standing import (
    STATISTICS,
    stand,
    stand_as,
    statistics_of,
    tensors_by_name,
)
from privfl.engine.state import RunState
from privfl.engine.stopping import EarlyStopping, Metric, measured_by
from privfl.engine.verifying import Break, Verified, verify

__all__ = [
    "MAIL",
    "PUBLIC",
    "STATISTICS",
    "TRANSCRIPT",
    "All",
    "AttackSchedule",
    "Attacker",
    "Break",
    "Budget",
    "BufferedPace",
    "Clock",
    "CyclicPoisson",
    "EarlyStopping",
    "Engine",
    "EveryBucket",
    "FixedSize",
    "Journal",
    "MailMode",
    "Metric",
    "Pace",
    "PersonalPoisson",
    "Poisson",
    "RoundRecord",
    "RoundResult",
    "RunFolder",
    "RunState",
    "Sampler",
    "Scenario",
    "Separated",
    "ServerOracles",
    "Session",
    "StaleSynchronous",
    "Synchronous",
    "Verified",
    "check_declared",
    "check_scenario",
    "choose_clients",
    "coins_of",
    "facts_in",
    "fingerprint",
    "forward_in",
    "forward_of",
    "holds_run",
    "measured_by",
    "measures",
    "noise_for",
    "over_network",
    "packages_of",
    "pipeline_of",
    "read_chain",
    "read_ledger",
    "refuse_lost_config",
    "round_ahead",
    "rounding_said",
    "rule_reads_channel",
    "secret_batches",
    "stand",
    "stand_as",
    "start_ledger",
    "statistics_of",
    "tensors_by_name",
    "tensors_of",
    "too_few",
    "unreadable",
    "verify",
]
