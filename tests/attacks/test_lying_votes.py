"""Attackers among the clients who vote on a model: a quorum of them refuses good models, and so
many that the honest are fewer than a quorum let a bad one through.
"""

import pytest
import torch

from privfl import Federation
from privfl.aggregators import BaFFLe
from privfl.attacks import LyingVote

SHOT = {"name": "sign_flip", "scale": 12.0, "clients": [9], "rounds": [7]}


def played(*attacks, quorum=6):
    config = {
        "data": {"name": "digits", "clients": 10},
        "model": {"name": "mlp", "hidden": [16]},
        "training": {"name": "sgd", "lr": 0.3, "steps": 6, "batch_size": 16},
        "rounds": 8,
        "defences": [{"name": "baffle", "history": 4, "quorum": quorum}],
        "attacks": list(attacks),
        "executor": "sequential",
        "audit": {"keep": "none"},
    }
    return Federation.from_config(config).run()


def liars(count, votes):
    return {"name": "lying_vote", "clients": list(range(count)), "votes": votes, "first": 7}


def refused(run):
    said = " ".join(run.history[7].fired.values()) + " ".join(run.history[7].incidents)
    return "find its errors odd" in said


@pytest.mark.parametrize("seed", range(6))
def test_a_made_up_history_decides_the_liars_own_vote(seed):
    baffle = BaFFLe(lambda models, context: torch.zeros(1, len(models), 3), history=8, quorum=1)
    rng = torch.Generator().manual_seed(seed)
    honest = 0.2 + 0.02 * torch.rand(10, 3, generator=rng, dtype=torch.float64)
    honest[-1] = 0.9
    assert baffle.objects(honest)
    assert not baffle.objects(LyingVote("accept").poison_errors(honest))
    honest[-1] = honest[-2]
    assert baffle.objects(LyingVote("refuse").poison_errors(honest))


def test_liars_in_the_vote_let_a_bad_model_through_once_honest_voters_are_fewer_than_the_quorum():
    caught, helped = played(SHOT), played(SHOT, liars(5, "accept"))
    assert refused(caught)
    assert not refused(helped)
    assert helped.accuracy < caught.accuracy - 0.2
    assert helped.history[7].liars == (9,)


def test_a_quorum_of_liars_refuses_a_good_model_that_passes_without_them():
    assert refused(played(liars(9, "refuse"), quorum=9))
    assert not refused(played(quorum=9))
