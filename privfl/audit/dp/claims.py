"""The audit of what a run claims in differential privacy, on the user's own model: canary clients
and canary samples go through the run's own code.

Nothing of the real data is used, so an audit spends no privacy.
"""

from __future__ import annotations

from collections.abc import Callable

from privfl.audit.dp.claim import Claim
from privfl.audit.dp.clients import audit_clients
from privfl.audit.dp.of_users import behind_users
from privfl.audit.dp.samples import audit_samples
from privfl.audit.dp.settings import Settings
from privfl.core import ConfigError, Ledger, is_private
from privfl.federation import Federation

DEFAULT = Settings()
"""How thorough an audit is unless it is said."""


def audit_claims(
    federation: Federation,
    *,
    recorded: Ledger | None = None,
    settings: Settings = DEFAULT,
    progress: Callable[[str], None] | None = None,
) -> tuple[Claim, ...]:
    """Audit every unit that a federation makes a claim for: clients under noise on the aggregate,
    samples under DP-SGD.

    What is audited is the run's own configuration: model, loss, method with its parts, seats,
    bound, channel, rule, sampler, noise and accountant; only local training's output (client level)
    or the samples (sample level) are the auditor's. Long runs are audited for their first rounds,
    against what those rounds claim. Of a run that claims for users the claims behind that are
    audited, for clients or samples (`behind_users`). ``recorded`` is the ledger of a run that was
    made: its claim is then held against what its configuration really does. Attackers are left out.

    Raises:
        ConfigError: there is no noise, so there is nothing to audit; rounds are of who is ready.
    """
    if not federation.scenario.pace.synchronous:
        raise ConfigError(
            f"an audit of claims plays rounds with cohorts that it chooses, and under"
            f" {type(federation.scenario.pace).__name__} they are of who is ready: audit the run"
            " with pace synchronous, whose noise is the same."
        )
    scenario, recorded = behind_users(federation.scenario, recorded)
    delta = federation.audit.delta
    found = []
    before = scenario.workload.model.read()
    if scenario.pipeline().private:
        found.append(audit_clients(scenario, recorded, settings, delta, progress))
    gradient = scenario.workload.method.gradient
    if is_private(gradient):
        scenario.workload.model.write(before)
        found.append(audit_samples(scenario, gradient, recorded, settings, delta, progress))
    scenario.workload.model.write(before)
    if not found:
        raise ConfigError(
            "there is no noise in this run, so it claims nothing: set mechanism, or"
            " training.gradient to {name: dp, ...}."
        )
    return tuple(found)
