"""Apps laid out as Flower's own quickstarts are (pyproject.toml, a package of task.py,
client_app.py, server_app.py), and the page's lines that make them private.
"""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "flower-apps.md"
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "my-app"
version = "1.0.0"
description = ""
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "somebody"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "my_app.server_app:app"
clientapp = "my_app.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 1
local-epochs = 1
"""
NUMPY = {
    "task": '''\
import numpy as np


def get_model():
    return np.zeros((4, 2))


def train(model, partition_id):
    """One step towards this client's own target."""
    return model + 0.25 * (partition_id + 1) * np.ones_like(model)
''',
    "client_app": """\
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from my_app.task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    (model,) = msg.content["arrays"].to_numpy_ndarrays()
    model = train_fn(model, context.node_config["partition-id"])
    metrics = MetricRecord({"train_loss": 0.5, "num-examples": 10})
    content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
    return Message(content=content, reply_to=msg)
""",
    "server_app": """\
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from my_app.task import get_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    arrays = ArrayRecord([get_model()])
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)

    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1)

    np.savez("final_model", *result.arrays.to_numpy_ndarrays())
""",
}
TORCH = {
    "task": """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        return self.fc(x)


def train(net, partition_id, epochs):
    x = torch.ones(8, 4)
    y = torch.ones(8, 2) * (partition_id + 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = ((net(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
    return loss.item()
""",
    "client_app": """\
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from my_app.task import Net
from my_app.task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    partition_id = context.node_config["partition-id"]
    train_loss = train_fn(model, partition_id, context.run_config["local-epochs"])
    metrics = MetricRecord({"train_loss": train_loss, "num-examples": 8})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)
""",
    "server_app": """\
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from my_app.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    arrays = ArrayRecord(Net().state_dict())
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)

    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1)

    np.savez("final_model", *result.arrays.to_numpy_ndarrays())
""",
}


def lines():
    """The page's blocks: the layer, the mod, the grid."""
    found = re.findall(r"```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(found) == 3
    return found


def write(folder, app, layer=None):
    """An app in a folder; with the page's lines, where it gets a layer: ``(imports, layer)`` in the
    place of the page's own.
    """
    package = folder / "my_app"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "LICENSE").write_text("Apache-2.0\n")
    (package / "__init__.py").write_text("")
    client, server = app["client_app"], app["server_app"]
    if layer is not None:
        own, mod, grid = lines()
        imports, made = layer
        own = re.sub(r"^LAYER = .*$", f"{imports}\nLAYER = {made}", own, flags=re.M)
        (package / "privacy.py").write_text(own)
        decorator = next(line for line in mod.splitlines() if line.startswith("@app.train"))
        imported = "from my_app.privacy import LAYER, PrivateGrid, private\n"
        client = client.replace("@app.train()", decorator)
        grid = grid.replace("num_rounds=3", "num_rounds=1").split("\n", 1)[1]
        grid = grid.replace('"keys/server")', '"keys/server", patience=300)')  # a busy machine
        assert "patience" in grid
        start = next(line for line in server.splitlines() if "strategy.start(" in line)
        grid = "\n".join(f"    {line}" for line in grid.strip().splitlines())
        server = server.replace(start, grid)
        after = '\n    open("receipt.txt", "w").write(str(private_grid.receipts[-1]))\n'
        client, server = (imported + text for text in (client, server + after))
    (package / "task.py").write_text(app["task"])
    (package / "client_app.py").write_text(client)
    (package / "server_app.py").write_text(server)
    return folder
