"""Generators against the shared model: what they make is of the class, works from released models
alone, and is called no member's sample unless members lie nearer than others.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.privacy_attacks.gans import shares
from privfl import Federation
from privfl.attacks import (
    ClientGAN,
    Knowledge,
    NotApplicable,
    NotFound,
    Reconstruction,
    ServerGAN,
)
from privfl.audit import audit, card, named_attacks
from privfl.audit.games import isolated
from privfl.audit.gates import Limit, over
from privfl.audit.record import record
from privfl.audit.representatives import class_likeness
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, LocalPlan
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.engine import Attacker
from privfl.models import initialised, mlp, transformer
from privfl.training import LocalSGD

WANTED, FAKE = 0, 10
SUMMED = {"bound": Clip(l2=1.0), "channel": SecAgg(fidelity="ideal", bits=24)}
SGD = LocalSGD(lr=0.2, plan=LocalPlan(32, epochs=2))


def part(data, index, classes=11):
    return Dataset(data.x[index], data.y[index], classes, span=data.span)


@pytest.fixture(scope="module")
def digits():
    return load("digits").train


@pytest.fixture(scope="module")
def clients(digits):
    """Two who hold the digits 0 to 4, and one, the attacker, who holds the others."""
    small, large = ((digits.y < 5) == low for low in (True, False))
    small, large = small.nonzero().squeeze(1), large.nonzero().squeeze(1)
    return [part(digits, small[:150]), part(digits, small[150:300]), part(digits, large[:150])]


@pytest.fixture(scope="module")
def judge(digits):
    """Another classifier, on other samples."""
    net = initialised(mlp, (1, 8, 8), 10, seed=9, hidden=(32,))
    adam, other = torch.optim.Adam(net.parameters(), 0.01), part(digits, slice(900, None), 10)
    for _ in range(40):
        adam.zero_grad()
        nn.functional.cross_entropy(net(other.x), other.y).backward()
        adam.step()
    return net


def play(clients, attack, rounds, **parts):
    made = federation(clients, rounds, attackers=[Attacker("gan", attack, frozenset([2]))], **parts)
    run = made.run()
    return [run.view("client(2)", number) for number in range(rounds)]


def federation(clients, rounds, **parts):
    net = initialised(mlp, (1, 8, 8), 11, seed=0, hidden=(32,))
    return Federation(
        net,
        clients,
        clients[0],
        rounds=rounds,
        training=SGD,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **parts,
    )


def test_a_client_learns_what_a_class_looks_like_that_it_does_not_hold(clients, judge):
    """Also where updates are summed: all that it reads is the released model."""
    assert not bool((clients[2].y == WANTED).any())
    attack = ClientGAN(wanted=WANTED, labelled=FAKE, steps=20, fakes=32, lr=0.2)
    told = attack.run(play(clients, attack, 6, **SUMMED))
    assert not isinstance(told, Reconstruction)
    assert "no member's sample" in str(told)
    with torch.no_grad():
        right = float((judge(told.samples).argmax(dim=1) == WANTED).float().mean())
        own = judge(clients[2].x.mean(dim=0)[None]).argmax()  # all that it has without the model
    assert right > 0.5
    assert int(own) != WANTED


def test_fakes_change_what_is_sent_and_a_passive_twin_sends_what_is_honest(clients):
    active = ClientGAN(wanted=WANTED, labelled=FAKE, steps=2, lr=0.2)
    sent = [
        play(clients, attack, 1)[0].own[2].delta
        for attack in (active, replace(active, active=False), replace(active, fakes=8))
    ]
    assert not torch.equal(sent[0], sent[1])
    assert not torch.equal(sent[0], sent[2])
    assert float(sent[1].norm()) > 0


def test_classes_that_are_not_there_are_refused_by_name(clients):
    with pytest.raises(ConfigError, match="wanted and labelled are both 3"):
        ClientGAN(wanted=3, labelled=3)
    attack = ClientGAN(wanted=11, labelled=0, steps=1)
    assert "class 11" in attack.run(play(clients, replace(attack, wanted=1), 1)).reason


def likeness(found, digits, judge, blind=None):
    """Members and held-out samples of one class, the first half of it each."""
    own = digits.x[digits.y == WANTED]
    members, others = own[0:80:2], own[1:80:2]
    guess = own[80:].mean(dim=0) if blind is None else blind
    return class_likeness(found(members), WANTED, members, others, guess, judge, peak=16 / 6)


def test_what_repeats_members_is_told_as_such(digits, judge):
    told = likeness(lambda members: members[:20], digits, judge)
    assert told.nearer.low > 0.5
    assert told.to_member < told.to_held_out
    assert "more than" in str(told)


def test_a_class_mean_is_no_members_sample(digits, judge):
    """The mean of the members themselves is right to every classifier, as near to the class as can
    be, and tells no member from others.
    """
    told = likeness(lambda members: members.mean(dim=0)[None], digits, judge)
    assert told.right.value == 1.0
    assert told.psnr > told.blind_psnr
    assert told.nearer.holds(0.5)
    assert "no reconstruction of samples" in str(told)


def test_intervals_hold_the_null_where_members_are_dealt_afterwards(digits, judge):
    own = digits.x[digits.y == WANTED]
    held = []
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        dealt = own[torch.randperm(len(own), generator=rng)]
        parts = (dealt[:10], dealt[10:50], dealt[50:90])
        found, members, others = parts
        guess = dealt[90:].mean(dim=0)
        told = class_likeness(found, WANTED, members, others, guess, judge)
        held.append(told.nearer.holds(0.5))
    assert sum(held) >= 34  # of 40 at 95 %, under which 1 in 1,000 is


def test_a_server_learns_a_clients_class_and_of_a_sum_nobodys_in_particular(digits, clients, judge):
    knows = Knowledge(auxiliary=part(digits, slice(700, 900)), seed=1)
    attack = ServerGAN(wanted=WANTED, client=0, steps=40, matched=4, iterations=10, samples=16)
    run = federation(clients, 4).run()
    told = attack.run([run.view("server", number) for number in range(4)], knows)
    with torch.no_grad():
        right = float((judge(told.samples).argmax(dim=1) == WANTED).float().mean())
    assert right > 0.5
    assert told.notes["rounds with an identity"] == 4
    assert "client 0's updates" in str(told)
    summed = federation(clients, 2, **SUMMED).run()
    hidden = [summed.view("server", number) for number in range(2)]
    assert isinstance(attack.run(hidden, knows), NotApplicable)
    everybody = replace(attack, target="sum", client=None, steps=2).run(hidden, knows)
    assert everybody.notes["rounds with an identity"] == 0
    assert "sums" in str(everybody)


def test_without_samples_of_its_own_a_server_says_what_it_lacks(clients):
    view = federation(clients, 1).run().view("server", 0)
    assert isinstance(ServerGAN(wanted=1).run(view), NotFound)


def test_an_attacker_who_names_no_class_of_the_data_fails_by_name_in_the_round(clients):
    attack = ClientGAN(wanted=11, labelled=0, steps=1)
    run = federation(clients, 1, attackers=[Attacker("gan", attack, frozenset([2]))]).run()
    (incident,) = run.history[0].incidents
    assert "client_gan.wanted is 11" in str(incident)


def altered(view, at, value):
    rows = view.rows
    values = rows.values.clone()
    values[at, 5] = value
    return replace(view, opened={"delta": replace(rows, values=values)})


def test_what_is_not_finite_teaches_no_generator_and_another_clients_lie_stops_none(
    clients, digits
):
    view = federation(clients, 1).run().view("server", 0)
    knows = Knowledge(auxiliary=part(digits, slice(700, 900)))
    attack = ServerGAN(wanted=WANTED, client=0, steps=1, matched=2, iterations=1, samples=2)
    lied = attack.run(altered(view, 0, float("nan")), knows)
    assert isinstance(lied, NotFound)
    assert "round 0 is not finite" in lied.reason
    assert attack.run(altered(view, 1, float("inf")), knows).notes["rounds with an identity"] == 1
    diverged = replace(view, after=torch.full_like(view.after, float("nan")))
    told = ClientGAN(wanted=WANTED, labelled=FAKE, steps=1).run(diverged)
    assert isinstance(told, NotFound)
    assert "the model of round" in told.reason


def test_nobody_is_kept_apart_who_is_not_there(clients):
    with pytest.raises(ConfigError, match="client 7 cannot be kept apart"):
        isolated(federation(clients, 1), 7, rounds=1)
    with pytest.raises(ConfigError, match="at least one round"):
        isolated(federation(clients, 1), 0, rounds=0)


def test_a_blind_share_of_nothing_is_a_row_of_numbers():
    row = shares("case", "peer", "taken for it", 0.5, 0.0)
    assert row.theirs == 0.0
    assert row.ratio == 33.0


def test_an_isolated_client_goes_on_from_its_own_model_and_is_refused_in_a_sum(clients):
    alone = isolated(federation(clients, 2), 0, rounds=2)
    assert torch.equal(alone[0].bases[0], alone[0].before)
    assert torch.equal(alone[1].bases[0], alone[0].before + alone[0].rows.values[0])
    assert not torch.equal(alone[1].bases[0], alone[1].before)
    summed = isolated(federation(clients, 2, **SUMMED), 0, rounds=2)
    assert summed[1].total.count == 2


CHEAP = {"steps": 3, "samples": 8}
GENERATORS = [
    {"name": "client_gan", "wanted": WANTED, "labelled": FAKE, **CHEAP},
    {"name": "client_gan", "wanted": WANTED, "labelled": FAKE, "active": False, **CHEAP},
    {"name": "client_gan", "wanted": 5, "labelled": FAKE, "active": False, **CHEAP},
    {"name": "server_gan", "wanted": WANTED, "target": "sum", **CHEAP},
]


@pytest.fixture(scope="module")
def report(clients, digits):
    """Generators of a client who lacks the class and of a server, in an audit."""
    rest = part(digits, slice(900, 1300))
    made = federation(clients, 2).with_scenario(replace(federation(clients, 2).scenario, test=rest))
    attacks = named_attacks(GENERATORS)
    return audit(made, adversaries=["client(2)", "server"], attacks=attacks, lies=None)


def findings_of(report, who):
    return [one for one in report.findings if one.adversary == who]


def test_an_audit_asks_what_a_class_looks_like_and_scores_none_of_it_as_samples(report):
    (line,) = [line for line in card(report) if line.asset == "representatives"]
    assert set(line.figures) == {"right", "auc"}
    assert set(line.blind) == {"right", "auc"}
    others = [line for line in card(report) if line.asset != "representatives"]
    assert {line.verdict for line in others} <= {"not asked", "not applicable"}
    active, passive, own, _ = findings_of(report, "client(2)")
    assert (active.active, passive.active) == (True, False)
    assert active.value is not None
    assert "itself, so what they look like is no secret" in own.undone


def test_a_generator_of_clients_is_not_asked_of_who_has_no_client(report):
    active, passive, _, server = findings_of(report, "server")
    assert "ask a client(0), or set active: false" in active.undone
    assert passive.baseline is not None
    assert server.baseline.value == 1.0  # it has samples of the class, whose mean is taken for it
    assert server.verdict == "not found"


def test_a_gate_of_representatives_is_not_green_where_somebody_was_not_measured(report):
    told = over(record(report), Limit.parse("representatives.right=.99"))
    assert told.light == "inconclusive"
    assert over(record(report), Limit.parse("representatives.auc=.0")).light == "red"


def test_classes_that_the_data_lack_are_named_by_the_audit(clients, digits):
    odd = named_attacks([{"name": "client_gan", "wanted": 12, "labelled": 0, **CHEAP}])
    rest = part(digits, slice(900, 1300))
    made = federation(clients, 1).with_scenario(replace(federation(clients, 1).scenario, test=rest))
    (finding,) = audit(made, adversaries=["client(2)"], attacks=odd, lies=None).findings
    assert "there are 11 classes" in finding.undone


def audited(made, digits, who, *attacks, **how):
    """Findings about representatives alone, of this adversary."""
    rest = part(digits, slice(900, 1300))
    asked = made.with_scenario(replace(made.scenario, test=rest))
    named = named_attacks(list(attacks))
    return audit(asked, adversaries=[who], attacks=named, lies=None, **how).findings


def test_a_row_that_is_left_of_a_sum_has_representatives_too(clients, digits):
    """Two colluders take their own updates off the sum of three."""
    server = {"name": "server_gan", "wanted": WANTED, "matched": 2, "iterations": 1, **CHEAP}
    who = "colluders(server, client(1), client(2))"
    (finding,) = audited(federation(clients, 1, **SUMMED), digits, who, server)
    assert finding.value is not None
    assert finding.undone == ""


def test_a_run_that_a_generator_cannot_take_part_in_ends_no_audit(clients, digits):
    """Another attack trains in the place of the same client."""
    other = ClientGAN(wanted=1, labelled=FAKE, steps=1)
    made = federation(clients, 1, attackers=[Attacker("other", other, frozenset([2]))])
    (finding,) = audited(made, digits, "client(2)", GENERATORS[0])
    assert "both train in place of client 2" in finding.undone
    assert finding.verdict == "not found"


def test_a_generator_begins_no_run_of_its_own_after_the_budget(clients, digits):
    (finding,) = audited(federation(clients, 1), digits, "client(2)", GENERATORS[0], budget=1e-9)
    assert "the budget was used up before it began" in finding.undone


def test_text_has_no_representatives_and_the_audit_says_so():
    words = torch.arange(8 * 60).view(60, 8) % 7
    text = Dataset(words[:, :-1], words[:, 1:], 7)
    net = initialised(transformer, (7,), 7, seed=0, width=8, heads=2)
    parts = [text.take(torch.arange(k, 20, 2)) for k in range(2)]
    made = Federation(net, parts, text.take(range(20, 60)), rounds=1, executor="sequential")
    attacks = named_attacks([{"name": "client_gan", "wanted": 1, "labelled": 0, "active": False}])
    (finding,) = audit(made, adversaries=["server"], attacks=attacks, lies=None).findings
    assert "samples are tokens" in finding.undone


def test_who_has_samples_of_the_class_learns_nothing_from_a_picture_that_is_of_it():
    """The mean of a class in two heaps lies in the other class, so the mean alone would be a blind
    claim that no classifier takes for it.
    """
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    side = 2.0 * (torch.arange(400) // 2 % 2) - 1
    x = (y * side).unsqueeze(1) * torch.ones(4) + 0.1 * torch.randn(400, 4, generator=rng)
    heaps = Dataset(x, y, 2)
    net = initialised(mlp, (4,), 2, seed=0, hidden=(8,))
    clients = [heaps.take(range(100 * k, 100 * k + 100)) for k in range(2)]
    made = Federation(net, clients, heaps.take(range(200, 400)), rounds=1, executor="sequential")
    attacks = named_attacks([{"name": "server_gan", "wanted": 1, "target": "sum", **CHEAP}])
    (finding,) = audit(made, adversaries=["server"], attacks=attacks, lies=None).findings
    assert finding.value is not None
    assert finding.baseline.value == 1.0
