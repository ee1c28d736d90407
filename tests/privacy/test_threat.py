"""Against whom a claim is made: whoever knows a seed draws its samples again, a server sees its own
cohorts, and clients that collude subtract their shares.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from privfl import Federation, PrivateAggregation
from privfl.aggregators import Mean
from privfl.attacks import ZeroWeights
from privfl.config import AuditConfig
from privfl.core import (
    Charge,
    ConfigError,
    Dataset,
    Faults,
    Ledger,
    LocalPlan,
    OsNoise,
    RoundFailed,
    Sampling,
    SeededNoise,
    Seeds,
    Threat,
    secret_generator,
)
from privfl.crypto import Chain, Plain, SecAgg
from privfl.dp import (
    Clip,
    DistributedSkellam,
    DPGradient,
    Gaussian,
    LocalGaussian,
    epsilon,
    sentence,
    spend,
)
from privfl.engine import Attacker, FixedSize, Poisson, read_ledger
from privfl.training import LocalSGD

N = 10
PUBLIC_MEAN = Mean(weighted=False, denominator=5.0)
SECRET = Threat(sampling="secret")
SAMPLED = {
    "mechanism": Gaussian(1.0),
    "sampler": Poisson(0.5),
    "aggregator": PUBLIC_MEAN,
    "rounds": 8,
}


def cohorts(run):
    return [run.transcripts[number].plan.cohort for number in range(len(run.history))]


def drawn_again(seed, rounds=8, n=N):
    """What somebody draws who knows nothing but the seed in the config."""
    rngs = (Seeds(seed).generator("sampling", number) for number in range(rounds))
    return [Poisson(0.5).draw(range(n), rng) for rng in rngs]


def only(run):
    [spent] = spend(run.ledger, 1e-5)
    return spent


# ---- coins


def test_whoever_knows_the_seed_knows_the_cohorts_and_secret_coins_are_nobodys(federation, camps):
    rows = camps(5)
    public = federation(rows, seed=7, **SAMPLED).run()
    assert cohorts(public) == drawn_again(7)
    secret = federation(rows, seed=7, threat=SECRET, **SAMPLED).run()
    assert cohorts(secret) != drawn_again(7)
    assert cohorts(secret) != cohorts(federation(rows, seed=7, threat=SECRET, **SAMPLED).run())


def test_what_a_seed_draws_is_priced_without_amplification_beside_the_figure_with_secret_coins(
    federation, camps
):
    public = only(run := federation(camps(5), **SAMPLED).run())
    secret = only(federation(camps(5), threat=SECRET, **SAMPLED).run())
    assert public.rdp == secret.rdp
    most = max(sum(client in cohort for cohort in cohorts(run)) for client in range(N))
    unsampled = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": most, "delta": 1e-5}
    assert public.as_drawn == pytest.approx(epsilon(**unsampled, accountant="pld"), abs=1e-3)
    assert public.as_drawn > 1.2 * public.epsilon
    assert any("same run with secret coins" in note for note in public.notes)
    assert secret.as_drawn is None
    assert not any("coins" in note for note in secret.notes)


@pytest.mark.parametrize(("sampling", "known"), [("public", True), ("secret", False)])
def test_batches_of_private_training_follow_from_the_seed_unless_they_are_secret(sampling, known):
    gradient = DPGradient(1.0, 1.0, batch_size=20, sampling=sampling)
    rng = [Seeds(3).generator("training", 0, 1) for _ in range(2)]
    drawn, again = (
        [batch.tolist() for batch in gradient.batches(50, LocalPlan(20, steps=9), one)]
        for one in rng
    )
    assert (drawn == again) == known
    assert {step.coins for step in gradient.noisy(50, LocalPlan(20), 9)} == {sampling}


@pytest.mark.parametrize(("n", "rate"), [(40, 0.3), (2000, 0.05)])
def test_secret_samples_hold_everybody_as_often_as_their_rate_says(n, rate):
    plays = 400
    gradient = DPGradient(1.0, 1.0, batch_size=int(n * rate), sampling="secret")
    batches = gradient.batches(n, LocalPlan(int(n * rate), steps=plays), torch.Generator())
    counts = torch.stack([torch.bincount(batch, minlength=n) for batch in batches]).sum(0)
    draws = (Poisson(rate).draw(range(n), secret_generator(OsNoise())) for _ in range(plays))
    joined = torch.stack([torch.bincount(torch.tensor(d), minlength=n) for d in draws]).sum(0)
    for each in (counts, joined):
        spread = math.sqrt(n * plays * rate * (1 - rate))
        assert abs(each.sum().item() - n * plays * rate) < 6 * spread
        assert each.double().std().item() / math.sqrt(plays * rate * (1 - rate)) < 1.6


def test_a_secret_generator_takes_its_whole_state_from_the_noise_source():
    states = [secret_generator(SeededNoise(4)).get_state() for _ in range(2)]
    assert torch.equal(*states)
    other = secret_generator(SeededNoise(5)).get_state()
    words = (other.numpy()[24:5016].view("<u8"), states[0].numpy()[24:5016].view("<u8"))
    assert sum(a != b for a, b in zip(*words, strict=True)) > 620
    generator = secret_generator(SeededNoise(4))
    first = torch.rand(700, generator=generator, dtype=torch.float64)
    assert 0.45 < first.mean() < 0.55
    assert len(set(first.tolist())) == 700


def data(seed):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.randn(12, 4, generator=rng), torch.arange(12) % 2, classes=2)


def private_training(**parts: Any) -> Federation:
    sampling = parts.pop("sampling", "public")
    gradient = DPGradient(1.0, 1.0, batch_size=4, sampling=sampling)
    training = LocalSGD(plan=LocalPlan(4, steps=2), gradient=gradient, weighting="uniform")
    parts = {"training": training, "rounds": 2, "executor": "sequential", **parts}
    return Federation(nn.Linear(4, 2), [data(0), data(1)], data(9), **parts)


def test_secret_coins_that_somebody_can_draw_again_are_refused(federation, camps):
    with pytest.raises(ConfigError, match="sampling='secret'"):
        private_training(threat=SECRET)
    run = private_training(threat=SECRET, sampling="secret").run()
    assert {charge.coins for charge in run.ledger.charges} == {"secret"}
    with pytest.raises(ConfigError, match="noise_seed"):
        federation(camps(5), threat=SECRET, noise=SeededNoise(1), **SAMPLED)
    with pytest.raises(ConfigError, match="repeats"):
        DPGradient(1.0, 1.0, batch_size=4, sampling="secret", noise=SeededNoise(1))


def test_a_config_draws_batches_secretly_where_its_threat_says_so():
    config = {
        "data": {"name": "digits", "clients": 2},
        "training": {
            "name": "sgd",
            "steps": 1,
            "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0},
        },
        "rounds": 1,
        "threat": {"sampling": "secret"},
    }
    run = Federation.from_config(config).run()
    assert {charge.coins for charge in run.ledger.charges} == {"secret"}
    assert all(one.as_drawn is None for one in spend(run.ledger, 1e-5))


def test_charges_of_old_ledgers_that_say_nothing_of_coins_are_of_public_ones():
    charge = Charge.from_json(
        {
            "round": 0,
            "event": {"mechanism": "gaussian", "parameters": {"noise_multiplier": 1.0}},
            "sampling": {"scheme": "poisson", "rate": 0.1, "population": 100},
            "unit": "client",
            "relation": "add_remove",
        }
    )
    [spent] = spend(Ledger((charge,)), 1e-5)
    assert spent.as_drawn > 2 * spent.rdp


# ---- a round that was killed


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Dying:
    """A party in whose first step the process ends, as often as there are ``kills``."""

    honest: Any
    kills: ClassVar = [0]

    def step(self, mail):
        if self.kills[0]:
            self.kills[0] -= 1
            raise Killed
        return self.honest.step(mail)


@pytest.mark.parametrize("threat", [SECRET, Threat()], ids=["secret", "public"])
def test_a_killed_round_draws_another_cohort_with_secret_coins_and_is_charged_as_another(
    tmp_path, federation, camps, threat
):
    parts = {**SAMPLED, "rounds": 1, "threat": threat, "sampler": Poisson(0.8)}
    faults = Faults(byzantine={f"client/{i}": Dying for i in range(N)})
    Dying.kills[0] = 1
    with pytest.raises(Killed):
        federation(camps(5), **parts).run(tmp_path / "run", faults=faults)
    run = federation(camps(5), **parts).run(tmp_path / "run", resume=True, faults=faults)
    multipliers = [c.event.parameters["noise_multiplier"] for c in run.ledger.charges]
    assert multipliers == ([1.0, 1.0] if threat is SECRET else [pytest.approx(2**-0.5)])
    assert read_ledger(tmp_path / "run") == run.ledger


def test_another_try_of_the_layer_with_the_same_clients_is_no_fresh_draw_of_secret_coins(
    monkeypatch,
):
    def fails(*args, **more):
        raise RoundFailed("the relay was down.")

    layer = PrivateAggregation(
        bound=Clip(1.0),
        mechanism=Gaussian(1.0),
        sampling=Sampling("poisson", 0.1, 50),
        denominator=5,
        threat=SECRET,
    )
    monkeypatch.setattr(layer._session, "play", fails)
    with pytest.raises(RoundFailed):
        layer.aggregate({client: torch.ones(3) for client in range(4)})
    monkeypatch.undo()
    layer.aggregate({client: torch.ones(3) for client in range(4)})
    assert [c.event.parameters["noise_multiplier"] for c in layer.ledger.charges] == [
        pytest.approx(2**-0.5)
    ]


# ---- who sees the cohort


def test_a_cohort_that_is_seen_amplifies_nothing_and_shows_who_is_there(federation, camps):
    seen = Threat(sees_cohort=True, sampling="secret")
    run = federation(camps(5), threat=seen, **SAMPLED).run()
    assert {charge.relation for charge in run.ledger.charges} == {"zero_out"}
    most = max(sum(client in cohort for cohort in cohorts(run)) for client in range(N))
    unsampled = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": most, "delta": 1e-5}
    assert only(run).rdp == pytest.approx(epsilon(**unsampled))
    with pytest.raises(ConfigError, match="whether a client is there"):
        federation(camps(5), threat=seen, relation="add_remove", **SAMPLED)


@pytest.mark.parametrize("channel", [Plain(), SecAgg(), Chain()], ids=["plain", "secagg", "chain"])
def test_nothing_is_amplified_against_clients_that_take_part(channel, federation, camps):
    """They are told the cohort: with one of them, who was not drawn is known not to be there."""
    parts = {"mechanism": Gaussian(1.0), "sampler": FixedSize(4), "rounds": 2, "channel": channel}
    apart = federation(camps(5), threat=Threat(sampling="secret"), **parts).run()
    assert all(charge.cohort_hidden for charge in apart.ledger.charges)
    run = federation(camps(5), threat=Threat(colluders=1, sampling="secret"), **parts).run()
    assert not any(charge.cohort_hidden for charge in run.ledger.charges)
    most = max(sum(client in cohort for cohort in cohorts(run)) for client in range(N))
    unsampled = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": most, "delta": 1e-5}
    assert only(run).rdp == pytest.approx(epsilon(**unsampled))
    told = sentence(only(run), run.ledger.charges)
    assert "with 1 clients that collude, who sees each cohort" in told


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"adversary": "server", "sees_cohort": False}, "draws the cohort itself"),
        ({"adversary": "server", "colluders": 2}, "server_and_clients"),
        ({"adversary": "server_and_clients"}, "how many"),
        ({"colluders": -1}, "at least 0"),
        ({"colluders": 1, "sees_cohort": False}, "told who does"),
    ],
)
def test_threats_that_cannot_be_are_refused_in_words(how, words):
    with pytest.raises(ConfigError, match=words):
        Threat(**how)


@pytest.mark.parametrize("adversary", ["server", "server_and_clients"])
def test_a_server_that_adds_the_noise_itself_gets_no_claim(adversary, federation, camps):
    colluders = 2 if adversary == "server_and_clients" else 0
    with pytest.raises(ConfigError, match="the server adds the noise itself"):
        federation(camps(5), threat=Threat(adversary, colluders), **SAMPLED)
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=Gaussian(1.0), threat=Threat(adversary, colluders)
    )
    with pytest.raises(ConfigError, match="the server adds the noise itself"):
        layer.aggregate({1: torch.ones(3), 2: torch.ones(3)})
    assert not layer.ledger.charges


def test_clients_that_read_updates_before_the_servers_noise_get_no_claim(federation, camps):
    """Over a chain the two neighbours of a client read what it added, and no noise is in it."""
    for colluders in (2, 4):
        threat = Threat(colluders=colluders)
        with pytest.raises(ConfigError, match=r"two clients beside .* to 1 at most") as refused:
            federation(camps(5), channel=Chain(), threat=threat, **SAMPLED)
        assert "before the server adds noise" in str(refused.value)
        layer = PrivateAggregation(
            bound=Clip(1.0), mechanism=Gaussian(1.0), channel=Chain(), threat=threat
        )
        with pytest.raises(ConfigError, match="two clients beside"):
            layer.aggregate({i: torch.ones(2) for i in range(5)})
    for channel, colluders in ((Chain(), 1), (SecAgg(), 4)):
        held = federation(camps(5), channel=channel, threat=Threat(colluders=colluders), **SAMPLED)
        assert held.run().ledger.charges[0].against == "model_recipients"


@pytest.mark.parametrize(
    "parts",
    [
        {"mechanism": LocalGaussian(2.0), "aggregator": Mean()},
        {"channel": SecAgg(noise=DistributedSkellam(1.0), bits=20), "aggregator": Mean()},
    ],
    ids=["local", "shares"],
)
def test_noise_at_clients_and_in_shares_is_claimed_against_the_server(parts, federation, camps):
    run = federation(camps(5), **parts).run()
    assert {charge.against for charge in run.ledger.charges} == {"server"}
    with pytest.raises(ConfigError, match="no amplification is proved"):
        federation(camps(5), threat=Threat(sees_cohort=False), **parts)


# ---- clients that collude


def shares(federation, rows, colluders, **parts):
    channel = SecAgg(noise=DistributedSkellam(2.0), bits=20, fidelity="ideal", **parts)
    threat = Threat("server_and_clients", colluders) if colluders else None
    return federation(rows, channel=channel, aggregator=Mean(), threat=threat)


def test_clients_that_collude_subtract_their_shares_and_are_charged_for(federation, camps):
    rows, variances, spent = camps(5), {}, {}
    for colluders in (0, 2, 4):
        run = shares(federation, rows, colluders).run()
        [charge] = run.ledger.charges
        variances[colluders] = charge.event.parameters["variance"]
        spent[colluders] = only(run).epsilon
        assert charge.colluders == colluders
    assert variances[2] / variances[0] == pytest.approx(8 / 10)
    assert variances[4] / variances[0] == pytest.approx(6 / 10)
    assert spent[0] < spent[2] < spent[4]


def test_attackers_among_the_clients_know_their_own_shares(federation, camps):
    attacker = Attacker("zero", ZeroWeights(), frozenset({0, 1, 2}))
    channel = SecAgg(noise=DistributedSkellam(2.0), bits=20, fidelity="ideal")
    run = federation(camps(5), channel=channel, aggregator=Mean(), attackers=[attacker]).run()
    [charge] = run.ledger.charges
    honest = only(shares(federation, camps(5), 3).run())
    assert (charge.against, charge.colluders) == ("server_and_clients", 3)
    assert only(run).epsilon == honest.epsilon


def test_so_many_colluders_that_nothing_is_left_are_refused(federation, camps):
    with pytest.raises(ConfigError, match=r"read single updates|every share"):
        shares(federation, camps(5), 9)


@pytest.mark.parametrize("parts", [{}, {"threshold": 0.8}])
def test_a_refusal_of_colluders_says_how_many_would_pass(federation, camps, parts):
    with pytest.raises(ConfigError) as refused:
        shares(federation, camps(5), 9, **parts)
    [most] = re.findall(r"lower threat.colluders to (\d+) at most", str(refused.value))
    assert only(shares(federation, camps(5), int(most), **parts).run()).epsilon < math.inf
    with pytest.raises(ConfigError, match=f"to {most} at most"):
        shares(federation, camps(5), int(most) + 1, **parts)


def test_a_server_that_reads_every_row_is_refused_where_rows_carry_one_share(federation, camps):
    @dataclass(frozen=True)
    class Readable(SecAgg):
        """Secure aggregation whose record says that the server reads single updates."""

        @property
        def guarantee(self):
            return Plain().guarantee

    channel = Readable(noise=DistributedSkellam(2.0), bits=20, fidelity="ideal")
    with pytest.raises(ConfigError, match="read single updates"):
        federation(camps(5), channel=channel, aggregator=Mean())


# ---- delta


def test_a_delta_that_protects_nobody_is_refused_before_any_training(federation, camps):
    with pytest.raises(ConfigError, match=r"audit.delta .* not below 1 / 10"):
        federation(camps(5), audit=AuditConfig(delta=0.1), **SAMPLED)
    federation(camps(5), audit=AuditConfig(delta=0.1))
    with pytest.raises(ConfigError, match="not below 1 / 12"):
        private_training(audit=AuditConfig(delta=0.2))
    layer = PrivateAggregation(bound=Clip(1.0), mechanism=Gaussian(1.0), delta=0.5)
    with pytest.raises(ConfigError, match="not below 1 / 2"):
        layer.aggregate({1: torch.ones(3), 2: torch.ones(3)})
    assert not layer.ledger.charges
