"""``privfl audit --dp`` leaves honest runs alone and alarms at planted bugs."""

import json
from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.aggregators import Mean
from privfl.audit import Settings, audit_claims
from privfl.core import ConfigError, Sampling
from privfl.dp import DPGradient, Gaussian, LocalGaussian
from privfl.engine import Poisson

CLIENT = """
data: {name: digits, clients: 100, partition: {name: iid}}
rounds: 1
executor: sequential
bound: {name: clip, l2: 0.5}
mechanism: {name: gaussian, noise_multiplier: 1.0}
"""
SAMPLED = CLIENT.replace("rounds: 1", "rounds: 3") + "sampler: {name: poisson, rate: 0.5}\n"
SAMPLE = """
data: {name: digits, clients: 2, partition: {name: iid}}
rounds: 1
executor: sequential
training:
  {name: sgd, steps: 1, batch_size: 721, gradient: {name: dp, l2: 0.5, noise_multiplier: 1.0}}
"""


SIZES = ("--canaries", 1000, "--pairs", 5, "--values", 6000)


def audited(privfl, path, *words):
    done = privfl("audit", path, "--dp", "--json", *SIZES, *words)
    assert done.returncode in (0, 1), done.stderr
    (row,) = json.loads(done.stdout)
    assert done.returncode == (row["verdict"] == "ALARM")
    return row


def no_clip(monkeypatch):
    """Norms come out as 0, so the clip, the client's own check and the server's let everything
    pass.
    """
    for module in ("privfl.dp.clip", "privfl.core.update", "privfl.crypto.plain_letters"):
        monkeypatch.setattr(f"{module}.norm", lambda vector: 0.0)


def noise_halved(monkeypatch):
    honest = Gaussian.release

    def release(self, vector, sensitivity, survivors, noise):
        return honest(
            Gaussian(self.noise_multiplier),
            vector,
            replace(sensitivity, l2=sensitivity.l2 / 2),
            survivors,
            noise,
        )

    monkeypatch.setattr(Gaussian, "release", release)


def weighted_averaging(monkeypatch):
    """The server weighs by numbers of samples, where every second client has three times those of
    the others.
    """

    def mean(self, opened):
        weights = torch.tensor([1.5 if client % 2 else 0.5 for client in opened.ids])
        return weights @ opened.values / (self.denominator or opened.n) * 2

    monkeypatch.setattr(Mean, "__call__", mean)


def wrong_rate(monkeypatch):
    monkeypatch.setattr(
        Poisson,
        "sampling",
        lambda self, population: Sampling("poisson", self.rate / 50, population),
    )


def test_an_honest_run_is_not_refuted_and_the_black_box_is_not_idle(privfl, config):
    row = audited(privfl, config(CLIENT))
    assert row["verdict"] == "not refuted"
    assert row["unit"] == "client"
    assert row["claimed epsilon"] == pytest.approx(4.38, abs=0.02)
    assert 1 < row["at least"] < row["claimed epsilon"]


def test_an_honest_sampled_run_is_not_refuted(privfl, config):
    row = audited(privfl, config(SAMPLED))
    assert row["verdict"] == "not refuted"
    assert row["at least"] > 0.2


@pytest.mark.parametrize(
    ("bug", "text"),
    [
        (no_clip, CLIENT),
        (noise_halved, CLIENT),
        (weighted_averaging, CLIENT),
        (wrong_rate, SAMPLED),
    ],
)
def test_a_planted_bug_alarms(privfl, config, monkeypatch, bug, text):
    bug(monkeypatch)
    row = audited(privfl, config(text))
    assert row["verdict"] == "ALARM", row
    assert any(test["alarm"] for test in row["tests"])


def test_dp_sgd_is_not_refuted_and_half_of_its_noise_alarms(privfl, config, monkeypatch):
    row = audited(privfl, config(SAMPLE))
    assert row["unit"] == "sample"
    assert row["verdict"] == "not refuted"
    assert 0 < row["at least"] < row["of a claim of"]
    honest = DPGradient._add_noise
    monkeypatch.setattr(
        DPGradient, "_add_noise", lambda self, grad: (honest(self, grad), grad.mul_(0.5))[0]
    )
    assert audited(privfl, config(SAMPLE))["verdict"] == "ALARM"


def test_dp_sgd_without_its_clip_alarms(privfl, config, monkeypatch):
    monkeypatch.setattr(
        DPGradient, "_factors", lambda self, norms: torch.full_like(norms, 1 / self.batch_size)
    )
    assert audited(privfl, config(SAMPLE))["verdict"] == "ALARM"


def test_an_audited_run_shows_it_beside_the_claimed_epsilon(privfl, config, tmp_path):
    assert privfl("run", config(CLIENT), "--out", tmp_path / "run").returncode == 0
    assert "not audited" in (tmp_path / "run" / "report.html").read_text()
    row = audited(privfl, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "not refuted at level 1e-06: would have seen: noise x 0.9" in page
    assert f"Canaries alone: epsilon at least {row['at least']:.3f}" in page


def test_an_audit_prints_every_test_with_the_least_lie_that_it_would_have_seen(privfl, config):
    done = privfl("audit", config(CLIENT), "--dp", "--canaries", 0, *SIZES[2:])
    assert done.returncode == 0
    for words in ("noise variance", "neighbours", "privacy loss", "noise x 0.9", "not refuted"):
        assert all(word in done.stdout for word in words.split())  # columns may break lines
    assert "PASS" not in done.stdout


def test_no_canaries_means_no_bound_from_canaries(privfl, config):
    row = audited(privfl, config(CLIENT), "--canaries", 0)
    assert row["canaries"] == 0
    assert row.get("at least") is None


def test_a_ledger_that_claims_less_than_its_config_does_alarms(privfl, config, tmp_path):
    assert privfl("run", config(CLIENT), "--out", tmp_path / "run").returncode == 0
    charges = json.loads((tmp_path / "run" / "ledger.json").read_text())
    charges[0]["event"]["parameters"]["noise_multiplier"] = 3.0
    (tmp_path / "run" / "ledger.json").write_text(json.dumps(charges))
    assert audited(privfl, tmp_path / "run")["verdict"] == "ALARM"


def test_a_run_without_a_claim_is_said_to_have_none(privfl, config):
    assert audited(privfl, config(CLIENT + "noise_seed: 1\n"))["verdict"] == "no claim"
    assert "nothing" in privfl("audit", config("rounds: 1\n"), "--dp").stderr
    with pytest.raises(ConfigError, match="claims nothing"):
        audit_claims(Federation.from_config({"rounds": 1}))


@pytest.mark.parametrize(
    "changes",
    [
        {
            "channel": "secagg",
            "mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0},
        },
        {"bound": {"name": "adaptive_clip", "initial": 0.5}, "rounds": 2},
        {"bound": {"name": "clip_by_layer", "l2": 0.5}},
        {"sampler": {"name": "fixed_size", "size": 20}},
        {"mechanism": {"name": "local_gaussian", "noise_multiplier": 1.0}},
    ],
    ids=["distributed noise", "adaptive clip", "clip by layer", "fixed size", "local noise"],
)
def test_no_way_of_being_private_is_refuted(changes):
    base = {
        "data": {"name": "digits", "clients": 24, "partition": {"name": "iid"}},
        "rounds": 1,
        "executor": "sequential",
        "bound": {"name": "clip", "l2": 0.5},
        "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
    }
    (claim,) = audit_claims(
        Federation.from_config({**base, **changes}),
        settings=Settings(canaries=200, pairs=4, climb=1, values=6000),
    )
    assert claim.verdict == "not refuted", claim.alarms
    assert claim.black_box is None or claim.black_box.lower < claim.claimed


def test_local_noise_is_audited_on_what_each_client_sends(monkeypatch):
    config = {
        "data": {"name": "digits", "clients": 50},
        "rounds": 1,
        "executor": "sequential",
        "bound": {"name": "clip", "l2": 0.5},
    }
    federation = Federation.from_config(
        {**config, "mechanism": {"name": "local_gaussian", "noise_multiplier": 1.0}}
    )
    honest = LocalGaussian.share
    monkeypatch.setattr(
        LocalGaussian,
        "share",
        lambda self, v, sensitivity, n, noise: honest(
            self, v, replace(sensitivity, l2=sensitivity.l2 / 3), n, noise
        ),
    )
    (claim,) = audit_claims(
        federation, settings=Settings(canaries=0, pairs=4, climb=0, values=6000)
    )
    assert claim.verdict == "ALARM", claim
