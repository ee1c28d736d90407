"""A page's first screen says no less than the run's records; figures carry their numbers."""

import csv
import html
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from privfl import Federation, catalog
from privfl.core import DOES, FOLLOWS, POWERS, Faults
from privfl.dp import above
from privfl.engine import RoundRecord
from privfl.hybrid import TwoServer
from privfl.report import guarantees, read_records, write_report
from privfl.report.card import card
from privfl.training import evaluate

RECORD = RoundRecord(0, 20, 20, 0.5, 1.0, (0.5,), 80_000, {"train": 1.0, "channel": 3.0})


def answers(page):
    """The card's answers by what is asked."""
    found = re.findall(r"<div><dt>(.*?)</dt><dd(?: class=\"(\w+)\")?>(.*?)</dd></div>", page)
    return {html.unescape(asks): (html.unescape(says), mark) for asks, mark, says in found}


def summary(guarantee, **more):
    said = {"facts": {"the server reads": guarantee.server_reads()}, "privacy": []}
    return {**said, "parameters": 100, "guarantees": {"channel": guarantee.record(20)}, **more}


@pytest.mark.parametrize("name", sorted(catalog.CHANNELS))
def test_a_card_says_the_worst_of_what_the_record_says(name):
    guarantee = guarantees.default_guarantee(name)
    shown = answers(card([RECORD], summary(guarantee)))
    for asks, parties in (
        ("One lying server or helper", lambda who: who != "a client"),
        ("One lying client", lambda who: who == "a client"),
    ):
        powers = [power for who, power in guarantee.liars().items() if parties(who)]
        worst = max(powers, key=POWERS.index)
        if worst != "nothing":
            assert shown[asks][0].startswith(DOES[worst]), asks
        assert (shown[asks][1] == "bad") == (worst in ("shift", "read"))
        assert (shown[asks][1] == "good") <= (worst == "nothing")
    readers = [line for line in guarantee.record(20)["who can do what"] if line["does"] == FOLLOWS]
    told = shown.get("Single updates are read by", ("", "bad"))
    assert all(line["who"] in told[0] for line in readers) or shown["The server reads"][1] == "bad"


def test_a_card_never_says_private_where_nothing_is_claimed():
    shown = answers(card([RECORD], summary(guarantees.default_guarantee("secagg"))))
    assert shown["Differential privacy"][1] == "bad"
    assert shown["Robustness"][0].startswith("nobody lied")
    assert shown["Cost"][0] == (
        "10 times the bytes of plain updates (4 a value); the channel takes 75% of 4 s a round"
    )


def test_a_card_of_a_run_that_has_not_ended_claims_nothing():
    shown = answers(card([RECORD], {}))
    assert "has not ended" in shown["Who reads what"][0]
    assert "Differential privacy" not in shown


def test_what_was_not_measured_costs_nothing_that_a_card_could_say():
    ideal = replace(RECORD, bytes_sent=None, seconds={"train": 1.0})
    assert "Cost" not in answers(card([ideal], summary(guarantees.default_guarantee("secagg"))))


def test_a_lying_client_whom_nothing_bounds_is_not_called_harmless():
    said = summary(guarantees.default_guarantee("plain"))
    bounded, bare = ({**said["facts"], "bound": bound} for bound in ("L2 at most 1", "none"))
    assert answers(card([RECORD], {**said, "facts": bounded}))["One lying client"][1] == "good"
    assert answers(card([RECORD], {**said, "facts": bare}))["One lying client"][1] == "bad"


def test_a_server_that_attacks_its_clients_is_on_the_card():
    config = {
        "data": {"name": "digits", "clients": 4, "partition": "iid"},
        "model": {"name": "mlp", "hidden": [8]},
        "rounds": 1,
        "executor": "sequential",
    }
    acted = replace(RECORD, fired={"attack imprint": "acted through 1 of 20 clients"})
    shown = answers(card([acted], summary(guarantees.default_guarantee("plain"))))
    assert "Robustness" not in shown
    assert "imprint" in shown["Attacked"][0]
    idle = replace(RECORD, fired={"attack imprint": "stood idle: nobody was drawn"})
    assert "Attacked" not in answers(card([idle], summary(guarantees.default_guarantee("plain"))))
    lying = Faults(byzantine={"client/2": lambda honest: honest})
    run = Federation.from_config(config).run(faults=lying)
    assert run.history[0].liars == (2,), "who is replaced by code of its own has lied"


def test_what_whoever_carries_unsigned_mail_can_do_is_on_the_card():
    guarantee = TwoServer(security="malicious").guarantee
    told = "Whoever carries the mail"
    assert answers(card([RECORD], summary(guarantee)))[told][1] == "bad"
    assert told not in answers(card([RECORD], summary(guarantee.signed())))


def test_a_round_that_used_no_update_taught_nothing():
    nobody = replace(RECORD, survivors=0)
    shown = answers(card([nobody], summary(guarantees.default_guarantee("plain"))))
    assert shown["Learned from clients"][1] == "bad"


DRAWN = {
    "data": {"name": "digits", "clients": 6, "partition": "iid"},
    "bound": {"name": "clip", "l2": 1.0},
    "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
    "sampler": {"name": "poisson", "rate": 0.5},
    "start": "public",
    "rounds": 4,
    "executor": "sequential",
}


SHARED = {
    **DRAWN,
    "data": {"name": "digits", "clients": 20, "partition": "iid"},
    "channel": "secagg",
    "mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0},
    "sampler": "all",
    "rounds": 1,
}


def test_what_comes_of_a_client_that_leaves_its_share_of_the_noise_out_is_on_the_card():
    run = Federation.from_config(SHARED).run()
    shown = answers(card(run.history, run.summary))
    told = shown["Noise in shares"][0]
    assert "a client leaves its share of the noise out" in told
    assert "as many HONEST survivors as the quorum" in told
    plain = Federation.from_config({**SHARED, "mechanism": "none"}).run()
    assert "Noise in shares" not in answers(card(plain.history, plain.summary))


def test_the_card_of_a_run_for_users_names_the_user_as_what_is_protected(tmp_path):
    rows = "".join(f"{i % 4},{i % 10},{i % 8},{i % 2}\n" for i in range(80))
    (tmp_path / "t.csv").write_text(f"site,who,x,sick\n{rows}")
    data = {"name": "csv", "path": str(tmp_path / "t.csv"), "target": "sick"}
    data |= {"client_column": "site", "classes": [0, 1], "bounds": {"x": [0, 8], "who": [0, 10]}}
    config = {**DRAWN, "data": data, "sampler": "all", "rounds": 1}
    config |= {
        "users": {"ids": "site", "one_user_per_client": True},
        "unit": "user",
        "audit": {"delta": 0.01},
    }
    run = Federation.from_config(config).run()
    shown = answers(card(run.history, run.summary))
    line = run.summary["privacy"][0]
    says = shown["Privacy of one user"][0]
    assert says.startswith(f"epsilon {above(line['epsilon'])} at delta 0.01, neighbours by")
    assert line["relation"] in says
    assert "Privacy of one client" not in shown


def test_the_card_of_a_resumed_run_states_the_longer_ledger(tmp_path):
    config = {**DRAWN, "rounds": 2}
    whole = Federation.from_config(config).run()
    killed = Federation.from_config(config)

    def stop(record, rounds):
        if record.round == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.run(tmp_path / "run", progress=stop)
    older = sorted((tmp_path / "run" / "checkpoint").iterdir())
    shutil.rmtree(older[-1]) if older[-1].is_dir() else older[-1].unlink()
    run = Federation.from_config(config).run(tmp_path / "run", resume=True)
    said, before = run.summary["privacy"][0], whole.summary["privacy"][0]
    assert said["epsilon"] > before["epsilon"], "a round that is played again is charged again"
    assert (
        f"epsilon {above(said['epsilon'])} "
        in answers(card(run.history, run.summary))["Privacy of one client"][0]
    )


def test_what_a_test_finds_is_said_of_those_of_whom_it_holds_and_the_noise_can_be_left_out():
    run = Federation.from_config({**DRAWN, "rounds": 1}).run()
    shown = answers(card(run.history, run.summary))
    says = shown["Privacy of one client"][0]
    assert says.index("test of membership") < says.index("Against who knows the seed")
    assert "server adds no noise" in shown["No epsilon holds, if"][0]


def test_a_run_that_a_budget_ends_tells_the_accuracy_of_its_last_model(tmp_path):
    budget = {"epsilon": 12.0, "ledger": str(tmp_path / "spent.jsonl")}
    config = {**DRAWN, "rounds": 30, "budget": budget, "audit": {"evaluate_every": 20}}
    federation = Federation.from_config(config)
    run = federation.run()
    assert 1 < len(run.history) < 20
    module, test = federation.scenario.workload.model.module, federation.scenario.test
    assert run.accuracy == evaluate(module, test).accuracy


def test_the_page_of_an_unfinished_run_calls_validation_accuracy_by_its_name(tmp_path):
    def killed(record, rounds):
        raise KeyboardInterrupt

    config = {"data": {"name": "digits", "clients": 4, "validation": 0.2}, "rounds": 2}
    with pytest.raises(KeyboardInterrupt):
        Federation.from_config({**config, "executor": "sequential"}).run(tmp_path, progress=killed)
    page = write_report(tmp_path).read_text()
    assert "validation accuracy</span>" in page
    assert "test accuracy</span>" not in page


class Balanced(HTMLParser):
    """Whether every element is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "attacked"
    config = {
        "data": {"name": "digits", "clients": 8},
        "training": {"name": "sgd", "lr": 0.3},
        "bound": {"name": "clip", "l2": 1.0},
        "aggregator": {"name": "flame"},
        "attacks": [{"name": "sign_flip", "clients": [0, 1]}],
        "rounds": 2,
        "executor": "sequential",
    }
    Federation.from_config(config).run(folder)
    return folder, write_report(folder).read_text()


def test_a_page_is_whole_and_its_figures_are_vectors_that_share_no_id(attacked):
    _, page = attacked
    parser = Balanced()
    parser.feed(page.removeprefix("<!doctype html>"))
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert page.count("<svg ") == page.count("<figure>")
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)


def test_every_figure_has_its_numbers_in_the_page_and_beside_it(attacked):
    folder, page = attacked
    links = re.findall(r'download="(\w+\.csv)" href="data:text/csv;charset=utf-8,([^"]*)"', page)
    assert len(links) == page.count("<figure>")
    for name, data in links:
        assert unquote(data) == (folder / name).read_text()
        assert (folder / name).with_suffix(".svg").exists()
    records, _ = read_records(folder)
    rows = list(csv.DictReader(io.StringIO((folder / "learning.csv").read_text())))
    assert [float(row["accuracy"]) for row in rows] == [record.accuracy for record in records]
    judged = list(csv.DictReader(io.StringIO((folder / "detection.csv").read_text())))
    assert {row["client"] for row in judged if row["lied"] == "1"} == {"0", "1"}


def test_the_card_of_an_attacked_run_says_whom_its_defence_dropped(attacked):
    _, page = attacked
    shown = answers(page)
    assert shown["Attacked through"][0] == "2 clients"
    (defence,) = [says for asks, (says, _) in shown.items() if asks.startswith("Defence")]
    assert "of the liars' rows" in defence
