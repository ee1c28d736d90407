"""A round is charged before its first message, and what was sent is never taken back: not by kills,
retries, resumed runs, or older copies of a ledger.
"""

import json
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from privfl import Federation, PrivateAggregation
from privfl.aggregators import Krum, Mean
from privfl.core import (
    Charge,
    ConfigError,
    DataCorrupt,
    Dataset,
    DpEvent,
    Faults,
    Ledger,
    LocalPlan,
    Rows,
    Rule,
    Sampling,
    TooManyByzantine,
)
from privfl.crypto import SecAgg
from privfl.dp import (
    Clip,
    DistributedSkellam,
    DPGradient,
    Gaussian,
    LocalGaussian,
    epsilon,
    spend,
)
from privfl.dp.charges import played_again
from privfl.engine import Poisson, RunFolder, read_ledger
from privfl.engine.journal import Journal
from privfl.training import LocalSGD

ONE = Charge(
    0, DpEvent("gaussian", {"noise_multiplier": 1.0}), Sampling("all", 1.0, 3), "client", "zero_out"
)
TWO = replace(ONE, round=1)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Dies(Rule[Rows]):
    """The unweighted mean, until the process is killed in the call of this number (0: never). The
    number is no field: it is the same rule whether it is killed or not.
    """

    at: InitVar[int] = 0
    reads: ClassVar = "rows"

    def __post_init__(self, at):
        self.at, self.calls = at, []

    def __call__(self, opened):
        self.calls.append(opened.n)
        if len(self.calls) == self.at:
            raise Killed
        return opened.values.mean(dim=0)

    def sensitivity(self, moves, neighbours):
        return Mean(weighted=False).sensitivity(moves, neighbours)


def data(seed):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.randn(12, 4, generator=rng), torch.arange(12) % 2, classes=2)


def federation(**parts: Any) -> Federation:
    parts = {
        "training": LocalSGD(plan=LocalPlan(4, steps=1), weighting="uniform"),
        "bound": Clip(1.0),
        "aggregator": Mean(weighted=False),
        "rounds": 3,
        "executor": "sequential",
        **parts,
    }
    return Federation(nn.Linear(4, 2), [data(i) for i in range(5)], data(9), **parts)


def rounds_of(ledger):
    return [charge.round for charge in ledger.charges]


# ---- the journal alone


def test_a_journal_is_read_again_as_it_was_written_and_settled(tmp_path):
    journal = Journal(tmp_path / "ledger.jsonl")
    first = journal.enter((ONE, ONE))
    journal.enter((TWO,))
    journal.settle(first, (ONE,))
    assert journal.ledger() == Ledger((ONE, TWO))
    assert Journal(journal.path).ledger() == journal.ledger()
    journal.settle(first, (ONE,))
    assert len(journal.path.read_text().splitlines()) == 3, "nothing new, nothing written"


def test_a_run_without_noise_writes_no_ledger(tmp_path):
    journal = Journal(tmp_path / "ledger.jsonl")
    journal.settle(journal.enter(()), ())
    assert not journal.path.exists()
    federation().run(tmp_path / "run")
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


def test_a_line_that_was_not_written_to_its_end_is_dropped_and_other_damage_is_named(tmp_path):
    journal = Journal(tmp_path / "ledger.jsonl")
    journal.enter((ONE,))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[:40])
    again = Journal(journal.path)
    assert again.ledger() == Ledger((ONE,))
    assert journal.path.read_bytes() == whole + whole[:40], "to read it changes nothing"
    again.enter((TWO,))
    assert Journal(journal.path).ledger() == Ledger((ONE, TWO))
    journal.path.write_bytes(b"{}\n" + whole)
    with pytest.raises(DataCorrupt, match="no entry"):
        Journal(journal.path)


def test_two_that_write_to_one_file_see_what_the_other_spent(tmp_path):
    one, other = Journal(tmp_path / "ledger.jsonl"), Journal(tmp_path / "ledger.jsonl")
    one.enter((ONE,))
    other.enter((TWO,))
    one.enter((ONE,))
    assert one.ledger() == Ledger((ONE, TWO, ONE))


def test_an_older_copy_that_takes_the_ledgers_place_is_refused(tmp_path):
    journal = Journal(tmp_path / "ledger.jsonl")
    journal.enter((ONE,))
    old = journal.path.read_bytes()
    journal.enter((TWO,))
    journal.path.write_bytes(old)
    with pytest.raises(ConfigError, match="older copy"):
        journal.enter((ONE,))


def other_ledger(path, rounds=3):
    """Another run's ledger, with this run's charges and more."""
    other = Journal(path)
    for number in range(rounds):
        other.enter((replace(ONE, round=number),))
    return path.read_bytes()


@pytest.mark.parametrize("reread", [True, False], ids=["by a new process", "under a run"])
def test_another_runs_longer_ledger_is_refused(tmp_path, reread):
    journal = Journal(tmp_path / "ledger.jsonl")
    journal.enter((ONE,))
    journal.path.write_bytes(other_ledger(tmp_path / "other.jsonl"))
    with pytest.raises(ConfigError, match="another run's"):
        (Journal(journal.path) if reread else journal).enter((TWO,))


def test_a_ledger_of_the_same_length_is_refused_too_and_so_is_none(tmp_path):
    journal = Journal(tmp_path / "ledger.jsonl")
    journal.enter((ONE,))
    foreign = other_ledger(tmp_path / "other.jsonl", rounds=1)
    assert len(foreign) == len(journal.path.read_bytes())
    journal.path.write_bytes(foreign)
    with pytest.raises(ConfigError, match="another run's"):
        journal.enter((TWO,))
    journal.path.unlink()
    with pytest.raises(ConfigError, match="another run's"):
        Journal(journal.path)


def test_lines_of_two_ledgers_in_one_file_and_lines_taken_out_are_refused(tmp_path):
    journal = Journal(tmp_path / "ledger.jsonl")
    for charge in (ONE, TWO, ONE):
        journal.enter((charge,))
    own = journal.path.read_bytes()
    first, second, third = own.splitlines(keepends=True)
    foreign = other_ledger(tmp_path / "other.jsonl").splitlines(keepends=True)
    changed = own.replace(b'"noise_multiplier": 1.0', b'"noise_multiplier": 9.0', 1)
    for spoilt in (own + foreign[0], first + third, second + third, changed):
        journal.path.write_bytes(spoilt)
        with pytest.raises(DataCorrupt, match="does not follow"):
            Journal(journal.path)


def test_a_ledger_of_before_lines_had_hashes_is_refused_in_words(tmp_path):
    line = json.dumps({"entry": "aa", "charges": [ONE.to_json()]}) + "\n"
    (tmp_path / "ledger.jsonl").write_text(line)
    with pytest.raises(DataCorrupt, match="earlier versions"):
        Journal(tmp_path / "ledger.jsonl")


def test_a_run_is_not_resumed_with_another_runs_longer_ledger(tmp_path):
    federation(mechanism=Gaussian(1.0)).run(tmp_path / "longer")
    with pytest.raises(Killed):
        federation(mechanism=Gaussian(1.0), aggregator=Dies(2)).run(tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    ledger.write_bytes((tmp_path / "longer" / "ledger.jsonl").read_bytes())
    with pytest.raises(ConfigError, match="another run's"):
        federation(mechanism=Gaussian(1.0), aggregator=Dies()).run(tmp_path / "run", resume=True)


def test_no_round_begins_where_the_ledger_cannot_be_written(tmp_path):
    journal = Journal(tmp_path / "nowhere" / "ledger.jsonl")
    with pytest.raises(ConfigError, match="no round may begin"):
        journal.enter((ONE,))
    assert not journal.ledger().charges


# ---- runs


@pytest.mark.parametrize("mechanism", [Gaussian(1.0), LocalGaussian(1.0)])
@pytest.mark.parametrize("at", [1, 2])
def test_a_killed_round_is_charged_and_charged_again_when_it_is_played_again(
    tmp_path, mechanism, at
):
    with pytest.raises(Killed):
        federation(mechanism=mechanism, aggregator=Dies(at)).run(tmp_path / "run")
    assert rounds_of(read_ledger(tmp_path / "run")) == list(range(at))
    resumed = federation(mechanism=mechanism, aggregator=Dies()).run(tmp_path / "run", resume=True)
    assert rounds_of(resumed.ledger) == sorted([*range(3), at - 1])
    assert read_ledger(tmp_path / "run") == resumed.ledger
    assert RunFolder(tmp_path / "run").journal.ledger() == resumed.ledger


def test_a_killed_round_of_private_training_charges_the_samples_too(tmp_path):
    private = LocalSGD(
        plan=LocalPlan(4, steps=2), weighting="uniform", gradient=DPGradient(1.0, 1.0, batch_size=4)
    )
    with pytest.raises(Killed):
        federation(training=private, aggregator=Dies(1)).run(tmp_path / "run")
    charges = read_ledger(tmp_path / "run").charges
    assert {(charge.unit, charge.count) for charge in charges} == {("sample", 2)}
    assert len({charge.subject for charge in charges}) == 5


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


@pytest.mark.parametrize("kills", [1, 2])
def test_a_round_that_is_played_again_draws_no_second_sample_and_is_not_charged_for_one(
    tmp_path, kills
):
    rule = {"aggregator": Mean(weighted=False, denominator=2.0), "sampler": Poisson(0.8)}
    faults = Faults(byzantine={f"client/{i}": Dying for i in range(5)})
    Dying.kills[0] = kills
    for _ in range(kills):
        fed = federation(mechanism=Gaussian(1.0), rounds=1, **rule)
        with pytest.raises(Killed):
            fed.run(tmp_path / "run", resume=(tmp_path / "run").exists(), faults=faults)
    run = federation(mechanism=Gaussian(1.0), rounds=1, **rule).run(
        tmp_path / "run", resume=True, faults=faults
    )
    [spent] = spend(run.ledger, 1e-5)
    once = epsilon(noise_multiplier=(kills + 1) ** -0.5, sample_rate=0.8, steps=1, delta=1e-5)
    assert spent.rdp == pytest.approx(once, rel=1e-6)
    assert read_ledger(tmp_path / "run") == run.ledger


def test_batches_that_are_drawn_again_are_not_charged_as_others(tmp_path):
    private = LocalSGD(
        plan=LocalPlan(4, steps=2), weighting="uniform", gradient=DPGradient(1.0, 1.0, batch_size=4)
    )
    with pytest.raises(Killed):
        federation(training=private, aggregator=Dies(1), rounds=1).run(tmp_path / "run")
    run = federation(training=private, aggregator=Dies(), rounds=1).run(
        tmp_path / "run", resume=True
    )
    once = epsilon(noise_multiplier=2**-0.5, sample_rate=1 / 3, steps=2, delta=1e-5)
    for spent in spend(run.ledger, 1e-5):
        assert spent.rdp == pytest.approx(once, rel=1e-6)


def test_noise_of_which_no_joint_cost_is_known_is_not_amplified_where_a_round_is_played_again():
    drawn = Sampling("poisson", 0.1, 100)
    laplace = Charge(0, DpEvent("laplace", {"scale": 1.0}), drawn, "client", "add_remove")
    twice = played_again((laplace,), (laplace,))
    thrice = played_again(twice, (laplace,))
    assert [one.cohort_hidden for one in thrice] == [False] * 3
    other = replace(laplace, round=1)
    assert played_again((laplace,), (other,)) == (laplace, other)


def test_an_older_ledger_beside_a_newer_checkpoint_is_refused(tmp_path):
    copies = []

    def copied(record, rounds):
        copies.append((tmp_path / "run" / "ledger.jsonl").read_bytes())
        if len(copies) == 2:
            raise Killed

    with pytest.raises(Killed):
        federation(mechanism=Gaussian(1.0)).run(tmp_path / "run", progress=copied)
    (tmp_path / "run" / "ledger.jsonl").write_bytes(copies[0])
    with pytest.raises(ConfigError, match="older copy"):
        federation(mechanism=Gaussian(1.0)).run(tmp_path / "run", resume=True)
    (tmp_path / "run" / "ledger.jsonl").write_bytes(copies[1])
    run = federation(mechanism=Gaussian(1.0)).run(tmp_path / "run", resume=True)
    assert rounds_of(run.ledger) == [0, 1, 2]


@dataclass
class Looks:
    """A party that looks whether the round is charged on disk when it is first called."""

    honest: Any
    path: Any
    seen: list

    def step(self, mail):
        there = self.path.read_text().splitlines() if self.path.exists() else []
        self.seen.append(len(there))
        return self.honest.step(mail)


@pytest.mark.parametrize(
    "noise",
    [
        {"mechanism": Gaussian(1.0)},
        {"mechanism": LocalGaussian(1.0)},
        {"channel": SecAgg(noise=DistributedSkellam(1.0), bits=20), "aggregator": Mean()},
    ],
    ids=["central", "local", "shares"],
)
def test_the_charge_is_on_disk_before_the_first_message(tmp_path, noise):
    path, seen = tmp_path / "run" / "ledger.jsonl", []
    faults = Faults(byzantine={"client/0": lambda honest: Looks(honest, path, seen)})
    run = federation(rounds=2, **noise).run(path.parent, faults=faults)
    assert seen[0] == 1
    assert max(seen) > 1, "and before that of the second round"
    assert rounds_of(run.ledger) == [0, 1]


def test_a_round_in_shares_is_entered_for_the_fewest_survivors_and_settled_with_those_who_came(
    tmp_path,
):
    channel = SecAgg(noise=DistributedSkellam(1.0), bits=20)
    run = federation(channel=channel, aggregator=Mean(), rounds=1).run(tmp_path / "run")
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    entered, settled = (
        json.loads(line)["charges"][0]["event"]["parameters"]["variance"] for line in lines
    )
    assert entered < settled
    assert run.ledger.charges[0].event.parameters["variance"] == settled


# ---- the layer


def layer(**parts: Any) -> PrivateAggregation[Any]:
    return PrivateAggregation(bound=Clip(1.0), **{"mechanism": Gaussian(1.0), **parts})


UPDATES = {i: torch.ones(3) for i in range(4)}


def test_the_layer_goes_on_from_its_file_and_a_retry_is_charged_again(tmp_path):
    path = tmp_path / "ledger.jsonl"
    dying = layer(rule=Dies(2), ledger_file=path)
    dying.aggregate(UPDATES)
    with pytest.raises(Killed):
        dying.aggregate(UPDATES)
    assert rounds_of(dying.ledger) == [0, 1]
    again = layer(ledger_file=str(path))
    assert again.ledger == dying.ledger
    _, receipt = again.aggregate(UPDATES)
    assert len(again.ledger.charges) == 3
    _, fresh = layer().aggregate(UPDATES)
    assert receipt.epsilon > fresh.epsilon


def test_what_the_layer_opened_and_a_rule_then_refused_is_charged():
    refusing = layer(rule=Krum(1), mechanism=LocalGaussian(1.0))
    with pytest.raises(TooManyByzantine):
        refusing.aggregate(UPDATES)
    assert rounds_of(refusing.ledger) == [0]


def test_nobody_can_put_an_old_ledger_in_the_layers_place():
    one = layer()
    one.aggregate(UPDATES)
    with pytest.raises(AttributeError):
        one.ledger = Ledger()
