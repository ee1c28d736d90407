"""Selection bits tell whose data is ordinary; a mode that opens the result alone tells nothing."""

import torch
from sklearn.metrics import roc_auc_score

from privfl import Federation
from privfl.attacks import NotApplicable, SelectionProfile

CONFIG = {
    "data": {
        "name": "digits",
        "clients": 20,
        "partition": {"name": "dirichlet", "alpha": 0.3, "min_size": 20},
    },
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.1, "epochs": 1, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 1.0},
    "rounds": 8,
    "channel": {"name": "two_server", "security": "semi_honest"},
    "aggregator": {"name": "krum", "f": 4, "m": 10},
    "executor": "sequential",
    "audit": {"keep": "all", "evaluate_every": 8},
}


def played(seed=0, **changes):
    federation = Federation.from_config({**CONFIG, "seed": seed, **changes})
    run = federation.run()
    labels = [
        federation.scenario.workload.data.take(index).y
        for index in federation.scenario.clients.values()
    ]
    shares = torch.stack([torch.bincount(y, minlength=10) / len(y) for y in labels])
    variety = -(shares * (shares + 1e-9).log()).sum(dim=1)
    return run, variety > variety.median()


def profile(run, adversary):
    return SelectionProfile().run(
        [run.view(adversary, number) for number in sorted(run.transcripts)]
    )


def test_who_is_often_selected_has_ordinary_data_and_both_servers_see_it():
    found, shuffled = [], []
    for seed in range(3):
        run, varied = played(seed)
        told = profile(run, "server")
        assert torch.equal(told.scores, profile(run, "server/1").scores)
        found.append(roc_auc_score(varied.numpy(), told.scores[-1].numpy()))
        mixed = varied[torch.randperm(20, generator=torch.Generator().manual_seed(seed))]
        shuffled.append(roc_auc_score(mixed.numpy(), told.scores[-1].numpy()))
    assert sum(found) / 3 > 0.58
    assert sum(found) > sum(shuffled)


def test_others_and_the_stricter_mode_tell_nothing_of_the_selection():
    run, _ = played(rounds=1)
    for adversary in ("dealer", "client(0)", "outsider"):
        assert isinstance(profile(run, adversary), NotApplicable)
    hidden, _ = played(rounds=1, channel={"name": "two_server", "reveal": "aggregate"})
    assert isinstance(profile(hidden, "server"), NotApplicable)
