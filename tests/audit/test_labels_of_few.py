"""Labels and samples of few clients: what saw nothing of what is asked leaks no more often than is
promised, and what is surely told is found.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import Counts, Knowledge, LabelCounts, LinearLeakage
from privfl.audit import Attacks, audit, card
from privfl.audit.games import AuditNotes, Truth, attack_probe
from privfl.audit.rehearsal import divide, rehearse
from privfl.data import load
from privfl.training import FedSGD

DIGITS = load("digits").train
PLAYS = 600


def federation(parts, seed=0):
    """Clients who hold these digits; the samples to test with are of all classes."""
    torch.manual_seed(seed)
    return Federation(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        [DIGITS.take(part) for part in parts],
        load("digits").test.take(range(150)),
        rounds=1,
        training=FedSGD(lr=0.1),
    )


def drawn(clients, each, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(DIGITS.n, generator=generator)[: clients * each].view(clients, each)


def probed(made, attacks, trained=None):
    """The findings of attacks on one round of one sample a client: of the samples that are asked
    about, or of others of the same clients.
    """
    ground = divide(made.scenario, 0.5, 0)
    few = {client: index[:1] for client, index in ground.members.items()}
    run = rehearse(made, few if trained is None else trained, 1)
    knows = Knowledge(made.scenario.facts["forward"], auxiliary=ground.auxiliary)
    truth, notes = Truth(few, made.scenario.workload.data, ground), AuditNotes([], {}, {})
    attack_probe(notes, "l", run, ["server"], attacks, knows, truth, None)
    return notes.findings


@dataclass(frozen=True, slots=True)
class Guesses(LabelCounts):
    """Of each row the label of one of the adversary's own samples, and nothing of the row."""

    seed: int = 0

    def infer(self, views, knowledge):
        rows = views[0].opened["delta"]
        generator = torch.Generator().manual_seed(1009 * self.seed + int(rows.ids[0]))
        own = knowledge.auxiliary.y
        label = own[torch.randint(0, len(own), (1,), generator=generator)]
        return Counts("Guesses", "server", nn.functional.one_hot(label, 10)[0])


@pytest.mark.parametrize("clients", [4, 6, 12])
def test_labels_that_were_guessed_leak_no_more_often_than_once_in_40_times(clients):
    """Deals of few labels to few rows are no normal ones: 3 to 6 % of guesses leaked."""
    findings = probed(federation(drawn(clients, 40)), [Guesses(seed=seed) for seed in range(PLAYS)])
    assert len(findings) == PLAYS
    assert all(one.clusters == clients for one in findings)
    assert sum(one.verdict == "leaks" for one in findings) <= 0.025 * PLAYS


@pytest.mark.parametrize("clients", [3, 4, 5])
def test_labels_of_few_clients_that_are_counted_leak(clients):
    report = audit(
        federation(drawn(clients, 40)),
        adversaries=["server"],
        attacks=Attacks(probe=(LabelCounts(), LabelCounts(target="sum"))),
        lies=None,
    )
    (line,) = [line for line in card(report) if line.asset == "labels"]
    assert (line.verdict, line.looks) == ("leaks", 2)


def test_what_a_client_is_like_is_no_sample_of_it():
    """Clients of one class each, who trained on other samples of theirs: held against samples of
    all classes, what is read looked like those that were asked about.
    """
    found = []
    for seed in range(20):
        order = torch.randperm(DIGITS.n, generator=torch.Generator().manual_seed(seed))
        own = [order[DIGITS.y[order] == label][:24] for label in range(5)]
        made = federation([part[:16] for part in own], seed)
        others = {client: part[16:17] for client, part in enumerate(own)}
        every = replace(
            made.scenario, workload=replace(made.scenario.workload, data=DIGITS), clients={}
        )
        clients = {client: part[:16] for client, part in enumerate(own)}
        made = made.with_scenario(replace(every, clients=clients))
        found += probed(made, [LinearLeakage()], others)
    assert len(found) == 20
    assert sum(one.verdict == "leaks" for one in found) <= 2
