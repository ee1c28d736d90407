"""The model of a run in its module: parameters, and the running statistics that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from privfl.core import BUFFERS, ClientId, ClientState, Dataset, Vector
from privfl.engine.state import RunState
from privfl.training import FedAvg, ServerHalf, WithStatistics, Workload, adapt


def statistics_of(workload: Workload, state: RunState) -> Vector | None:
    """The server's running statistics [s]; None where the model has none, or each client its own.

    They are released with the model: it does not compute without them.
    """
    method = workload.method
    if not isinstance(method, WithStatistics) or method.policy == "local":
        return None
    return method.held(ServerHalf(method, FedAvg()).broadcast(state.method))


def stand(workload: Workload, state: RunState, samples: Dataset) -> None:
    """Write a run's model into its module, to be measured on these samples. Where every client's
    running statistics are its own, the model is measured with those of the samples themselves
    (`training.adapt`): no client is asked for its own.
    """
    model, statistics = workload.model, statistics_of(workload, state)
    model.write(state.parameters)
    if statistics is not None:
        model.write_state(statistics)
    elif model.s:
        adapt(model.module, samples.x)


def stand_as(workload: Workload, state: RunState, client: ClientId) -> None:
    """Give the module the statistics with which a client computes: its own where they are local
    (of a client that never trained, those that it would begin with), else the server's.
    """
    method, statistics = workload.method, statistics_of(workload, state)
    if statistics is not None:
        workload.model.write_state(statistics)
    elif isinstance(method, WithStatistics):
        method.stand_as(workload.model, state.clients.get(client, ClientState()))


def continued(workload: Workload, first: RunState, left: RunState | None) -> RunState:
    """The first state of a run that goes on with the very model that the run before ``left``: with
    its statistics too. Where the model was set to another one, they are those that it began with.
    """
    statistics = None if left is None else statistics_of(workload, left)
    if left is None or statistics is None or not torch.equal(first.parameters, left.parameters):
        return first
    after = ServerHalf(workload.method, FedAvg()).remembering(first.method, {BUFFERS: statistics})
    return replace(first, method=after)


def tensors_by_name(workload: Workload, state: RunState) -> Mapping[str, Vector]:
    """The released model by name: parameters, and statistics where the server has them."""
    model, statistics = workload.model, statistics_of(workload, state)
    named = model.parts(state.parameters)
    if statistics is None:
        return named
    return {**named, **model.state_parts(statistics), STATISTICS: statistics}


STATISTICS = "statistics"
"""Under which a file of a model has all its running statistics [s]."""
