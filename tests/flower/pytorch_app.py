"""An app as Flower's own template for PyTorch makes it: a net, its training, a ClientApp with train
and evaluate. Nothing here knows of privfl.
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


def template_train(msg, context):
    """The body of the template's train function."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    data = load_data(context.node_config["partition-id"])
    epochs, lr = context.run_config["local-epochs"], msg.content["config"].get("lr", 0.3)
    train_loss = train_fn(model, data, epochs, lr)
    model_record = ArrayRecord(model.state_dict())
    metrics = {"train_loss": train_loss, "num-examples": len(data[0])}
    content = RecordDict({"arrays": model_record, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


def client_app(*mods, before=lambda context: None):
    """The template's ClientApp, of which only the ``mods`` are new; ``before`` is told that it
    trains.
    """
    app = ClientApp()

    @app.train(mods=list(mods))
    def train(msg, context):
        before(context)
        return template_train(msg, context)

    @app.evaluate()
    def evaluate(msg, context):
        model = Net()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        x, y = load_data(context.node_config["partition-id"])
        right = (model(x).argmax(1) == y).float().mean().item()
        record = MetricRecord({"eval_acc": right, "num-examples": len(x)})
        return Message(content=RecordDict({"metrics": record}), reply_to=msg)

    return app
