"""Run Flower's own simulation of `flower_app` and print seconds a round and the test accuracy as
JSON on the last line.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers import flower_app

stamps: list[float] = []
final: dict[str, float] = {}


class Timed(FedAvg):
    """FedAvg that notes when each round's aggregation is done."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]):
        result = super().aggregate_train(server_round, replies)
        stamps.append(time.perf_counter())
        return result


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds, then the accuracy."""
    rounds = int(sys.argv[1])
    model = flower_app.fresh_model()
    strategy = Timed(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=flower_app.CLIENTS,
        min_available_nodes=flower_app.CLIENTS,
    )
    result = strategy.start(
        grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=rounds
    )
    model.load_state_dict(result.arrays.to_torch_state_dict())
    _, _, x, y = flower_app.mnist()
    with torch.no_grad():
        final["accuracy"] = float((model(x).argmax(dim=1) == y).float().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_simulation(
        server_app=app,
        client_app=flower_app.app,
        num_supernodes=flower_app.CLIENTS,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "include_dashboard": False},
        },
    )
    seconds = [after - before for before, after in itertools.pairwise(stamps)]
    print(json.dumps({"seconds": seconds, **final}))
