"""Somebody's own PyTorch federated loop, with a privacy layer around its aggregation: thirty lines,
none of them privfl's engine.
"""

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from privfl import PrivateAggregation
from privfl.data import load
from privfl.dp import Clip

digits = load("digits")
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
layer = PrivateAggregation(bound=Clip(l2=5.0))

for _ in range(10):
    start = parameters_to_vector(model.parameters()).detach().clone()
    updates = {}
    for client in range(10):
        vector_to_parameters(start.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        x, y = digits.train.x[client::10], digits.train.y[client::10]
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        updates[client] = parameters_to_vector(model.parameters()).detach() - start
    mean, receipt = layer.aggregate(updates)
    vector_to_parameters(start + mean, model.parameters())

accuracy = (model(digits.test.x).argmax(dim=1) == digits.test.y).float().mean()
print(
    f"accuracy {accuracy:.3f}; the server read {receipt.server_reads}; {receipt.bytes_sent} bytes a"
    " round"
)
