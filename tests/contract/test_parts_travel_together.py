"""The parts of a round do not touch each other: SCAFFOLD over every channel of the catalogue."""

from dataclasses import dataclass

import pytest
import torch

from privfl import Federation, catalog
from privfl.core import ConfigError, Faults, Party
from privfl.core.bundle import pack_parts, unpack_parts

BASE = {
    "data": {"name": "digits", "clients": 6, "partition": "iid", "root": 60},
    "model": "softmax",
    "rounds": 1,
    "bound": {"name": "clip", "l2": 2.0, "parts": {"control": 40.0}},
    "seed": 3,
}


def change(channel, training, **more):
    config = {**BASE, "channel": channel, "training": training, **more}
    run = Federation.from_config({**config, "audit": {"keep": "all"}}).run()
    transcript = run.transcript(0)
    assert run.history[0].incidents == ()
    return transcript.after - transcript.before


ONE_PART = ("encrypted_cosine", "sign_two_server")
"""Channels all of whose rules compare updates with a reference, which a control variate does not
have.
"""


SMALL = {"paillier": {"key_bits": 512, "insecure_for_tests": True}}


@pytest.mark.parametrize("channel", [name for name in catalog.CHANNELS if name not in ONE_PART])
def test_scaffolds_first_round_is_sgds(channel):
    """Both control variates are zero in the first round, so both take the same steps."""
    part = {"name": channel, **SMALL.get(channel, {})}
    if "rounding" in catalog.fields_of(catalog.CHANNELS[channel])[0]:
        part["rounding"] = "nearest"
    plain = {"name": "sgd", "lr": 0.1, "steps": 3, "weighting": "uniform"}
    more = {} if catalog.works("mean", channel) else {"aggregator": "fltrust"}
    there = change(part, {**plain, "name": "scaffold"}, **more)
    apart = there - change(part, plain, bound={"name": "clip", "l2": 2.0}, **more)
    own_noise = 1e-3 if channel == "ckks" else 1e-6  # CKKS floods its sums
    assert float(apart.norm()) < own_noise


@pytest.mark.parametrize("channel", ONE_PART)
def test_a_channel_that_carries_one_part_says_so(channel):
    with pytest.raises(ConfigError, match="train without extra vectors"):
        change({"name": channel}, "scaffold", aggregator="fltrust")


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_scaffold_ends_above_sgd_on_a_skewed_split(alpha):
    split = {"name": "digits", "clients": 10, "partition": {"name": "dirichlet", "alpha": alpha}}
    ends = []
    for name in ("sgd", "scaffold"):
        training = {"name": name, "lr": 0.1, "steps": 20, "weighting": "uniform"}
        config = {"data": split, "model": "softmax", "rounds": 15, "training": training}
        runs = [Federation.from_config({**config, "seed": seed}).run() for seed in range(3)]
        ends.append(sum(run.accuracy for run in runs) / len(runs))
    assert ends[1] > ends[0] + 0.01


def test_scaffold_over_shares_is_scaffold_in_the_clear():
    training = {"name": "scaffold", "lr": 0.1, "steps": 3}
    plain, shared = (change(c, training, rounds=3) for c in ("plain", "additive_sharing"))
    assert float((plain - shared).norm()) < 1e-2 * float(plain.norm())


MOST = tuple(f"client/{client}" for client in range(1, 5))
"""So many that without them there is no quorum; one alone is left out of the sum."""


@dataclass
class Garbles:
    """A relay that changes one byte of one part of everything that it passes on."""

    honest: Party
    part: str

    def step(self, mail):
        out = {}
        for to, frame in self.honest.step(mail).items():
            bodies = {part: bytearray(body) for part, body in unpack_parts(frame).items()}
            if self.part in bodies:
                bodies[self.part][len(bodies[self.part]) // 2] ^= 0x55
            out[to] = pack_parts(bodies)
        return out


@pytest.mark.parametrize("part", ["delta", "control"])
@pytest.mark.parametrize(
    "noise", [{}, {"mechanism": {"name": "gaussian", "noise_multiplier": 1.0}}]
)
def test_a_part_that_does_not_open_stops_neither_the_run_nor_the_other_part(part, noise):
    config = {**BASE, "channel": "secagg", "training": "scaffold", **noise}
    if noise:
        config["aggregator"] = {"name": "mean", "weighted": False}
    run = Federation.from_config({**config, "audit": {"keep": "all"}}).run(
        faults=Faults(relayed=dict.fromkeys(MOST, lambda honest: Garbles(honest, part)))
    )
    opened = run.transcript(0).carried.opened
    assert {name for name, one in opened.items() if one is not None} == {"delta", "control"} - {
        part
    }
    assert torch.equal(run.transcript(0).before, run.state.parameters) == (part == "delta")
