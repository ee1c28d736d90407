"""Verdicts on a client that is alone, with few other samples to hold a claim against: exact claims
are found, and claims that saw nothing leak no more often than the test says.
"""

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import (
    Forward,
    GradientInversion,
    Knowledge,
    LinearLeakage,
    Reconstruction,
)
from privfl.audit import Attacks, audit, card
from privfl.audit.findings import Finding
from privfl.audit.games.notes import AuditNotes
from privfl.audit.games.reconstruction import Truth, _pictures
from privfl.audit.games.tables import field_luck
from privfl.audit.rehearsal import Ground
from privfl.core import Dataset
from privfl.data import load
from privfl.training import FedSGD

FORWARD = Forward(
    nn.Linear(64, 2), lambda m, x, y: m(x).sum(), (1, 8, 8), 2, lr=0.1, low=(0.0,), high=(1.0,)
)


def judged(claim, samples):
    """The finding about a lone client that holds the first of these samples; the rest are to spare,
    half of them its own.
    """
    of_its_own = 1 + (len(samples) - 1) // 2
    y = torch.zeros(len(samples), dtype=torch.int64)
    data = Dataset(samples[:of_its_own], y[:of_its_own], 2)
    spare = Dataset(samples[of_its_own:], y[of_its_own:], 2)
    inside = torch.arange(of_its_own) == 0
    held = {0: torch.tensor([0])}
    ground = Ground(held, inside, torch.zeros(of_its_own, dtype=torch.int64), data, spare)
    notes = AuditNotes([], {}, {})
    _pictures(
        notes,
        Finding("l", "server", "inversion", "An attack", "PSNR, dB"),
        (((0,), Reconstruction("An attack", "server", claim, y[: len(claim)])),),
        (0,),
        Truth(held, data, ground),
        Knowledge(forward=FORWARD, auxiliary=spare),
        FORWARD,
    )
    return notes.findings[0]


NEAR = {5: 0.05, 20: 0.02}  # 26 and 34 dB


def likenesses(decoys, share, seed):
    """Pictures of which a share are nearly the same one, which somebody may claim unseen."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(1 + decoys, generator=generator) < share
    noise = torch.randn((1 + decoys, 1, 8, 8), generator=generator)
    return 0.5 + noise * torch.where(near, NEAR.get(decoys, 0.05), 0.35).view(-1, 1, 1, 1)


@pytest.mark.parametrize("decoys", [5, 20, 45])
def test_claims_that_saw_nothing_leak_no_more_often_than_once_in_40_times(decoys):
    blind = torch.full((1, 1, 8, 8), 0.5)
    found = [judged(blind, likenesses(decoys, 1 / (decoys + 1), seed)) for seed in range(200)]
    assert sum(one.rates["recognised"].value for one in found) >= 5
    assert sum(one.verdict == "leaks" for one in found) <= 0.025 * 200


@pytest.mark.parametrize("decoys", [3, 5, 10, 45])
def test_an_exact_claim_is_found_with_few_samples_to_spare(decoys):
    samples = likenesses(decoys, 0.1, 0)
    found = judged(samples[:1], samples)
    assert found.verdict == "leaks"
    assert found.luck < 0.025
    assert found.rates["recognised, decoys"].high == pytest.approx(1 - 0.025 ** (1 / decoys))


@pytest.mark.parametrize("samples", [30, 60, 200])
def test_a_sample_that_is_read_exactly_is_found_by_several_looks(samples):
    """Among 40 to 400 decoys no rank was rare enough for four looks, and with fewer it leaked."""
    digits = load("digits")
    torch.manual_seed(0)
    federation = Federation(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        [digits.train.take(range(samples))],
        digits.test.take(range(20)),
        rounds=1,
        training=FedSGD(lr=0.1),
    )
    looks = [LinearLeakage(), LinearLeakage(target="sum")]
    looks += [GradientInversion(iterations=5), GradientInversion(iterations=5, target="sum")]
    report = audit(
        federation, adversaries=["server"], attacks=Attacks(probe=tuple(looks)), lies=None
    )
    (line,) = [line for line in card(report) if line.asset == "samples"]
    assert line.figures["psnr"].value > 100
    assert (line.verdict, line.looks) == ("leaks", 4)


def test_one_decoy_tells_nothing_and_the_finding_says_so():
    samples = likenesses(2, 0.1, 0)[:2]
    found = judged(samples[:1], samples)
    assert (found.verdict, found.luck) == ("not found", 1.0)
    assert found.more.endswith("too few decoys to tell luck from a find: hold out more samples")


def rows(n, seed):
    return torch.randn((n, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decoys", [4, 8, 45])
def test_an_exact_record_is_found_with_few_records_to_spare_and_a_guess_is_not(decoys):
    knows = Knowledge(auxiliary=Dataset(rows(60, 1), torch.zeros(60, dtype=torch.int64), 2))
    true, spare = rows(1, 2), [rows(1, 100 + k) for k in range(decoys)]
    assert field_luck(true, true, spare, knows) < 0.025
    lucky = [field_luck(rows(1, 1000 + k), true, spare, knows) for k in range(100)]
    assert sum(luck < 0.025 for luck in lucky) <= 3
    assert field_luck(true, true, spare[:1], knows) == 1.0
