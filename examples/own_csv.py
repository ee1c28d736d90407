"""One round on an own table, the patients.csv beside this file (made up): hospitals by their
names, weighted by their patients; one drops out; under secure aggregation and differential privacy,
with a receipt.
"""

import torch
from torch.nn.functional import cross_entropy as loss

from privfl import PrivateAggregation
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip, Gaussian

public = {"bounds": {"age": [0, 100], "pressure": [80, 200]}, "classes": ["no", "yes"]}
own = {"path": __file__.replace("own_csv.py", "patients.csv"), "client_column": "ward", **public}
wards, model = load("csv", target="sick", **own).by_client(), torch.nn.Linear(2, 2)
noise = {"mechanism": Gaussian(noise_multiplier=2.0), "max_weight": 60, "denominator": 150}
layer = PrivateAggregation(bound=Clip(l2=1.0), channel=SecAgg(), **noise)
here = {n: loss(model(w.x), w.y) for n, w in wards.items() if n != "St. Mary"}
steps = {n: torch.autograd.grad(one, [*model.parameters()]) for n, one in here.items()}
mean, receipt = layer.aggregate(steps, weights={n: wards[n].n for n in steps}, dropped=["St. Mary"])
print(receipt)
