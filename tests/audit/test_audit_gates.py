"""Gates: red where a limit is surely passed, green where it surely is not, and inconclusive where
the audit could not have told; the record that they read; exit codes.
"""

import json

import pytest

from privfl.audit.findings import AuditReport, Finding
from privfl.audit.gates import EXIT, Limit, against, light_of, over
from privfl.audit.lying import LieFinding
from privfl.audit.record import SCHEMA, read_record, record, write_record
from privfl.audit.score import Figure
from privfl.audit.threats import ThreatModel
from privfl.core import ConfigError

LIMIT = Limit.parse("membership.tpr_at_.01=.05")


def finding(rate, who="server", **more):
    settings = {
        "value": Figure(0.6, 0.55, 0.65),
        "baseline": Figure(0.5),
        "rates": {"tpr_at_.01": Figure(*rate)},
        "verdict": "leaks",
        "units": 800,
        **more,
    }
    return Finding("l", who, "membership", "LossThreshold", "AUC", **settings)


SEES = {("l", who): ThreatModel("D", "sum") for who in ("server", "dealer")}


def held(*findings, threats=SEES):
    layers = {"l": {"accuracy": 0.9, "the server reads": "rows", "fidelity": "real", "claims": ()}}
    return json.loads(
        json.dumps(record(AuditReport(findings, layers, threats=threats)), allow_nan=False)
    )


NAN = float("nan")
BROKE = {"value": None, "rates": {}, "verdict": "not found"}


@pytest.mark.parametrize(
    ("findings", "light"),
    [
        ([finding((0.2, 0.15, 0.25))], "red"),
        ([finding((0.01, 0.0, 0.03))], "green"),
        ([finding((0.04, 0.02, 0.08))], "inconclusive"),
        ([finding((NAN, NAN, NAN))], "inconclusive"),
        ([finding((0.01, NAN, NAN))], "inconclusive"),
        ([], "inconclusive"),
        ([finding((0.01, 0.0, 0.03)), finding((0, 0, 0), "dealer", **BROKE)], "inconclusive"),
        (
            [
                finding((0.01, 0.0, 0.03)),
                finding((0, 0, 0), "nobody", **BROKE | {"verdict": "not applicable"}),
            ],
            "green",
        ),
        (
            [
                finding((0.01, 0.0, 0.03)),
                finding((0, 0, 0), "dealer", **BROKE | {"verdict": "not applicable"}),
            ],
            "inconclusive",
        ),
        (
            [finding((0.01, 0.0, 0.03)), finding((0, 0, 0), undone="the budget", **BROKE)],
            "inconclusive",
        ),
        ([finding((0.2, 0.15, 0.25)), finding((0, 0, 0), undone="the budget", **BROKE)], "red"),
        ([finding((0, 0, 0), "nobody", **BROKE | {"verdict": "not applicable"})], "inconclusive"),
        ([finding((0, 0, 0), **BROKE | {"verdict": "not applicable"})], "inconclusive"),
    ],
    ids=[
        "surely over",
        "surely under",
        "reaches over",
        "too few samples",
        "no interval",
        "nobody asked",
        "an adversary without a figure",
        "an adversary that is none",
        "an adversary of whom one attack alone is disproved",
        "an attack broke off",
        "red beats an attack that broke off",
        "nobody there",
        "one attack disproved, and no other asked",
    ],
)
def test_a_gate_is_green_only_where_the_audit_would_have_seen_the_limit(findings, light):
    assert over(held(*findings), LIMIT).light == light


@pytest.mark.parametrize(
    ("before", "after", "light"),
    [
        ([finding((0.02, 0.01, 0.03))], [finding((0.02, 0.01, 0.03))], "green"),
        ([finding((0.02, 0.01, 0.03))], [finding((0.06, 0.04, 0.08))], "red"),
        ([finding((0.02, 0.01, 0.03))], [], "inconclusive"),
        ([finding((0.02, 0.01, 0.03))], [finding((0, 0, 0), **BROKE)], "inconclusive"),
        ([finding((0.02, 0.01, 0.03))], [finding((0, 0, 0), undone="x", **BROKE)], "inconclusive"),
        (
            [finding((0.02, 0.01, 0.03), verdict="not found")],
            [finding((0.02, 0.02, 0.04))],
            "inconclusive",
        ),
        ([finding((0, 0, 0), **BROKE)], [finding((0.02, 0.01, 0.03))], "red"),
        ([], [finding((0.02, 0.01, 0.03))], "inconclusive"),
        ([], [], "inconclusive"),
        ([finding((0.02, 0.01, 0.03))], [finding((0.2, 0.02, 0.4))], "inconclusive"),
        ([finding((0.02, 0.01, 0.03))], [finding((0.02, NAN, NAN))], "inconclusive"),
        ([finding((0.02, NAN, NAN))], [finding((0.9, 0.8, 0.95))], "inconclusive"),
        ([finding((0.2, 0.1, 0.3))], [finding((0.05, 0.0, 0.25))], "green"),
        (
            [finding((0.02, 0.01, 0.03)), finding((0.02, 0.01, 0.03))],
            [finding((0.6, 0.5, 0.7)), finding((0.02, 0.01, 0.03))],
            "red",
        ),
    ],
    ids=[
        "the same",
        "intervals apart",
        "vanished",
        "no figure any more",
        "broke off",
        "leaks now",
        "leaks where nothing was measured",
        "leaks where nobody asked",
        "an older audit that measured nothing",
        "an interval that would have hidden worse",
        "no interval",
        "no interval before",
        "wider, and no higher",
        "one attack with two settings",
    ],
)
def test_an_audit_is_held_against_an_older_one(before, after, light):
    assert light_of(against(held(*after), held(*before))) == light


def test_lights_together_are_red_before_inconclusive_and_each_has_its_exit_code():
    gates = [over(held(one), LIMIT) for one in (finding((0.01, 0, 0.03)), finding((0.2, 0.1, 0.3)))]
    assert light_of(gates) == "red"
    assert EXIT == {"green": 0, "red": 1, "inconclusive": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("membership.tpr_at_.01", "takes ASSET.FIGURE=LIMIT"),
        ("memberships.auc=.6", "did you mean 'membership'"),
        ("samples.auc=.6", "unknown figure 'auc'.*psnr, recognised"),
        ("samples.psnr=much", "'much' is no number"),
        ("samples.psnr=nan", "'nan' is no number"),
        ("membership.tpr_at_.01=5", "from 0 to below 1"),
        ("membership.auc=1", "from 0 to below 1"),
        ("membership.auc=-.1", "from 0 to below 1"),
        ("liars.read=-1", "a count"),
    ],
)
def test_a_gate_that_asks_for_nothing_known_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        Limit.parse(text)


def test_the_record_keeps_its_schema(tmp_path):
    layers = {"l": {"accuracy": 0.9, "the server reads": "rows", "fidelity": "real", "claims": ()}}
    report = AuditReport((finding((NAN, NAN, NAN)),), layers)
    told = read_record(write_record(report, tmp_path))
    assert told["schema"] == SCHEMA == "privfl.audit/1"
    assert set(told) == {
        "schema",
        "effort",
        "seconds",
        "about",
        "versions",
        "layers",
        "card",
        "findings",
        "lies",
        "models",
    }
    assert set(told["findings"][0]) == {
        "layer",
        "adversary",
        "threat",
        "asset",
        "family",
        "attack",
        "verdict",
        "metric",
        "figures",
        "blind",
        "baselines",
        "control",
        "units",
        "unit",
        "luck",
        "clusters",
        "theorem",
        "reason",
        "undone",
        "knows",
        "effort",
        "seconds",
        "more",
    }
    assert set(told["card"][0]) == {
        "layer",
        "asset",
        "verdict",
        "adversaries",
        "threat",
        "attack",
        "figures",
        "blind",
        "caps",
        "claim",
        "units",
        "unit",
        "luck",
        "looks",
        "proof",
        "doubts",
        "change",
        "elsewhere",
        "unseen",
    }
    assert told["about"]["config"] is None  # from Python nobody named one
    assert told["layers"][0]["config"] is None
    assert told["findings"][0]["figures"] == {"auc": {"value": 0.6, "low": 0.55, "high": 0.65}}


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"schema": "privfl.audit/9"}'])
def test_a_record_of_another_schema_is_refused(tmp_path, text):
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(ConfigError, match=r"schema|no JSON"):
        read_record(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("figures", {"auc": {"value": 0.5, "low": 0.4, "high": float("inf")}}),
        ("figures", {"auc": {"value": 0.5, "low": 0.4, "high": "1e999"}}),
        ("figures", {"\ud800": {"value": 0.5, "low": 0.4, "high": 0.6}}),
        ("attack", "half a \ud800"),
        ("layer", "\x1b[2Jcleared"),
    ],
)
def test_a_record_that_would_turn_gates_green_or_cannot_be_shown_is_refused(tmp_path, key, value):
    """An end that nothing reaches hides whatever got worse."""
    old = held(finding((0.02, 0.01, 0.03)))
    old["findings"][0][key] = value
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(ConfigError, match="in its findings"):
        read_record(tmp_path / "old.json")


def lie(read=()):
    return LieFinding("l", "server", "swaps a key", "nothing", "read" if read else "abort", read)


@pytest.mark.parametrize(
    ("lies", "light"),
    [((lie(),), "green"), ((lie(), lie((3,))), "red"), ((), "inconclusive")],
    ids=["none read", "one read", "nobody lied"],
)
def test_liars_that_read_an_update_have_a_gate(lies, light):
    layers = {"l": {"accuracy": 0.9, "the server reads": "rows", "fidelity": "real", "claims": ()}}
    told = json.loads(json.dumps(record(AuditReport((), layers, lies=lies))))
    assert over(told, Limit.parse("liars.read=0")).light == light


def test_lies_are_held_against_those_of_an_older_audit():
    layers = {"l": {"accuracy": 0.9, "the server reads": "rows", "fidelity": "real", "claims": ()}}
    none, reads, silent = (
        json.loads(
            json.dumps(record(AuditReport((finding((0.02, 0.01, 0.03)),), layers, lies=lies)))
        )
        for lies in ((lie(),), (lie((3,)),), ())
    )
    assert light_of(against(none, none)) == light_of(against(reads, reads)) == "green"
    assert light_of(against(reads, none)) == "red"
    assert light_of(against(silent, none)) == "inconclusive"
    (gate,) = against(reads, silent)
    assert gate.light == "inconclusive"
    assert gate.why.endswith("reads an update, and the older audit did not tell this lie")


def test_an_audit_with_less_effort_is_not_held_against_one_with_more():
    told = held(finding((0.02, 0.01, 0.03)))
    assert light_of(against({**told, "effort": "low"}, told)) == "inconclusive"
    assert light_of(against(told, {**told, "effort": "low"})) == "green"


def test_a_gate_is_not_green_over_a_layer_or_an_adversary_of_whom_the_asset_was_not_asked():
    low = finding((0.01, 0.0, 0.03))
    assert over(held(low), LIMIT).light == "green"
    other = held(low)
    other["layers"].append({**other["layers"][0], "name": "m"})
    assert over(other, LIMIT).light == "inconclusive"
    seen = Finding("l", "dealer", "property", "P", "AUC", value=Figure(0.5, 0.4, 0.6))
    gate = over(held(low, seen), LIMIT)
    assert (gate.light, "dealer" in gate.why) == ("inconclusive", True)


@pytest.mark.parametrize("value", ["much", [], {}])
def test_a_record_whose_figures_are_no_numbers_is_refused_when_it_is_read(tmp_path, value):
    told = held(finding((0.02, 0.01, 0.03)))
    told["findings"][0]["figures"]["auc"]["high"] = value
    (tmp_path / "old.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="no record in the schema"):
        read_record(tmp_path / "old.json")


@pytest.mark.parametrize("ends", [(0.9, 0.1), (0.7, 0.9), (0.1, 0.5), (None, 0.5)])
def test_an_older_interval_that_is_none_decides_nothing(tmp_path, ends):
    """With its ends turned round an older figure of .02 would pass for one of .9."""
    told = held(finding((0.02, 0.01, 0.03)))
    told["findings"][0]["figures"]["auc"].update(dict(zip(("low", "high"), ends, strict=True)))
    (tmp_path / "old.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"auc of LossThreshold .* is 0\.6 in .*audit again"):
        read_record(tmp_path / "old.json")


def spoilt(at, key, value):
    told = held(finding((0.02, 0.01, 0.03)))
    told["lies"] = [{"layer": "l", "liars": "server", "lie": "swaps a key", "read": []}]
    (told if at is None else told[at][0])[key] = value
    return json.dumps(told)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "no JSON"),
        (spoilt("findings", "layer", ["l"]), r"layer is a text, and not \['l'\]"),
        (spoilt("findings", "attack", None), "attack is a text, and not None"),
        (spoilt("findings", "undone", 3), "undone is a text, and not 3"),
        (spoilt("findings", "figures", {"auc": {"value": 10**400}}), "int too large"),
        (spoilt("lies", "layer", {}), "layer is a text"),
        (spoilt("lies", "read", 1), "read is a list, and not 1"),
        (spoilt(None, "lies", 3), "lies are a list, and not 3"),
        (spoilt(None, "lies", [{}]), "in its lies, 'layer'"),
        (spoilt(None, "lies", ["server"]), "in its lies"),
        (spoilt(None, "findings", 3), "not iterable"),
        ('{"schema": "privfl.audit/1"}', "it lacks 'findings'"),
    ],
)
def test_a_record_that_could_not_be_compared_is_refused_before_anything_trains(
    tmp_path, text, words
):
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_record(tmp_path / "old.json")
    fine = tmp_path / "fine.json"
    fine.write_text(spoilt("lies", "read", []))
    assert against(read_record(fine), read_record(fine))[0].light == "green"
