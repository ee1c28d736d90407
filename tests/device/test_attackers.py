"""Attackers whose training, triggers or measures once mixed devices do on one what they do on the
CPU. Where that fell, their clients failed, and the run went on as if nobody attacked.
"""

import pytest
import torch

from privfl import Federation, catalog
from privfl.engine import Attacker
from privfl.testing.attack_world import data_sets, model
from privfl.testing.building import subjects

DATA = next(data_sets())[1]
ATTACKS = ("optimal_points", "semantic", "edge_case", "a3fl", "multi_task", "client_gan")


def played(attack, on):
    module = model().module
    return Federation(
        module,
        [DATA.take(range(i, 40, 5)) for i in range(5)],
        DATA,
        rounds=1,
        attackers=[Attacker("attack", attack, frozenset([0, 1]))],
        executor="sequential",
        device=on,
    ).run()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attacker_does_on_a_device_what_it_does_on_the_cpu(name, device):
    attack = next(iter(subjects(catalog.ATTACKS[name]))).made
    there, here = played(attack, device), played(attack, "cpu")
    assert not [one for record in there.history for one in record.incidents]
    assert torch.allclose(there.state.parameters, here.state.parameters, atol=1e-6)
    assert [one.measures for one in there.history] == [one.measures for one in here.history]
