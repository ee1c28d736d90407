"""What a guest reads of a host's columns off activations, beside what its own columns tell."""

import dataclasses

import pytest
import torch
from torch import nn

from privfl.core import ConfigError
from privfl.data import dealt_columns
from privfl.vertical import GUEST, VerticalMLP, VerticalTraining, by_matching, train_vertically
from privfl.vertical.sample_inference import explained, sample_leaks


def run(cut, n=800):
    coins = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=coins)
    x[:, 4] = x[:, 0] + 0.1 * x[:, 4]  # the guest's column tells one of the host's
    y = (x @ torch.randn(8, generator=coins) > 0).long()
    holdings = dealt_columns(x, tuple("abcdefgh"), {"host/0": list("abcd")}, GUEST)
    training = VerticalTraining(epochs=2, batch_size=100)
    return train_vertically(holdings, y, 2, VerticalMLP(cut=cut, hidden=8), training), holdings


def test_a_decoder_reads_columns_off_activations_and_less_off_narrow_ones():
    read = {}
    for cut in (1, 16):
        trained, holdings = run(cut)
        alone, both = sample_leaks(trained.guest_view("host/0"), holdings["host/0"], known=100)
        read[cut] = alone.explained
        assert 0.05 < both.blind < 0.4, "one column of four is in the guest's own"
        assert both.explained > both.blind
    assert read[16] > 0.6
    assert read[1] < 0.4


def test_a_decoder_of_activations_of_other_rows_finds_nothing():
    trained, holdings = run(16)
    view = trained.guest_view("host/0")
    swapped = view.rows + torch.where(view.rows % 2 == 0, 1, -1)
    view = dataclasses.replace(view, rows=swapped)  # every sample has its neighbour's
    alone, _ = sample_leaks(view, holdings["host/0"], known=100)
    assert alone.explained < 0.05


def test_matching_needs_the_bottom_and_then_inverts_what_has_an_inverse():
    torch.manual_seed(0)
    bottom, other = (nn.Sequential(nn.Linear(4, 16), nn.Tanh()) for _ in range(2))
    x = torch.randn(50, 4)
    sent = bottom(x).detach()
    assert explained(by_matching(sent, bottom, 4), x) > 0.95
    assert explained(by_matching(sent, other, 4), x) < 0.3
    assert explained(by_matching(sent[torch.randperm(50)], bottom, 4), x) < 0.1


def test_who_knows_all_rows_is_not_scored():
    trained, holdings = run(1, n=100)
    with pytest.raises(ConfigError, match="leave none to score"):
        sample_leaks(trained.guest_view("host/0"), holdings["host/0"], known=100)
