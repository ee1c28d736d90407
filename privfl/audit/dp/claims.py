"""The audit of what a run claims: canary clients and canary samples go through the run's own code,
and epsilon is bounded from below.

Canary i has an axis of its own. A fair coin decides whether it is there for a whole run; its score
is what the run publishes along its axis. Nothing of the real data is used, so an audit spends no
privacy.
"""

from __future__ import annotations

from collections.abc import Callable

from privfl.audit.dp.claim import Claim
from privfl.audit.dp.clients import audit_clients
from privfl.audit.dp.samples import audit_samples
from privfl.core import ConfigError, Ledger, is_private, require
from privfl.federation import Federation

CANARIES = 2000
"""How many canaries all plays have together."""


def audit_claims(
    federation: Federation,
    *,
    recorded: Ledger | None = None,
    canaries: int = CANARIES,
    confidence: float = 0.95,
    progress: Callable[[str], None] | None = None,
) -> tuple[Claim, ...]:
    """Audit every unit that a federation makes a claim for: clients under noise on the aggregate,
    samples under DP-SGD.

    What is audited is the run's own configuration, engine, bound, channel, rule, sampler and noise;
    only local training (client level) or the data (sample level) are canaries. Long runs are
    audited for their first rounds, against what those rounds claim. ``recorded`` is the ledger of a
    run that was made: its claim is then held against what its configuration really does.

    Raises:
        ConfigError: there is no noise, so there is nothing to audit; fewer than 8 canaries.
    """
    require.at_least(8, canaries=canaries)
    scenario = federation.scenario
    found = []
    if scenario.pipeline().private:
        found.append(audit_clients(federation, recorded, canaries, confidence, progress))
    gradient, delta = scenario.workload.method.gradient, federation.audit.delta
    if is_private(gradient):
        found.append(
            audit_samples(scenario, gradient, recorded, canaries, confidence, delta, progress)
        )
    if not found:
        raise ConfigError(
            "there is no noise in this run, so it claims nothing: set mechanism, or"
            " training.gradient to {name: dp, ...}."
        )
    return tuple(found)
