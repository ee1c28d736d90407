"""Opacus' make_private in each client's own loop, which protects its samples, and a layer around
the sum, which protects clients: two claims, each with its own epsilon.
"""

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from privfl import PrivateAggregation
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip, Gaussian

CLIENTS, ROUNDS, DELTA = 24, 5, 1e-5
digits = load("digits")
start = {name: p.detach().clone() for name, p in nn.Linear(64, 10).named_parameters()}
clients = {}
for i in range(CLIENTS):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    samples = TensorDataset(digits.train.x[i::CLIENTS], digits.train.y[i::CLIENTS])
    engine = PrivacyEngine(accountant="rdp")
    model, optimizer, loader = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.5),
        data_loader=DataLoader(samples, batch_size=16),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    clients[f"ward {i}"] = net[1], model, optimizer, loader, engine

layer = PrivateAggregation(
    bound=Clip(l2=1.0), channel=SecAgg(), mechanism=Gaussian(1.5), denominator=CLIENTS
)
for _ in range(ROUNDS):
    updates = {}
    for name, (net, model, optimizer, loader, _) in clients.items():
        net.load_state_dict(start)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        updates[name] = {key: p.detach() - start[key] for key, p in net.named_parameters()}
    mean, receipt = layer.aggregate(updates)
    start = {key: start[key] + mean[key] for key in start}

guess = nn.functional.linear(digits.test.x.flatten(1), start["weight"], start["bias"])
accuracy = (guess.argmax(dim=1) == digits.test.y).float().mean()
samples = max(engine.get_epsilon(DELTA) for *_, engine in clients.values())
print(
    f"accuracy {accuracy:.3f}; a sample, by Opacus: epsilon {samples:.2f}; a client, by the"
    f" receipt: {receipt.epsilon:.2f} ({receipt.epsilon_note})"
)
