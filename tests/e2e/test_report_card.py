"""A page's first screen says no less than the run's records; figures carry their numbers."""

import csv
import html
import io
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from privfl import Federation, catalog
from privfl.core import DOES, FOLLOWS, POWERS
from privfl.engine import RoundRecord
from privfl.report import guarantees, read_records, write_report
from privfl.report.card import card

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
