"""A run played again with data of which the auditor knows the truth: who is a member, and who is
not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from privfl.core import Channel, ClientId, ConfigError, Dataset, NotVisible, Seeds, View
from privfl.core.field_values import field_values
from privfl.engine import Scenario
from privfl.federation import Federation, Run


@dataclass(frozen=True, slots=True)
class Ground:
    """The truth, and what the adversaries are given of it: the pool and the auxiliary samples.

    ``members`` are each client's positions in the training data. Each client has others of its own
    in the pool that nobody trained on: ``owner`` says whose a sample of the pool is, ``inside``
    whether it was trained on. ``auxiliary`` are samples of the same sources that are neither.
    """

    members: Mapping[ClientId, Tensor]
    inside: Tensor
    owner: Tensor
    pool: Dataset
    auxiliary: Dataset


OUTSIDE = 30
"""How many samples an audit needs outside of training: with fewer no interval says anything."""
_MOST_HELD = 0.9


def require_enough(scenario: Scenario, held_out: float) -> None:
    """Refuse data of which an audit could tell nothing, before anything trains.

    Raises:
        ConfigError: fewer than 30 samples would be outside of training, or no client would hold one
            back; with a share that would do, where there is one.
    """
    outside, held = _outside(scenario, held_out)
    if outside >= OUTSIDE and held:
        return
    most, some = _outside(scenario, _MOST_HELD)
    told = (
        f"an audit needs at least {OUTSIDE} samples outside of training, the test samples among"
        f" them, and at held_out {held_out:g} there are {outside}"
        if outside < OUTSIDE
        else f"an audit needs clients that hold samples back, and at held_out {held_out:g} none of"
        " them does"
    )
    if most >= OUTSIDE and some:
        raise ConfigError(f"{told}: raise held_out ({_MOST_HELD} leaves {most}).")
    if not some:
        raise ConfigError(f"{told}: give a client two samples or more.")
    raise ConfigError(
        f"{told}, at {_MOST_HELD} no more than {most}: there are too few samples to audit. Give at"
        f" least {OUTSIDE - most} more (of clients, or test samples)."
    )


def _outside(scenario: Scenario, held_out: float) -> tuple[int, int]:
    """How many samples are outside of training, and how many of these the clients hold back."""
    sizes = [len(index) for index in scenario.clients.values()]
    held = sum(max(0, n - _kept(n, held_out)) for n in sizes)
    return held + scenario.test.n, held


def _kept(n: int, held_out: float) -> int:
    return max(1, round(n * (1 - held_out)))


def divide(scenario: Scenario, held_out: float, seed: int) -> Ground:
    """Each client's samples dealt into members, candidates that are no members, and auxiliary
    samples, to which the test set is added; the pool in an order that tells nothing.

    Members and candidates of one client are exchangeable: what tells them apart was learnt from
    training, and not from what the client is like.

    Raises:
        ConfigError: fewer than 30 samples are outside of training (`require_enough`).
    """
    require_enough(scenario, held_out)
    data, seeds = scenario.workload.data.to("cpu"), Seeds(seed)  # adversaries compute there
    members: dict[ClientId, Tensor] = {}
    others: list[Tensor] = []
    whose: list[int] = []
    spare: list[Tensor] = []
    for client, index in scenario.clients.items():
        order = index[torch.randperm(len(index), generator=seeds.generator("audit", int(client)))]
        kept = _kept(len(order), held_out)
        asked = min(kept, -(-(len(order) - kept) // 2))
        members[client] = order[:kept]
        others.append(order[kept : kept + asked])
        whose += [int(client)] * asked
        spare.append(order[kept + asked :])
    inside = torch.cat(list(members.values()))
    owner = torch.cat(
        [torch.full((len(index),), int(client)) for client, index in members.items()]
        + [torch.tensor(whose)]
    )
    n = len(inside)
    shown = torch.randperm(len(owner), generator=seeds.generator("audit pool"))
    pool = data.take(torch.cat([inside, *others])[shown])
    auxiliary = _joined(data.take(torch.cat(spare)), scenario.test.to("cpu"))
    return Ground(members, shown < n, owner[shown], pool, auxiliary)


def _joined(a: Dataset, b: Dataset) -> Dataset:
    return Dataset(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]), a.classes)


def rehearse(
    federation: Federation,
    clients: Mapping[ClientId, Tensor],
    rounds: int,
    data: Dataset | None = None,
    seed: int | None = None,
) -> Run:
    """The same federation with other samples at its clients (and with another seed, where one is
    given, and other noise, also where a seed repeats it), all rounds kept.
    """
    work = federation.scenario.workload
    work = work if data is None else replace(work, data=data)
    scenario = replace(federation.scenario, clients=dict(clients), rounds=rounds, workload=work)
    scenario = scenario if seed is None else _redrawn(scenario, seed)
    kept = federation.audit.model_copy(update={"keep": "all"})
    return federation.with_scenario(scenario, audit=kept).run()


def _redrawn(scenario: Scenario, seed: int) -> Scenario:
    """With chance of its own. Runs that are held against each other must not share their noise: it
    would fall out of every comparison, and protect nobody in the audit.
    """
    channel: Channel[Any] = scenario.channel
    source = field_values(channel).get(channel.kind.source_field)
    if channel.kind.takes_noise and source is not None:
        own: Any = {channel.kind.source_field: source.at(seed)}
        channel = dataclasses.replace(channel, **own)  # type: ignore[type-var]
    return replace(scenario, seed=seed, noise=scenario.noise.at(seed), channel=channel)


def views_of(run: Run, adversary: str) -> list[View] | str:
    """The adversary's views of all rounds, or why there are none."""
    try:
        return [run.view(adversary, number) for number in sorted(run.transcripts)]
    except (NotVisible, ConfigError) as reason:
        return str(reason)
