"""Rounds of the real engine whose clients hand out rows of the test's choice, and a mechanism that
notes what it is given.
"""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import Dataset, DpEvent, LocalPlan, LocalRecipe, Mechanism, Update
from privfl.dp import Clip, Gaussian
from privfl.training import PlainGradient


@dataclass(frozen=True)
class Fixed:
    """A training method that learns nothing: client i hands out row i."""

    rows: torch.Tensor
    weighting: str = "uniform"
    gradient: PlainGradient = PlainGradient()
    recipe: LocalRecipe = LocalRecipe(plan=LocalPlan(batch_size=1))

    def on(self, model, loss):
        return self

    def __call__(self, client, broadcast, dataset, state, rng):
        weight = float(dataset.n) if self.weighting == "samples" else 1.0
        return Update(client, self.rows[int(dataset.y[0])].clone(), weight), state, ()

    def parts(self, d):
        return {}

    def init(self, d):
        return {}

    def broadcast(self, state):
        return {}

    def combine(self, aggregate, aux, state, cohort_fraction):
        return aggregate, state

    def arrived(self, state, sent):
        return state


@dataclass
class Tape(Mechanism):
    """Notes what it is given and the sensitivity that is claimed of it, and always releases the
    same: whatever still differs between two worlds went past it.
    """

    seen: list = field(default_factory=list)

    @property
    def guarantee(self):
        return Gaussian(1.0).guarantee

    def event(self, d):
        return DpEvent("gaussian", {"noise_multiplier": 1.0})

    def share(self, values, sensitivity, among, noise):
        return values, None

    def release(self, vector, sensitivity, survivors, noise):
        self.seen.append((vector.clone(), float(sensitivity.l2)))
        return torch.full_like(vector, 0.01 * len(self.seen)), self.event(len(vector))


def _federation(rows, rounds=1, weighting="uniform", persons=None, **parts):
    n, d = rows.shape
    whose = [
        {} if persons is None else {"person": torch.tensor([int(persons[i])])} for i in range(n)
    ]
    data = [Dataset(torch.zeros(1, 1), torch.tensor([i]), n, whose[i]) for i in range(n)]
    model = nn.Linear(1, d, bias=False)
    nn.init.zeros_(model.weight)
    mean = Mean(weighted=False)
    parts = {"bound": Clip(1.0), "aggregator": mean, "executor": "sequential", **parts}
    return Federation(model, data, data[0], rounds=rounds, training=Fixed(rows, weighting), **parts)


@pytest.fixture
def federation():
    """A federation of as many clients as rows [n, d]; client i hands out row i in every round."""
    return _federation


@pytest.fixture
def tape():
    """A fresh mechanism that notes what it is given."""
    return Tape


@pytest.fixture
def moved():
    """How far each release moves between two worlds, over what is claimed; the states after."""

    def play(rows, other, rounds=1, **parts):
        tapes, states = (Tape(), Tape()), []
        for each, world in zip(tapes, (rows, other), strict=True):
            states.append(_federation(world, rounds, mechanism=each, **parts).run().state)
        pairs = zip(tapes[0].seen, tapes[1].seen, strict=True)
        return [float((a - b).norm()) / far for (a, far), (b, _) in pairs], states

    return play


@pytest.fixture
def camps():
    """n rows [n, d] along one axis: the first k at one end of it, the others at the other."""

    def rows(k, low=-1.0, high=1.0, n=10, d=12):
        axis = torch.eye(d)[0]
        return torch.stack([axis * (low if i < k else high) for i in range(n)])

    return rows
