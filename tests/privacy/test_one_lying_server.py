"""What one server gets that lies on its own, played through the real parties: each lie read honest
updates while only clients were guarded against.
"""

import math

import numpy as np
import pytest
import torch

from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.lies import reads_a_weighted_row
from privfl.hybrid.two_server.rushing import (
    chooses,
    forges_scores,
    names_wrong_seeds,
    spoils_rows,
)
from privfl.testing import PlayedRound
from privfl.testing.guarantees import Contributions

N, D = 9, 20


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)
    made = torch.randn(D, generator=g) + torch.randn(N, D, generator=g)
    return 0.98 * made / made.norm(dim=1, keepdim=True)


HELD = Contributions(rows())
TRUST = FLTrust(lambda context: HELD.together)
ALONG = CosineFilter(0.0, lambda plain, context: HELD.together)


def played(channel, lie, who="server"):
    return PlayedRound.play(channel, HELD, lie, {who})


def integers(channel):
    scale = channel.round(PlayedRound.play(channel, HELD).plan).scale
    return np.rint(HELD.rows.double().numpy() * scale), scale
