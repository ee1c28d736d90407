"""Groups that change every round leak what is lasting in a client's updates; one sum leaks nothing
of it, larger groups less.
"""

import pytest
import torch

from privfl import Federation
from privfl.attacks import GradientDisaggregation, NotApplicable

CONFIG = {
    "data": {
        "name": "digits",
        "clients": 18,
        "partition": {"name": "dirichlet", "alpha": 0.3, "min_size": 20},
    },
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.02, "epochs": 1, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 1.0},
    "rounds": 12,
    "aggregator": "mean",
    "executor": "sequential",
    "audit": {"keep": "all", "evaluate_every": 12},
}


def leaked(channel, rounds=4):
    """Mean cosine between what the server recovers of a client and what that client sent beyond the
    mean of all.
    """
    run = Federation.from_config({**CONFIG, "rounds": rounds, "channel": channel}).run()
    views = [run.view("server", number) for number in sorted(run.transcripts)]
    result = GradientDisaggregation().run(views)
    if isinstance(result, NotApplicable):
        return result
    sent = torch.stack(
        [
            torch.stack(
                [run.transcripts[n].updates[c].delta for n in sorted(run.transcripts)]
            ).mean(0)
            for c in result.clients
        ]
    )
    return float(torch.cosine_similarity(result.updates, sent - sent.mean(dim=0), dim=1).mean())


def test_small_groups_give_away_lasting_updates_and_larger_groups_less():
    two, three, six = (leaked({"name": "bucketed_secagg", "size": size}) for size in (2, 3, 6))
    assert two > 0.9
    assert two > three > six
    assert six < 0.7


def test_one_sum_over_everybody_has_nothing_to_solve():
    assert isinstance(leaked("secagg"), NotApplicable)
    assert "means of groups" in str(leaked("secagg"))


def test_shuffled_equations_give_chance():
    """The same attack told the wrong members scores nothing: its success is the groups', not the
    clients' likeness.
    """
    run = Federation.from_config(
        {**CONFIG, "channel": {"name": "bucketed_secagg", "size": 2}}
    ).run()
    views = []
    for number in sorted(run.transcripts):
        view = run.view("server", number)
        shuffle = torch.randperm(view.plan.n, generator=torch.Generator().manual_seed(number))
        view.disclosed["membership"].copy_(view.disclosed["membership"][shuffle])
        views.append(view)
    found = GradientDisaggregation().run(views)
    sent = torch.stack(
        [
            torch.stack(
                [run.transcripts[n].updates[c].delta for n in sorted(run.transcripts)]
            ).mean(0)
            for c in found.clients
        ]
    )
    assert (
        abs(float(torch.cosine_similarity(found.updates, sent - sent.mean(dim=0), dim=1).mean()))
        < 0.2
    )


@pytest.mark.parametrize("adversary", ["client(0)", "outsider"])
def test_who_reads_no_group_means_solves_nothing(adversary):
    run = Federation.from_config(
        {**CONFIG, "rounds": 2, "channel": {"name": "bucketed_secagg", "size": 3}}
    ).run()
    assert isinstance(
        GradientDisaggregation().run([run.view(adversary, n) for n in (0, 1)]), NotApplicable
    )
