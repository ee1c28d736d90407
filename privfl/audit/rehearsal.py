"""A run played again with data of which the auditor knows the truth: who is a member, and who is
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfl.core import ClientId, ConfigError, Dataset, NotVisible, Seeds, View
from privfl.engine import Scenario
from privfl.federation import Federation, Run


@dataclass(frozen=True, slots=True)
class Ground:
    """The truth, and what the adversaries are given of it. Only scorers read the first two."""

    members: Mapping[ClientId, Tensor]
    inside: Tensor
    pool: Dataset
    auxiliary: Dataset


def divide(scenario: Scenario, held_out: float, seed: int) -> Ground:
    """Members, a pool in an order that tells nothing, and auxiliary samples, all disjoint.

    Raises:
        ConfigError: fewer than 30 samples are outside of training.
    """
    members: dict[ClientId, Tensor] = {}
    spare: list[Tensor] = []
    for client, index in scenario.clients.items():
        order = index[
            torch.randperm(len(index), generator=Seeds(seed).generator("audit", int(client)))
        ]
        kept = max(1, round(len(order) * (1 - held_out)))
        members[client] = order[:kept]
        spare.append(order[kept:])
    data = scenario.workload.data
    outside = _joined(data.take(torch.cat(spare)), scenario.test)
    inside = data.take(torch.cat(list(members.values())))
    mixed = torch.randperm(outside.n, generator=Seeds(seed).generator("audit outside"))
    n = min(inside.n, outside.n // 3)
    if n < 10:
        raise ConfigError(
            f"an audit needs at least 30 samples outside of training, and there are {outside.n}:"
            " raise held_out."
        )
    shown = torch.randperm(inside.n + n, generator=Seeds(seed).generator("audit pool"))
    pool = _joined(inside, outside.take(mixed[:n]))
    return Ground(members, shown < inside.n, pool.take(shown), outside.take(mixed[n:]))


def _joined(a: Dataset, b: Dataset) -> Dataset:
    return Dataset(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]), a.classes)


def rehearse(
    federation: Federation,
    clients: Mapping[ClientId, Tensor],
    rounds: int,
    data: Dataset | None = None,
) -> Run:
    """The same federation with other samples at its clients, all rounds kept."""
    work = federation.scenario.workload
    work = work if data is None else replace(work, data=data)
    scenario = replace(federation.scenario, clients=dict(clients), rounds=rounds, workload=work)
    kept = federation.audit.model_copy(update={"keep": "all"})
    return federation.with_scenario(scenario, audit=kept).run()


def views_of(run: Run, adversary: str) -> list[View] | str:
    """The adversary's views of all rounds, or why there are none."""
    try:
        return [run.view(adversary, number) for number in sorted(run.transcripts)]
    except (NotVisible, ConfigError) as reason:
        return str(reason)
