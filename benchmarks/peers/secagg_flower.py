"""Secure aggregation, ours against Flower's SecAgg+ mod and workflow, turn by turn in Flower's own
environment.

``python -m benchmarks.peers.secagg_flower N D K T DROPS REPEATS`` prints one JSON object: CPU
seconds of all threads in one round, a client's share and the server's, the least of the repeats,
and the exchanges of a round.
Clients drop out after key sharing, where Flower survives it too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.compat.common import recorddict_compat as compat
from flwr.server import ServerConfig
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp.grid import Grid
from flwr.supercore.task_identity import TaskIdentity

from privfl.core import Bounded, Faults, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled

logging.disable(logging.CRITICAL)


class InProcess(Grid):
    """A grid that hands messages to the mod in this process, and keeps the clients' CPU time apart
    from the server's.
    """

    def __init__(self, updates: dict[int, np.ndarray], dropping: set[int]) -> None:
        self.updates, self.dropping = updates, dropping
        self.contexts = {i: Context(1, i, {}, RecordDict(), {}) for i in updates}
        self.client_seconds = 0.0
        self.copying = 0.0
        self.exchange = 0

    def set_run(self, run: Any) -> None:
        pass

    @property
    def run(self) -> Any:
        return None

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.updates)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if self.exchange >= 2 and node in self.dropping:
                continue
            began = time.process_time()
            mine = Message(
                RecordDict(
                    {
                        **dict(message.content.array_records.items()),
                        **{
                            name: MetricRecord(dict(record))
                            for name, record in message.content.metric_records.items()
                        },
                        **{
                            name: ConfigRecord(dict(record))
                            for name, record in message.content.config_records.items()
                        },
                    }
                ),
                node,
                message.metadata.message_type,
                group_id=message.metadata.group_id,
            )
            trained = self._trained(node)
            started = time.process_time()
            self.copying += started - began
            reply = secaggplus_mod(
                mine,
                self.contexts[node],
                lambda msg, _, content=trained: Message(content, reply_to=msg),
            )
            self.client_seconds += time.process_time() - started
            replies.append(reply)
        self.exchange += 1
        return replies

    def _trained(self, node: int) -> RecordDict | None:
        if self.exchange != 2:
            return None
        fit = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.updates[node]]), 1, {})
        return compat.fitres_to_recorddict(fit, keep_input=False)


def theirs(
    updates: dict[int, np.ndarray], k: int, t: int, dropping: set[int]
) -> tuple[float, float, np.ndarray, int]:
    """CPU seconds of all clients and of the server, the mean, and how often the server asked the
    clients and heard them.
    """
    TaskIdentity._run_id = TaskIdentity._task_id = TaskIdentity._node_id = 1
    grid = InProcess(updates, dropping)
    manager = SimpleClientManager()
    for node in updates:
        manager.register(GridClientProxy(node_id=node, grid=grid, run_id=1))
    strategy = FedAvg(min_fit_clients=len(updates), min_available_clients=len(updates))
    context = LegacyContext(
        Context(1, 0, {}, RecordDict(), {}), ServerConfig(num_rounds=1), strategy, manager
    )
    context.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord([np.zeros(1, dtype=np.float32)])
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    workflow = SecAggPlusWorkflow(
        num_shares=k + 1, reconstruction_threshold=t, max_weight=1.0, clipping_range=1.0
    )
    began = time.process_time()
    workflow(grid, context)
    server = time.process_time() - began - grid.client_seconds - grid.copying
    return (
        grid.client_seconds,
        server,
        context.state.array_records[MAIN_PARAMS_RECORD].to_numpy_ndarrays()[0],
        grid.exchange,
    )


def ours(
    updates: dict[int, torch.Tensor], k: int, t: int, dropping: set[int]
) -> tuple[float, float, np.ndarray, int]:
    """The same, at the same resolution: 22 bits a value, stochastic rounding, a ring of 32 bits."""
    d = len(next(iter(updates.values())))
    channel = SecAgg(graph=k, threshold=t, bits=22, ring=32, rounding="stochastic")
    plan = RoundPlan(1, tuple(updates), d=d, l2=1.0)
    now = Enrolled.fresh(channel, updates)
    server, members = now.server, now.clients
    bounded = {i: Bounded(i, update, 1.0) for i, update in updates.items()}
    began = time.process_time()
    parties = {client_party(i): member.enter(plan, bounded[i]) for i, member in members.items()}
    outcome = drive(
        server.enter(plan), parties, Faults(silent_from={client_party(i): 4 for i in dropping})
    )
    clients = time.process_time() - began - outcome.seconds["server"]
    if outcome.opened is None:
        raise RuntimeError(f"our round failed: {outcome.aborts}")
    mean = outcome.opened.what.mean().numpy()
    spoke = {message.exchange for message in outcome.messages if message.receiver == "server"}
    return clients, outcome.seconds["server"], mean, len(spoke)


def main(n: int, d: int, k: int, t: int, drops: int, repeats: int) -> None:
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    updates = {}
    for i in range(1, n + 1):
        x = torch.randn(d, generator=g)
        updates[i] = 0.99 * x / x.norm()
    arrays = {i: u.numpy() for i, u in updates.items()}
    dropping = set(range(2, 2 + drops))
    exact = np.mean([arrays[i] for i in updates if i not in dropping], axis=0)
    best: dict[str, float] = {}
    for _ in range(repeats):
        for name, run, given in (("ours", ours, updates), ("theirs", theirs, arrays)):
            with contextlib.redirect_stdout(sys.stderr):
                clients, server, mean, exchanges = run(given, k, t, dropping)
            error = float(np.abs(mean - exact).max())
            if error > 1e-4:
                raise RuntimeError(f"{name}: the mean is off by {error}")
            for part, seconds in (
                ("client", clients / n),
                ("server", server),
                ("round", clients + server),
            ):
                best[f"{name}_{part}"] = min(best.get(f"{name}_{part}", np.inf), seconds)
            best[f"{name}_error"] = error
            best[f"{name}_exchanges"] = exchanges
    print(json.dumps(best))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
