"""A federation from objects: it learns what a hand-written loop learns, survives its clients, and
shows each adversary what it saw.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy as ce

from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import (
    BadUpdate,
    ConfigError,
    Dataset,
    Faults,
    NotVisible,
    PartyPoison,
    RoundFailed,
    Seeds,
)
from privfl.data import load
from privfl.dp import Clip
from privfl.engine import Attacker, AttackSchedule, FixedSize, Poisson
from privfl.training import FedSGD, LocalSGD


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def parts(digits):
    return [digits.train.take(range(i, 200 + 30 * i, 4)) for i in range(4)]


@dataclass(frozen=True)
class Flaky(LocalSGD):
    """Training that raises at some clients."""

    broken: tuple[int, ...] = ()

    def on(self, model, loss):
        honest = super().on(model, loss)

        def train(client, *rest):
            if client in self.broken:
                raise KeyError("no disk")
            return honest(client, *rest)

        return train


def federation(parts, digits, **options):
    options = {
        "rounds": 2,
        "training": LocalSGD(lr=1.0),
        "executor": "sequential",
        "audit": AuditConfig(keep="all"),
        **options,
    }
    return Federation(net(), parts, digits.test, **options)


def test_it_equals_a_hand_written_federated_averaging_loop(parts, digits):
    run = federation(parts, digits, training=FedSGD(lr=0.5), rounds=4).run()
    model = net()
    total = sum(len(part.y) for part in parts)
    for _ in range(4):
        step = [torch.zeros_like(p) for p in model.parameters()]
        for part in parts:
            gradients = torch.autograd.grad(ce(model(part.x), part.y), list(model.parameters()))
            for s, g in zip(step, gradients, strict=True):
                s += len(part.y) / total * g
        with torch.no_grad():
            for p, s in zip(model.parameters(), step, strict=True):
                p -= 0.5 * s
    expected = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.allclose(run.parameters, expected, atol=1e-6)


def test_one_seed_gives_one_result_bit_for_bit_and_another_seed_another(parts, digits):
    options = {"sampler": FixedSize(2), "rounds": 3}
    first, again, other = (
        federation(parts, digits, seed=seed, **options).run().parameters for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_client_that_raises_is_an_incident_by_name_and_the_others_go_on(parts, digits):
    run = federation(parts, digits, training=Flaky(lr=1.0, broken=(1,))).run()
    record = run.history[0]
    assert record.survivors == 3
    assert any("client 1 failed" in what for what in record.incidents)
    assert run.accuracy > 0.5


def test_when_every_client_raises_the_run_says_why(parts, digits):
    with pytest.raises(RoundFailed, match="every client; client 0: KeyError: 'no disk'"):
        federation(parts, digits, training=Flaky(broken=(0, 1, 2, 3))).run()


def test_diverged_clients_are_refused_by_name_and_never_averaged(parts, digits):
    wild = Dataset(parts[2].x * 1e30, parts[2].y, classes=10)
    run = federation([*parts[:2], wild, parts[3]], digits).run()
    assert torch.isfinite(run.parameters).all()
    assert any(
        "client 2" in what and "NaN or infinite" in what for what in run.history[0].incidents
    )
    hopeless = federation(parts, digits, training=LocalSGD(lr=1e38)).run()
    assert torch.equal(
        hopeless.parameters, torch.cat([p.detach().flatten() for p in net().parameters()])
    )
    assert any("stays as it was" in what for what in hopeless.history[0].incidents)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(silent_from={"client/1": 0}),
        Faults(late={"client/1": 1}),
        Faults(malformed={"client/1": lambda body: bytes(body)[:-1]}),
        Faults(malformed={"client/1": lambda body: b""}),
        Faults(malformed={"client/1": lambda body: b"\xff" * len(body)}),
        Faults(duplicated={"client/1", "client/2"}),
    ],
    ids=["silent", "late", "cut", "empty", "garbage", "doubled"],
)
def test_what_goes_wrong_on_the_wire_costs_at_most_that_client(parts, digits, faults):
    run = federation(parts, digits).run(faults=faults)
    lost = 0 if faults.duplicated or faults.late else 1
    assert run.history[0].survivors == 4 - lost
    if lost:
        assert any("client 1" in what or "client/1" in what for what in run.history[0].incidents)
    assert run.accuracy > 0.5


def test_a_client_that_skips_the_clip_is_caught_by_the_plain_server(parts, digits):
    class Boost(PartyPoison):
        def poison_party(self, honest, plan, client):
            class Liar:
                def step(self, mail):
                    return {to: self.blow(body) for to, body in honest.step(mail).items()}

                def blow(self, body):
                    out = bytearray(body)
                    values = torch.frombuffer(out, dtype=torch.float32, offset=32)
                    values *= 100
                    return out

            return Liar()

    attacker = Attacker("boost", Boost(), frozenset({0}), AttackSchedule(rounds=(1,)))
    run = federation(parts, digits, bound=Clip(l2=0.5), attackers=[attacker]).run()
    assert run.history[0].survivors == 4
    assert run.history[1].survivors == 3
    assert any(
        "client/0 was excluded" in what and "over the bound" in what
        for what in run.history[1].incidents
    )


def test_every_update_is_clipped(parts, digits):
    run = federation(parts, digits, bound=Clip(l2=0.1)).run()
    norms = run.view("server", 1).rows.values.norm(dim=1)
    assert (norms <= 0.1 * (1 + 1e-6)).all()
    assert (norms > 0.099).all()


def test_an_empty_poisson_cohort_is_a_round_in_which_nothing_happens(parts, digits):
    seed = next(
        s
        for s in range(1000)
        if not len(Poisson(0.2).draw(range(4), Seeds(s).generator("sampling", 0)))
    )
    run = federation(parts, digits, sampler=Poisson(0.2), seed=seed, rounds=1).run()
    assert run.history[0].cohort == 0
    assert torch.equal(
        run.parameters, torch.cat([p.detach().flatten() for p in net().parameters()])
    )


def test_views_over_the_plain_channel(parts, digits):
    run = federation(parts, digits).run()
    transcript = run.transcript(1)
    server, outsider = run.view("server", 1), run.view("outsider", 1)
    for client, update in transcript.updates.items():
        assert torch.equal(server.rows.values[server.rows.ids.index(client)], update.delta)
    assert torch.equal(outsider.rows.values, server.rows.values)
    assert server.rows.weights.tolist() == [float(len(part.y)) for part in parts]
    client = run.view("client(2)", 1)
    with pytest.raises(NotVisible, match="single updates"):
        _ = client.rows
    assert list(client.own) == [2]
    assert list(run.view("colluders(client/1, client/3)", 1).own) == [1, 3]
    assert run.view("colluders(server, client/1)", 1).rows.n == 4
    with pytest.raises(NotVisible, match="key"):
        run.view("key_holder", 1)
    with pytest.raises(NotVisible, match="nobody called 'client/77'"):
        run.view("client(77)", 1)
    with pytest.raises(ConfigError, match="no adversary"):
        run.view("gods eye", 1)


def test_rounds_that_were_not_kept_have_no_view_and_say_how_to_keep_them(parts, digits):
    run = federation(parts, digits, audit=AuditConfig(keep=[1])).run()
    assert run.view("server", 1).rows.n == 4
    with pytest.raises(NotVisible, match=r"audit\.keep"):
        run.view("server", 0)


def test_impossible_parts_are_refused_before_training(parts, digits):
    with pytest.raises(ConfigError, match="no clients"):
        Federation(net(), [], digits.test)
    with pytest.raises(ConfigError, match="client 1 has no data"):
        federation([parts[0], parts[1].take([])], digits)
    with pytest.raises(ConfigError, match="4 clients"):
        federation(parts, digits, sampler=FixedSize(9)).run()


def test_bounded_refuses_what_it_must():
    from privfl.core import Bounded

    Bounded(1, torch.tensor([0.6, 0.8]), l2=1.0)
    for delta, l2 in (
        ([0.7, 0.8], 1.0),
        ([float("nan"), 0.0], float("inf")),
        ([float("inf"), 0.0], float("inf")),
    ):
        with pytest.raises(BadUpdate, match="client 1"):
            Bounded(1, torch.tensor(delta), l2=l2)
    with pytest.raises(BadUpdate):
        Bounded(1, torch.zeros(2), l2=1.0, weight=0.0)
