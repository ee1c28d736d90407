"""What stands behind a claim for users: noise that protects clients, or samples, so many of which
are one user's.
"""

from __future__ import annotations

from dataclasses import replace

from privfl.core import ConfigError, Ledger
from privfl.engine import Scenario


def behind_users(scenario: Scenario, recorded: Ledger | None) -> tuple[Scenario, Ledger | None]:
    """The same run, and the same ledger, as they claim for clients or samples: what an auditor's
    canaries can hold against noise. What a user pays follows from it by theorem
    (`dp.accounting.mixture`) and from bounds that the engine looks at before a run.

    Raises:
        ConfigError: the ledger is not of these users, or lets them off what they share.
    """
    if scenario.users is None:
        return scenario, recorded
    pipeline = scenario.pipeline()
    relation = pipeline.neighbours.relation if pipeline.private else scenario.relation
    plain = replace(scenario, users=None, relation=relation)
    if recorded is None:
        return plain, None
    behind = plain.pipeline()
    protected = behind.neighbours if pipeline.private else behind.samples
    group = pipeline.sampling.group if pipeline.private else scenario.users.max_records_per_user
    found = []
    for charge in recorded.charges:
        same = charge.unit == "user" and charge.users == scenario.users
        if not same or charge.sampling.group != group or charge.count % pipeline.copies:
            raise ConfigError(
                f"round {charge.round} of the recorded ledger is charged for a {charge.unit}, with"
                f" {charge.sampling.group} contributions each, and this run claims for users"
                f" {scenario.users.words}: give the ledger of the run itself."
            )
        drawn = replace(charge.sampling, group=1, people=None)
        subject = charge.subject.replace("user", protected.unit, 1)
        found.append(
            replace(
                charge,
                sampling=drawn,
                unit=protected.unit,
                subject=subject,
                relation=protected.relation,
                count=charge.count // pipeline.copies,
                users=None,
            )
        )
    return plain, Ledger(tuple(found))
