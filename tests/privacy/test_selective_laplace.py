"""Selective sharing under Laplace noise: a few entries, and a ledger with what they cost in all."""

import math

import pytest
import torch

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import ConfigError, Dataset, LocalPlan, OsNoise, SeededNoise, Sensitivity
from privfl.dp import Clip, SelectiveLaplace, spend
from privfl.models import initialised, softmax
from privfl.training import LocalSGD

FAR = Sensitivity(2.0, l1=2.0 * 1000**0.5, linf=2.0)


def test_the_entries_that_are_sent_carry_the_published_noise_and_the_others_nothing():
    one = SelectiveLaplace(epsilon=0.5, keep=0.1)
    out, _ = one.share(torch.ones(1000), FAR, 1, OsNoise())
    sent = out[out != 0]
    assert len(sent) == one.sent(1000) == 100
    drawn = torch.cat([one.share(torch.zeros(1000), FAR, 1, SeededNoise(i))[0] for i in range(100)])
    assert drawn[drawn != 0].abs().mean() == pytest.approx(2.0 / 0.5, rel=0.05)


def test_which_entries_are_sent_does_not_hang_on_the_values():
    one = SelectiveLaplace(epsilon=1.0, keep=0.1)
    values = (torch.zeros(1000), torch.linspace(-1, 1, 1000))
    places = [one.share(v, FAR, 1, SeededNoise(5))[0].nonzero().flatten() for v in values]
    assert torch.equal(*places)
    other = one.share(values[0], FAR, 1, SeededNoise(6))[0].nonzero().flatten()
    assert not torch.equal(places[0], other)


@pytest.mark.parametrize("keep", [0.05, 0.3, 1.0])
def test_the_worst_neighbour_loses_what_the_event_says_and_not_what_is_published(keep):
    """The log of the ratio of densities, over the k entries that are sent, of two vectors that lie
    the whole sensitivity apart and equally far in each: as bad as L2 allows.
    """
    d, one = 400, SelectiveLaplace(epsilon=0.2, keep=keep)
    k = one.sent(d)
    scale = one._scale(Sensitivity(2.0, l1=2.0 * d**0.5), k)
    spread = 2.0 / math.sqrt(k)  # on exactly the entries that were drawn
    loss = k * spread / scale
    assert loss == pytest.approx(1 / one.event(d).parameters["scale"])
    assert loss == pytest.approx(one.cost(d, rounds=1).total)
    assert loss > one.epsilon


def test_a_run_claims_the_total_and_not_the_figure_of_one_parameter():
    data = [Dataset(torch.randn(30, 8), torch.arange(30) % 2, classes=2) for _ in range(4)]
    net = initialised(softmax, (8,), 2, seed=0)
    mechanism = SelectiveLaplace(epsilon=0.1, keep=0.5)
    run = Federation(
        net,
        data,
        data[0],
        rounds=3,
        training=LocalSGD(plan=LocalPlan(10), weighting="uniform"),
        bound=Clip(1.0),
        aggregator=Mean(weighted=False),
        mechanism=mechanism,
        executor="sequential",
    ).run()
    [spent] = spend(run.state.ledger, 1e-9)
    total = mechanism.cost(18, rounds=3).total
    assert total == pytest.approx(0.1 * 3 * 3)
    assert spent.relation == "replace_one"
    assert 0.9 * total < spent.claim() <= total * (1 + 1e-3)


def test_a_share_of_nothing_is_refused():
    for settings in ({"epsilon": 0.0}, {"epsilon": 1.0, "keep": 0.0}, {"epsilon": 1.0, "keep": 2}):
        with pytest.raises(ConfigError):
            SelectiveLaplace(**settings)
    with pytest.raises(ConfigError, match="sensitivity"):
        SelectiveLaplace(1.0).share(torch.zeros(3), Sensitivity(math.inf), 1, OsNoise())
