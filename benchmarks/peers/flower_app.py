"""FedAvg on MNIST as a Flower user writes it: softmax regression, 100 clients, batch 32, one local
epoch.

The client app lies in an importable module: defined in ``__main__``, Ray would pickle the data with
every message.
"""

from __future__ import annotations

import functools

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

CLIENTS, BATCH, LR = 100, 32, 0.1
app = ClientApp()


def fresh_model() -> nn.Module:
    """Softmax regression from zero: nothing about the start depends on a seed."""
    layer = nn.Linear(784, 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


@functools.cache
def mnist() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training and test samples."""
    from privfl.data import load

    split = load("mnist")
    return split.train.x, split.train.y, split.test.x, split.test.y


def parts() -> tuple[torch.Tensor, ...]:
    """Each client's 600 samples."""
    return torch.randperm(60_000, generator=torch.Generator().manual_seed(0)).split(600)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One local epoch of SGD."""
    torch.set_num_threads(1)
    x, y, _, _ = mnist()
    mine = parts()[int(context.node_config["partition-id"])]
    model = fresh_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for batch in mine[torch.randperm(len(mine))].split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(mine)}),
        }
    )
    return Message(content=content, reply_to=message)
