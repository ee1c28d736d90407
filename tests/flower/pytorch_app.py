"""An app as Flower's own template for PyTorch makes it: a net, its training, a ClientApp with train
and evaluate, and the main of a ServerApp. Nothing here knows of privfl.
"""

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.GroupNorm(1, 3)
        self.fc = nn.Linear(27, 2)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.norm(self.conv(x))), 2)
        return self.fc(x.flatten(1))


def load_data(partition_id, n=24):
    rng = torch.Generator().manual_seed(partition_id)
    y = torch.arange(n + 8 * partition_id) % 2
    x = torch.randn(len(y), 1, 8, 8, generator=rng) + y[:, None, None, None] * 0.8
    return x, y


def train_fn(net, data, epochs, lr):
    x, y = data
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    total = 0.0
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / epochs


def client_app(*mods, metrics=True, before=None):
    """The template's ClientApp. Its train function is the template's own; only ``mods`` is new."""
    app = ClientApp()

    @app.train(mods=list(mods))
    def train(msg, context):
        model = Net()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        data = load_data(context.node_config["partition-id"])
        if before is not None:
            before(context)
        epochs, lr = context.run_config["local-epochs"], msg.content["config"]["lr"]
        train_loss = train_fn(model, data, epochs, lr)
        measured = {"train_loss": train_loss, "num-examples": len(data[0])}
        if not metrics:
            del measured["train_loss"]
        content = RecordDict(
            {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(measured)}
        )
        return Message(content=content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg, context):
        model = Net()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        x, y = load_data(context.node_config["partition-id"])
        right = (model(x).argmax(1) == y).float().mean().item()
        record = MetricRecord({"eval_acc": right, "num-examples": len(x)})
        return Message(content=RecordDict({"metrics": record}), reply_to=msg)

    return app
