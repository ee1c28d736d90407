"""A run that claims for users is audited for what stands behind that: honest ones raise no alarm,
and a ledger that lets users off what they share is refused.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.audit import Settings, audit_claims
from privfl.core import ConfigError, Dataset, Ledger, LocalPlan, UserBounds
from privfl.dp import Clip, DPGradient, Gaussian
from privfl.engine import Poisson
from privfl.training import LocalSGD

QUICK = Settings(pairs=20, climb=3, values=5000, inclusions=2000, canaries=40)


def data(client, users, records=4):
    rng = torch.Generator().manual_seed(client)
    n = len(users) * records
    ids = torch.tensor(users).repeat_interleave(records)
    return Dataset(
        torch.randn(n, 20, generator=rng),
        torch.randint(3, (n,), generator=rng),
        3,
        {"person": ids},
    )


def by_samples(**gradient):
    held = [data(client, range(10 * client, 10 * client + 10)) for client in range(3)]
    dp = DPGradient(1.0, 2.0, batch_size=10, **gradient)
    training = LocalSGD(plan=LocalPlan(batch_size=10, steps=4), gradient=dp)
    return Federation(
        nn.Linear(20, 3),
        held,
        held[0],
        rounds=3,
        training=training,
        users=UserBounds("person", max_records_per_user=4),
        executor="sequential",
    )


def by_clients(**users):
    held = [data(client, [client // 3]) for client in range(12)]
    return Federation(
        nn.Linear(20, 3),
        held,
        held[0],
        rounds=4,
        training=LocalSGD(weighting="uniform"),
        sampler=Poisson(0.5),
        bound=Clip(1.0),
        aggregator=Mean(weighted=False, denominator=6.0),
        mechanism=Gaussian(2.0),
        users=UserBounds("person", max_clients_per_user=3, one_user_per_client=True),
        executor="sequential",
    )


@pytest.mark.parametrize("made", [by_samples, by_clients])
def test_honest_runs_for_users_raise_no_alarm_by_themselves_or_with_their_ledger(made):
    recorded = made().run().ledger
    for ledger in (None, recorded):
        [claim] = audit_claims(made(), recorded=ledger, settings=QUICK)
        assert claim.unit in ("sample", "client")
        assert claim.findings
        assert not any(finding.alarm for finding in claim.findings)


@pytest.mark.parametrize("made", [by_samples, by_clients])
def test_a_ledger_that_lets_users_off_what_they_share_is_refused(made):
    recorded = made().run().ledger
    for change in ({"group": 1}, {"group": 2}):
        cheaper = [replace(c, sampling=replace(c.sampling, **change)) for c in recorded.charges]
        with pytest.raises(ConfigError, match="give the ledger of the run itself"):
            audit_claims(made(), recorded=Ledger(tuple(cheaper)), settings=QUICK)
    others = [replace(c, users=replace(c.users, ids="household")) for c in recorded.charges]
    with pytest.raises(ConfigError, match="give the ledger of the run itself"):
        audit_claims(made(), recorded=Ledger(tuple(others)), settings=QUICK)
