"""A plan names the model: a client takes no part in a round about another one, and clients whose
plans name different models are in no sum together. An active server that sends ONE client a model
of its own reads it in clear, and gets nothing of it where updates are summed.
"""

from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import Fishing, NotApplicable
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import Broadcast, Dataset, OsNoise, PlanRefused, Seeds
from privfl.crypto import BFV, AdditiveSharing, Plain, SecAgg
from privfl.dp import Clip, NoBound
from privfl.engine import Attacker, BufferedPace, Engine
from privfl.engine.client import ClientSide
from privfl.engine.order import Told
from privfl.hybrid import TwoServer
from privfl.models import initialised, mlp
from privfl.training import FedSGD, Sequential

N, VICTIM, FEATURES = 4, 2, 16
SUMS = {
    "secagg": SecAgg(bits=24),
    "secagg, active": SecAgg(mode="active", bits=24, corrupt=0.0),
    "secagg, ideal": SecAgg(fidelity="ideal", bits=24),
    "additive_sharing": AdditiveSharing(bits=24),
    "bfv": BFV(bits=20),
    "two_server": TwoServer(bits=20, security="semi_honest"),
}


def data():
    """Four classes; of the last one there is a single sample, the victim's first."""
    coins = torch.Generator().manual_seed(3)
    made = []
    for client in range(N):
        labels = torch.tensor([3 if client == VICTIM else 0, 1, 2, 0, 1, 2])
        made.append(Dataset(torch.rand(6, 1, 4, 4, generator=coins), labels, 4))
    return made


def scenario(channel, attackers=(), mail="bare", pace=None):
    own = data()
    net = initialised(mlp, (1, 4, 4), 4, seed=0, hidden=(FEATURES,))
    return Federation(
        net,
        own,
        own[0],
        training=FedSGD(lr=0.1),
        bound=Clip(l2=1.0),
        channel=channel,
        attackers=list(attackers),
        mail=mail,
        pace=pace,
        executor="sequential",
        audit=AuditConfig(keep="all"),
    )


BAIT = Fishing(features=FEATURES, classes=4, wanted=3, victim=VICTIM)
FISHING = [Attacker("fishing", BAIT, frozenset(range(N)))]


def likeness(view):
    found = BAIT.run(view)
    if isinstance(found, NotApplicable):
        return None
    return float(pictures(found.samples, data()[VICTIM].x[:1], peak=1.0).psnr)


@pytest.mark.parametrize("mail", ["bare", "signed"])
def test_a_server_that_sends_one_client_a_bait_reads_it_in_clear(mail):
    run = scenario(Plain(), FISHING, mail).run()
    assert likeness(run.view("server", 0)) > 40
    told = [what for what in run.history[0].incidents if "client/2" in str(what)]
    assert bool(told) == (mail == "signed")  # the honest half of the server refuses its letter


@pytest.mark.parametrize("mail", ["bare", "signed"])
@pytest.mark.parametrize("name", SUMS)
def test_where_updates_are_summed_the_baited_client_is_out_of_the_sum_by_name(name, mail):
    run = scenario(SUMS[name], FISHING, mail).run()
    opened = run.transcripts[0].carried.opened["delta"]
    assert opened is None or VICTIM not in opened.survivors
    incidents = " ".join(map(str, run.history[0].incidents))
    assert "client 2" in incidents or "client/2" in incidents
    assert likeness(run.view("server", 0)) is None


@pytest.mark.parametrize("name", SUMS)
def test_a_server_that_sends_everybody_the_same_other_model_is_not_stopped(name):
    everybody = replace(BAIT, victim=None)
    run = scenario(SUMS[name], [Attacker("fishing", everybody, frozenset(range(N)))]).run()
    assert run.transcripts[0].carried.opened["delta"].survivors == tuple(range(N))


def side(**options):
    return ClientSide({}, {"delta": NoBound()}, Seeds(0), OsNoise(), **options)


def test_a_client_refuses_a_plan_without_its_model_and_a_synchronous_one_with_two():
    engine = Engine(scenario(Plain()).scenario, Sequential(scenario(Plain()).scenario.workload))
    order = engine.planner.order(engine.begin("sequential"), {})
    base, other = order.base.digest, Broadcast(0, torch.ones(3)).digest
    side().agreed(order.plans, base)
    for models, mine, why in (
        ((), base, "does not name the model"),
        ((other,), base, "does not name the model"),
        ((base,), other, "does not name the model"),
        ((base, other), base, "names 2 models"),
    ):
        plans = {"delta": replace(order.plan, models=models)}
        with pytest.raises(PlanRefused, match=why):
            side().agreed(plans, mine)
    both = {"delta": replace(order.plan, models=(base, other))}
    side(synchronous=False).agreed(both, base)
    mixed = {**order.plans, "control": replace(order.plan, part="control", models=(other,))}
    with pytest.raises(PlanRefused, match="part 'control'"):
        side().agreed(mixed, base)


def test_clients_of_a_server_whose_plan_names_another_model_stay_away_and_say_why(monkeypatch):
    work = scenario(Plain()).scenario
    engine = Engine(work, Sequential(work.workload))
    honest, other = type(engine.planner).order, Broadcast(0, torch.ones(3)).digest

    def order(self, *args):
        made = honest(self, *args)
        plans = {part: replace(plan, models=(other,)) for part, plan in made.plans.items()}
        return replace(made, plans=plans)

    monkeypatch.setattr(type(engine.planner), "order", order)
    played = engine.play(engine.begin("sequential"))
    refused = [i for i in played.transcript.incidents if i.stage == "plan"]
    assert [i.client for i in refused] == list(range(N))
    assert all("does not name the model" in i.what for i in refused)
    assert played.transcript.carried.opened["delta"] is None


def test_the_servers_own_plan_is_that_of_most_clients_and_each_client_is_told_its_own_model():
    work = scenario(Plain()).scenario
    engine = Engine(work, Sequential(work.workload))
    order = engine.planner.order(engine.begin("sequential"), {})
    base = order.base
    bait, dull = (replace(base, parameters=base.parameters + shift) for shift in (1.0, 2.0))
    assert Told.of(order, {}).plans is order.plans
    told = Told.of(order, {VICTIM: bait})
    assert told.plans["delta"].models == (base.digest,)
    assert told.plans_of(0) is told.plans
    assert told.plans_of(VICTIM)["delta"].models == (bait.digest,) == (told.models[VICTIM],)
    told = Told.of(order, {c: bait if c == VICTIM else dull for c in range(N)})
    assert told.plans["delta"].models == (dull.digest,)
    assert told.to.keys() == {VICTIM}


def test_an_asynchronous_plan_names_several_models_so_a_bait_is_in_the_sum_and_the_run_says_so():
    pace = BufferedPace(k=N, concurrency=N)
    run = scenario(SecAgg(bits=24), FISHING, pace=pace).run()
    transcript = run.transcripts[0]
    assert VICTIM in transcript.clients_seen()
    assert len(transcript.plan.models) == 1  # of the honest server; the bait's is named beside it
    assert any("names several models" in warning for warning in run.summary["warnings"])
    waits = scenario(SecAgg(bits=24), FISHING).run()
    assert VICTIM not in waits.transcripts[0].clients_seen()
    assert not any("names several models" in warning for warning in waits.summary["warnings"])
