"""No attack reads the truth: what clients held, which model came out, who was a member, and how
many samples they had are replaced behind the backs of attacks, and each gives the same answer.
"""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from privfl import Federation
from privfl.attacks import (
    DAGER,
    BlackBoxProperty,
    ClientPresence,
    EmbeddingLeakage,
    FedMIA,
    GradientAscent,
    GradInversion,
    LabelCounts,
    NotApplicable,
    PropertyInference,
    StatisticCounts,
    TabLeak,
    UpdateMembership,
)
from privfl.audit.games.active import supposed_size
from privfl.audit.layer import _knowledge
from privfl.audit.rehearsal import divide, rehearse, views_of
from privfl.core import Dataset, LocalPlan
from privfl.crypto import SecAgg
from privfl.dp import Clip
from privfl.models import initialised, mlp, transformer
from privfl.training import FedSGD, LocalSGD


def pictures(seed):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.rand(40, 1, 4, 4, generator=rng), torch.arange(40) % 4, 4)


def records(seed):
    rng = torch.Generator().manual_seed(seed)
    kinds = one_hot(torch.arange(40) % 3, 3).float()
    return Dataset(
        torch.cat([torch.randn(40, 2, generator=rng), kinds], 1), torch.arange(40) % 2, 2
    )


def text(seed):
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 12, (10, 5), generator=rng)
    return Dataset(tokens[:, :-1].clone(), tokens[:, 1:].clone(), 12)


def normed():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(12, 4)
    )


def plain_net():
    return initialised(mlp, (1, 4, 4), 4, seed=0, hidden=(8,))


def federation(module, data, training=None, executor="sequential", **parts):
    return Federation(
        module,
        [data(seed) for seed in range(4)],
        data(9),
        rounds=2,
        training=training or FedSGD(lr=0.1),
        executor=executor,
        **parts,
    )


STEPS = LocalSGD(lr=0.1, plan=LocalPlan(8, steps=2))
SUMMED = {"channel": SecAgg(fidelity="ideal", bits=26), "bound": Clip(l2=1.0)}
PICTURES = (
    FedMIA(),
    FedMIA("loss"),
    ClientPresence(),
    ClientPresence("loss"),
    UpdateMembership(),
    LabelCounts(),
    StatisticCounts(shadows=12),
    GradInversion(iterations=2, seeds=1),
)
OF_SUM = (
    BlackBoxProperty(shadows=4, queries=20),
    ClientPresence(target="sum"),
    PropertyInference(shadows=4, target="sum"),
    LabelCounts(target="sum"),
)


def same(a, b):
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if is_dataclass(a):
        return all(same(getattr(a, part.name), getattr(b, part.name)) for part in fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def spoil(made, run, ground):
    """All that only the scorer may know becomes something else, in place."""
    work = made.scenario.workload
    work.data.x.copy_(work.data.x.flip(0))
    work.data.y.copy_(work.data.y.flip(0).roll(1, 0))
    with torch.no_grad():
        for part in [*work.model.module.parameters(), *work.model.module.buffers()]:
            if part.is_floating_point():  # a count of batches is the architecture's, and stays
                part.add_(3)
    for index in [*made.scenario.clients.values(), *ground.members.values()]:
        index.copy_(index.flip(0).roll(1))
    ground.inside.logical_not_()
    ground.owner.copy_(ground.owner.flip(0))
    run.transcripts.clear()


@pytest.mark.parametrize(
    ("made", "attacks"),
    [
        (lambda: federation(normed(), pictures, buffers="averaged"), PICTURES),
        (lambda: federation(plain_net(), pictures, STEPS, "stacked", **SUMMED), OF_SUM),
        (
            lambda: federation(initialised(mlp, (5,), 2, seed=0, hidden=(16,)), records),
            (TabLeak(iterations=4, restarts=2),),
        ),
        (
            lambda: federation(initialised(transformer, (4,), 12, seed=0, width=48, heads=2), text),
            (DAGER(), EmbeddingLeakage(), DAGER(target="sum")),
        ),
    ],
    ids=["pictures", "a sum of pictures", "records", "text"],
)
def test_an_answer_is_the_same_whatever_the_truth_is(made, attacks):
    made = made()
    ground = divide(made.scenario, 0.5, seed=0)
    knows = _knowledge(made.scenario, ground.auxiliary, 0)
    whose = {"client": torch.arange(ground.pool.n) % 4}
    has = {"mirrored": torch.arange(ground.auxiliary.n) % 2}
    knows = replace(
        knows,
        candidates=replace(ground.pool, attributes=whose),
        auxiliary=replace(ground.auxiliary, attributes=has),
        attribute="mirrored",
    )
    few = {client: index[:2].clone() for client, index in ground.members.items()}
    run = rehearse(made, few, 2)
    views = views_of(run, "server")
    pushed = GradientAscent(ground.pool, knows.forward, groups=1, active=False)
    attacks = (*attacks, pushed) if attacks is PICTURES else attacks
    before = [attack.run(views, knows) for attack in attacks]
    spoil(made, run, ground)
    after = [attack.run(views, knows) for attack in attacks]
    for attack, first, second in zip(attacks, before, after, strict=True):
        assert not isinstance(first, NotApplicable), first
        assert same(first, second), attack


def test_how_far_a_push_goes_is_not_tuned_to_how_many_samples_clients_have():
    made = federation(plain_net(), pictures)
    ground = divide(made.scenario, 0.5, seed=0)
    fewer = replace(ground, members={c: index[:3] for c, index in ground.members.items()})
    assert supposed_size(fewer) == supposed_size(ground) == 15
