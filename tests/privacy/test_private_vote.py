"""Votes of clients through real channels: what leaves, what is charged, and what is refused."""

import json

import pytest
import torch
from torch import nn

from privfl.core import (
    BadUpdate,
    ConfigError,
    Dataset,
    LocalPlan,
    Neighbours,
    RoundFailed,
    Rows,
    SeededNoise,
)
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.data import IID, load
from privfl.dp import DistributedSkellam, PrivacyWarning
from privfl.dp.charges import stepped
from privfl.dp.pate import UNANSWERED, ConfidentGNMax
from privfl.engine import Journal
from privfl.hybrid import BucketedSecAgg
from privfl.models import initialised, softmax
from privfl.pate import PrivateVote, trained_alone, votes_of
from privfl.pate.vote import counted
from privfl.training import LocalSGD, evaluate

RULE = ConfidentGNMax(deviation=2.0, threshold=5.0, check=1.0, most_answers=3)


def ballots(n=9, q=6, classes=4, seed=0):
    drawn = torch.randint(classes, (n, q), generator=torch.Generator().manual_seed(seed))
    drawn[: n - 2] = drawn[0]
    return {client: drawn[client] for client in range(n)}


@pytest.mark.parametrize("channel", [SecAgg(), SecAgg(mode="active"), AdditiveSharing()])
def test_counts_and_labels_over_a_channel_that_sums_are_those_in_clear(channel):
    votes = ballots()
    clear = PrivateVote(RULE, classes=4, noise=SeededNoise(1)).ask(votes)
    hidden = PrivateVote(RULE, classes=4, noise=SeededNoise(1), channel=channel).ask(votes)
    assert torch.equal(clear[1].counts, hidden[1].counts)
    assert torch.equal(clear[0].labels, hidden[0].labels)
    assert (clear[1].counts.sum(dim=1) == 9).all()


def test_who_reads_a_ballot_is_what_the_channel_says():
    assert "server" in PrivateVote(RULE, classes=4).guarantee.read_by()
    said = PrivateVote(RULE, classes=4, channel=SecAgg()).guarantee
    assert not any(who.parties == {"server"} and who.some is None for who in said.reads)
    assert "how many teachers voted" in " ".join(said.leaks)
    assert "adds the noise" in " ".join(said.assumes)
    assert "Single ballots" in said.describe()


def test_one_clients_ballots_move_the_opened_counts_by_what_is_charged_for():
    """Over masks too: two neighbouring worlds, one client with other votes in every query."""
    votes = ballots()
    other = {**votes, 3: (votes[3] + 1) % 4}
    for channel in (Plain(), SecAgg()):
        tallies = [PrivateVote(RULE, classes=4, channel=channel).ask(v)[1] for v in (votes, other)]
        moved = (tallies[0].counts - tallies[1].counts).double().norm(dim=1)
        assert torch.allclose(moved, torch.full((6,), 2.0**0.5, dtype=torch.float64))


def test_a_row_that_is_no_ballot_is_refused_by_name_where_rows_are_read():
    good = torch.tensor([0.0, 1.0, 1.0, 0.0])
    rows = torch.stack([good, 2 * good, torch.tensor([1.0, 1.0, 0.0, 0.0])])
    summed, kept, refused = counted(Rows.of(rows), (0, 1, 2), queries=2)
    assert torch.equal(summed, good)
    assert kept == (0,)
    assert refused.keys() == {"client/1", "client/2"}


def test_a_vote_is_charged_on_disk_before_it_is_held_for_the_most_that_it_answers(tmp_path):
    file = tmp_path / "ledger.jsonl"
    vote = PrivateVote(RULE, classes=4, channel=SecAgg(), ledger_file=file)
    with pytest.raises(ConfigError):
        vote.ask({0: torch.tensor([1, 2, 3, 0])})  # one client cannot hide
    [entry] = [json.loads(line) for line in file.read_text().splitlines()]
    assert [charge["count"] for charge in entry["charges"]] == [4, 3]
    before = sum(charge.count for charge in vote.ledger.charges)
    answers, _ = PrivateVote(RULE, classes=4, ledger_file=file).ask(ballots())
    assert answers.spent.releases == before + 6 + 3


def test_the_claim_is_the_same_whatever_the_votes_were():
    unsure = {c: torch.tensor([c % 4] * 6) for c in range(9)}
    claims = {
        PrivateVote(RULE, classes=4, delta=0.01).ask(votes)[0].spent.epsilon
        for votes in (ballots(), unsure)
    }
    assert len(claims) == 1


def test_what_these_very_votes_cost_is_marked_private_and_not_among_the_answers():
    answers, tally = PrivateVote(RULE, classes=4, delta=0.01).ask(ballots())
    assert str(tally.data_dependent).startswith("PRIVATE")
    assert "counts" not in repr(tally)
    assert set(type(answers).__slots__) == {"labels", "spent"}


def test_noise_of_a_seed_voids_the_claim():
    answers, _ = PrivateVote(RULE, classes=4, noise=SeededNoise(1)).ask(ballots())
    assert answers.spent.epsilon is None
    assert "seed" in answers.spent.refused


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        (SecAgg(noise=DistributedSkellam(1.0)), "noise in shares"),
        (BucketedSecAgg(), "count votes"),
    ],
)
def test_a_channel_that_opens_no_counts_is_refused(channel, words):
    with pytest.raises(ConfigError, match=words):
        PrivateVote(RULE, classes=4, channel=channel)


def test_counts_that_are_not_whole_are_refused():
    with pytest.raises(RoundFailed, match="whole number"):
        PrivateVote(RULE, classes=4, channel=SecAgg(bits=4)).ask(ballots(q=7))


@pytest.mark.parametrize(
    "votes",
    [
        {},
        {0: torch.tensor([1, 2]), 1: torch.tensor([1])},
        {0: torch.tensor([0.5])},
        {0: torch.tensor([True, False])},
        {0: torch.tensor([[1], [2]])},
        {0: torch.tensor([255], dtype=torch.uint8)},
    ],
)
def test_votes_that_fit_no_ballot_are_refused(votes, unchecked):
    with pytest.raises(BadUpdate):
        PrivateVote(RULE, classes=4).ask(votes)


@pytest.mark.parametrize("settings", [{"classes": 1}, {"relation": "add_remove"}, {"delta": 0.0}])
def test_a_vote_that_could_claim_nothing_is_refused_before_it_is_held(settings):
    with pytest.raises(ConfigError):
        PrivateVote(RULE, **{"classes": 4, **settings})


def test_a_client_may_vote_for_nothing():
    votes = {c: torch.tensor([UNANSWERED, 1]) for c in range(4)}
    _, tally = PrivateVote(RULE, classes=3, relation="zero_out").ask(votes)
    assert tally.counts.tolist() == [[0, 0, 0], [0, 4, 0]]


@pytest.mark.parametrize("label", [4, -2, 1_000])
def test_a_vote_for_no_class_counts_for_nothing_and_stops_nobody_elses(label):
    """Under replace_one a client may be replaced by one that votes so: that its answers never came
    would tell the two worlds apart at once.
    """
    votes = {**ballots(), 2: torch.tensor([0, label, 0, 0, 0, 0])}
    vote = PrivateVote(RULE, classes=4, channel=SecAgg(), delta=0.01)
    with pytest.warns(PrivacyWarning, match="client 2: a vote is for no class"):
        _, tally = vote.ask(votes)
    assert tally.counts.sum(dim=1).tolist() == [9, 8, 9, 9, 9, 9]


def test_what_these_votes_cost_is_labelled_private_however_it_is_shown_and_is_no_claim():
    """Of noise that a seed repeats nothing may be published, and of a second vote both count."""
    _, seeded = PrivateVote(RULE, classes=4, delta=0.01, noise=SeededNoise(1)).ask(ballots())
    vote = PrivateVote(RULE, classes=4, delta=0.01)
    vote.ask(ballots())
    answers, tally = vote.ask(ballots())
    assert tally.data_dependent.independent < answers.spent.claim()
    for seen in (tally.data_dependent, seeded.data_dependent):
        for shown in (str(seen), repr(seen), f"{seen}"):
            assert shown.startswith("PRIVATE")
            assert "publish what the ledger says" in shown
    assert "PRIVATE" in repr(tally)


def test_a_ledger_that_charges_others_too_is_refused_before_anybody_votes(tmp_path):
    file = tmp_path / "ledger.jsonl"
    steps = RULE.steps(1, 9, Neighbours("client", "replace_one"))
    Journal(file).enter(stepped(0, steps, Neighbours("sample", "zero_out"), "sample of client 0"))
    with pytest.raises(ConfigError, match="also charges sample of client 0"):
        PrivateVote(RULE, classes=4, delta=0.01, ledger_file=file).ask(ballots())


def test_teachers_know_their_own_data_alone():
    """Another client's data changes no other teacher."""
    data = [Dataset(torch.randn(20, 3), torch.arange(20) % 2, classes=2) for _ in range(4)]
    changed = [data[0], Dataset(-data[1].x, data[1].y, 2), *data[2:]]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    for executor in ("sequential", "stacked"):
        a, b = (
            trained_alone(net, each, LocalSGD(lr=0.5), seed=1, executor=executor)
            for each in (data, changed)
        )
        same = (a - b).abs().amax(dim=1) < 1e-6
        assert same.tolist() == [True, False, True, True]


def test_a_student_learns_digits_from_the_votes_of_eighty_clients():
    split, chance = load("digits"), torch.Generator().manual_seed(0)
    clients = [split.train.take(i) for i in IID()(split.train, 80, chance)]
    net = initialised(softmax, split.shape, split.classes, seed=0)
    teachers = trained_alone(
        net, clients, LocalSGD(lr=0.5, plan=LocalPlan(16, epochs=30)), executor="stacked"
    )
    public, test = split.test.take(range(200)), split.test.take(range(200, split.test.n))
    vote = PrivateVote(
        ConfidentGNMax(deviation=5.0, threshold=40.0, check=10.0, most_answers=100),
        classes=10,
        channel=SecAgg(),
        delta=1e-3,
    )
    votes = votes_of(net, teachers, public.x)
    answers, tally = vote.ask(dict(enumerate(votes)))
    kept = answers.answered
    assert 60 < len(kept) <= 100
    labelled = Dataset(public.x[kept], answers.labels[kept], 10)
    [student] = trained_alone(
        net, [labelled], LocalSGD(lr=0.5, plan=LocalPlan(16, epochs=60)), executor="sequential"
    )
    with torch.no_grad():
        nn.utils.vector_to_parameters(student, net.parameters())
    assert evaluate(net, test).accuracy > 0.8
    assert tally.data_dependent.epsilon < 0.6 * answers.spent.claim()
