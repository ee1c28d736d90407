"""PATE on digits: 80 clients train a teacher each, vote over secure aggregation, and a student
learns from the answers.
"""

import torch
from torch import nn

from privfl.core import Dataset, LocalPlan
from privfl.crypto import SecAgg
from privfl.data import IID, load
from privfl.dp.pate import ConfidentGNMax
from privfl.models import initialised, softmax
from privfl.pate import PrivateVote, trained_alone, votes_of
from privfl.training import LocalSGD, evaluate

split = load("digits")
clients = [split.train.take(i) for i in IID()(split.train, 80, torch.Generator().manual_seed(0))]
public, test = split.test.take(range(200)), split.test.take(range(200, split.test.n))
net = initialised(softmax, split.shape, split.classes, seed=0)

teachers = trained_alone(net, clients, LocalSGD(lr=0.5, plan=LocalPlan(16, epochs=30)))
vote = PrivateVote(
    ConfidentGNMax(deviation=5.0, threshold=40.0, check=10.0, most_answers=100),
    classes=split.classes,
    channel=SecAgg(),
    delta=1e-3,
)
print(vote.guarantee.describe())
answers, tally = vote.ask(dict(enumerate(votes_of(net, teachers, public.x))))
kept = answers.answered

labelled = Dataset(public.x[kept], answers.labels[kept], split.classes)
student = trained_alone(net, [labelled], LocalSGD(lr=0.5, plan=LocalPlan(16, epochs=60)))
with torch.no_grad():
    nn.utils.vector_to_parameters(student[0], net.parameters())
print(f"{len(kept)} answers; the student has {evaluate(net, test).accuracy:.1%}")
print(f"epsilon {answers.spent.claim():.2f} at delta 0.001, for every client")
print(f"not to be published: {tally.data_dependent}")
