"""The page of an audit: the worst leak, its evidence and the remedy come first, then six lines a
layer, then details in which equal eyes share a row.
"""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from privfl import Federation
from privfl.attacks import LabelCounts, LinearLeakage, LossThreshold
from privfl.audit import Attacks, Line, audit, card, write_page
from privfl.audit.card import worst
from privfl.audit.lying import LieFinding
from privfl.audit.page.top import headline
from privfl.audit.score import Figure
from privfl.version import __version__

BASE = {
    "data": {"name": "digits", "clients": 4, "partition": "iid"},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"name": "sgd", "lr": 0.1, "batch_size": 16, "steps": 2},
    "rounds": 1,
    "executor": "stacked",
}
SUMMED = {
    "bound": {"name": "clip", "l2": 1.0},
    "channel": {"name": "secagg", "fidelity": "ideal"},
}
WHO = ["outsider", "server", "colluders(server, client/0)", "key_holder"]


class Tags(HTMLParser):
    """Tags in order, each with its attributes and the text that follows it."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), ""))

    def handle_data(self, data):
        if self.tags:
            tag, attrs, text = self.tags[-1]
            self.tags[-1] = (tag, attrs, text + data)

    def all(self, tag, **wanted):
        return [
            one
            for one in self.tags
            if one[0] == tag and all(one[1].get(key) == value for key, value in wanted.items())
        ]

    def at(self, tag, **wanted):
        return self.tags.index(self.all(tag, **wanted)[0])


@pytest.fixture(scope="module")
def report():
    layers = {
        "<none>": Federation.from_config(BASE),
        "secagg": Federation.from_config({**BASE, **SUMMED}),
    }
    few = Attacks(
        probe=(LabelCounts(), LinearLeakage(), LinearLeakage(target="sum")),
        stream=(LossThreshold(),),
    )
    return audit(layers, adversaries=WHO, attacks=few, lies=1, held_out=0.9)


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return write_page(report, tmp_path_factory.mktemp("page")).read_text()


def test_the_head_says_of_what_the_page_is(report, page, tmp_path):
    head = page[: page.index("</section>")]
    for words in ("of 4 clients", "to test with", "seed: 0", "layers: &lt;none&gt;, secagg"):
        assert words in head
    assert f"privfl {__version__}" in head
    named = replace(report, about={"config": "a<b>.yaml", **report.about})
    again = write_page(named, tmp_path).read_text()
    assert "<title>audit of a&lt;b&gt;.yaml · privfl</title>" in again
    assert again.index("<b>a&lt;b&gt;.yaml</b>") < again.index("</section>")


def test_text_that_is_read_is_worse_than_who_was_a_member():
    told = {
        asset: Line("l", asset, "leaks", figures={name: Figure(0.9, low, 1.0)}, blind={name: 0.0})
        for asset, name, low in (("membership", "auc", 0.85), ("text", "right", 0.6))
    }
    assert worst(list(told.values())) is told["text"]
    assert worst([told["membership"]]) is told["membership"]


def test_the_worst_leak_its_evidence_and_the_remedy_stand_before_everything_else(report, page):
    tags = Tags(page)
    top = worst(card(report))
    assert (top.layer, top.asset) == ("<none>", "samples")
    first = page[: page.index("</section>")]
    for words in ("Worst leak: samples", "&lt;none&gt;", "Evidence:", "LinearLeakage", "secagg"):
        assert words in first
    assert "Yes, by outsider, and as much by server, colluders(server, client/0)." in first
    assert first.count("data:image/png;base64,") == 1
    assert tags.at("section", **{"class": "worst"}) < tags.at("section", **{"class": "card"})
    assert tags.at("section", **{"class": "card"}) < tags.at("details")


def test_every_layer_has_one_line_for_each_asset_and_says_its_verdict_in_the_words_agreed(page):
    tags = Tags(page)
    assert len(tags.all("section", **{"class": "card"})) == 2
    lines = [attrs for tag, attrs, _ in tags.tags if tag == "div" and "data-asset" in attrs]
    assets = ["samples", "membership", "properties", "labels", "text", "presence"]
    assets.append("representatives")
    assert [line["data-asset"] for line in lines] == assets * 2
    allowed = {"leaks", "not found", "not applicable", "not asked"}
    assert {line["data-verdict"] for line in lines} <= allowed
    assert page.count("with this effort") >= sum(
        line["data-verdict"] == "not found" for line in lines
    )
    words = page.lower().replace("unsafe", "")
    assert ">safe" not in words
    assert " is safe" not in words


def test_links_to_layers_count_the_assets_that_were_asked_for(page):
    tags = Tags(page)
    lines = [attrs for tag, attrs, _ in tags.tags if tag == "div" and "data-asset" in attrs]
    links = [text for tag, _, text in tags.tags if tag == "a" and "assets leak" in text]
    assert len(links) == 2
    for link, of_layer in zip(links, (lines[:7], lines[7:]), strict=True):
        told = [line["data-verdict"] for line in of_layer]
        asked = [verdict for verdict in told if verdict in ("leaks", "not found")]
        assert 0 < len(asked) < 7
        assert link.endswith(f": {told.count('leaks')} of {len(asked)} assets leak")


def test_adversaries_with_equal_eyes_share_a_row_of_the_details(report, page):
    rows = page.count('data-h="adversaries"')
    assert rows < len(report.findings)
    assert "outsider, server, colluders(server, client/0)" in page


def test_a_phone_needs_no_sideways_scroll(page):
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in page
    assert "@media(max-width:820px)" in page
    tags = Tags(page)
    tables = tags.all("table")
    assert tables
    details = tags.all("table", **{"class": "rows"})
    cells = [attrs for tag, attrs, _ in tags.tags if tag == "td" and "data-h" in attrs]
    assert details == tables  # which a phone shows as blocks, each cell behind its name
    assert len(cells) == len(tags.all("td"))


def test_the_page_stands_alone(page):
    assert "http" not in page
    assert "<script" not in page
    assert "<none>" not in page


def test_a_layer_under_which_no_lie_was_told_says_so(page):
    assert "No lie was told: an ideal run has no parties that could lie." in page


def test_liars_have_a_section_of_their_own(page):
    assert "<h2>Liars</h2>" in page
    assert "and none read a client&#x27;s update" in page


def test_a_page_does_not_say_that_nothing_leaks_where_a_lie_read_an_update():
    lie = LieFinding("l", "server", "swaps <keys>", "read", "read", (3,))
    silent = replace(lie, met="nothing", read=())
    quiet = (Line("l", "samples", "not found"),)
    assert "No leak was found, with this effort." in headline(quiet, "", "", (silent,))
    told = headline(quiet, "", "", (silent, lie))
    assert "No leak was found" not in told
    assert "1 of 2 lies read one, as server: swaps &lt;keys&gt;." in told
