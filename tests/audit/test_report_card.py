"""The report card: threat models by letter, the worst adversary of each asset, verdicts that are
corrected for being the worst of many, claims on the same scale, and remedies.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from privfl import Federation
from privfl.attacks import Forward, Inference, Knowledge, LinearLeakage, LossThreshold, Scores
from privfl.audit import (
    Attacks,
    Line,
    ThreatModel,
    attacks_of,
    audit,
    card,
    named_attacks,
    record,
)
from privfl.audit.claimed import Claimed
from privfl.audit.equal_eyes import merged
from privfl.audit.findings import AuditReport, Finding
from privfl.audit.glance import glance
from privfl.audit.page import top
from privfl.audit.score import Figure
from privfl.audit.threats import threat_model
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset
from privfl.engine import forward_of

BASE = {
    "data": {"name": "digits", "clients": 4, "partition": "iid"},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"name": "sgd", "lr": 0.1, "batch_size": 16, "steps": 2},
    "rounds": 1,
    "executor": "stacked",
}
CLOSED = Attacks(probe=(LinearLeakage(),), stream=(LossThreshold(),))


def audited(changes=None, *, attacks=CLOSED, adversaries=("server",), **more):
    federation = Federation.from_config({**BASE, **(changes or {})})
    return audit(federation, adversaries=adversaries, attacks=attacks, lies=None, **more)


def lines_of(report):
    return {line.asset: line for line in card(report)}


class NoNumbers(Inference):
    """Scores that are no numbers, as where a model has diverged."""

    family = "membership"

    def infer(self, views, knowledge):
        return Scores(
            "NoNumbers", views[0].adversary, torch.full((knowledge.candidates.n,), torch.nan)
        )


class Breaks(Inference):
    """Raises what no attack may raise."""

    family = "membership"

    def infer(self, views, knowledge):
        raise RuntimeError("the matrix is singular")


@pytest.mark.parametrize(
    ("attack", "words"), [(NoNumbers(), "numbers that it answers"), (Breaks(), "is singular")]
)
def test_an_attack_that_breaks_off_is_no_coin_that_came_up_fair(attack, words):
    (finding,) = audited(attacks=Attacks(stream=(attack,))).findings
    assert finding.value is None
    assert words in finding.undone
    assert finding.verdict == "not found"


def test_a_budget_that_is_used_up_is_said_of_every_attack_that_did_not_begin():
    report = audited(budget=1e-6)
    assert all("budget" in finding.undone for finding in report.findings)
    line = lines_of(report)["membership"]
    assert line.verdict == "not found"
    assert any("budget" in doubt for doubt in line.doubts)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"name": "digits", "clients": 1, "partition": "iid"}},
        {"training": {"name": "scaffold", "lr": 0.1, "batch_size": 16}},
    ],
    ids=["one client", "scaffold"],
)
def test_one_client_and_control_variates_are_audited_to_the_end(changes):
    few = attacks_of("low")
    report = audited(changes, attacks=Attacks(few.probe, (), few.properties, few.stream[:2]))
    assert report.findings
    undone = [finding.undone for finding in report.findings if finding.undone]
    alone = "data" in changes  # then nobody has the property, or everybody
    assert all(alone and "takes some of both kinds" in why for why in undone)


def test_nobody_is_told_the_extremes_of_the_clients_own_columns():
    outlier = torch.cat([torch.zeros(40, 3), torch.full((1, 3), 987.0)])
    parts = [Dataset(outlier, torch.zeros(41, dtype=torch.int64), 2) for _ in range(2)]
    model = torch.nn.Linear(3, 2)
    federation = Federation(model, parts, parts[0], rounds=1)
    forward = federation.scenario.facts["forward"]
    assert forward.low == forward.high == ()


def test_pixels_have_a_range_that_everybody_knows():
    work = Federation.from_config(BASE).scenario
    told = forward_of(
        work.workload.model,
        work.workload.loss,
        work.workload.method,
        work.workload.data,
        work.bound,
        None,
    )
    assert (told.low[0], told.high[0]) == pytest.approx((-0.3053 / 0.3761, 0.6947 / 0.3761))


@pytest.fixture(scope="module")
def views():
    run = Federation.from_config({**BASE, "audit": {"keep": "all"}}).run()
    return {who: [run.view(who, 0)] for who in ("server", "client(0)", "outsider")}


def test_a_threat_model_says_what_is_seen_known_and_done(views):
    held = Dataset(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), 10)
    server = threat_model(views["server"], Knowledge(auxiliary=held))
    assert (server.letter, server.sees, server.acts) == ("D", "rows", "passive")
    assert threat_model(views["client(0)"], Knowledge()).letter == "C"
    assert threat_model(views["client(0)"], Knowledge()).own == 1
    assert threat_model(views["client(0)"], Knowledge()).sees == "release"
    assert threat_model(views["outsider"], Knowledge()).own == 0
    lying = threat_model(views["server"], Knowledge(auxiliary=held), active=True, chooses=True)
    assert (lying.letter, lying.acts) == ("H", "active")


def report_of(*findings, claims=(), threats=None):
    layers = {
        "l": {"accuracy": 0.9, "the server reads": "rows", "fidelity": "real", "claims": claims}
    }
    return AuditReport(findings, layers, threats=threats or {})


def membership(who, auc, low, rate=0.0, verdict="leaks", **more):
    return Finding(
        "l",
        who,
        "membership",
        f"Attack {auc}",
        "AUC",
        value=Figure(auc, low, auc + 0.02),
        baseline=Figure(0.5),
        verdict=verdict,
        rates={"tpr_at_.01": Figure(rate, max(0.0, rate - 0.005), rate + 0.01)},
        units=800,
        **more,
    )


def test_the_worst_of_many_looks_must_clear_more_than_one_look():
    alone = membership("server", 0.53, 0.505)
    assert lines_of(report_of(alone))["membership"].verdict == "leaks"
    others = [membership("server", 0.5 + k / 1000, 0.48, verdict="not found") for k in range(40)]
    line = lines_of(report_of(alone, *others))["membership"]
    assert line.verdict == "not found"
    assert line.looks == 41


def test_the_worst_adversary_is_the_one_with_the_highest_sure_rate_and_the_fewest_parties():
    weak = membership("client/0", 0.6, 0.58, rate=0.02)
    strong = [
        membership(who, 0.9, 0.88, rate=0.4) for who in ("colluders(server, client/0)", "server")
    ]
    line = lines_of(report_of(weak, *strong))["membership"]
    assert line.adversaries == ("server", "colluders(server, client/0)")
    assert "and 1 with equal eyes" in line.who
    assert line.blind["tpr_at_.01"] == 0.01


def test_rows_of_equal_eyes_are_one_and_others_stay_apart():
    same = [membership(who, 0.9, 0.88) for who in ("server", "dealer", "outsider")]
    assert [row.adversaries for row in merged([*same, membership("server/1", 0.7, 0.6)])] == [
        ("server", "dealer", "outsider"),
        ("server/1",),
    ]


def test_a_claim_stands_on_the_scale_of_the_measurement_where_it_holds_and_else_not_at_all():
    claim = Claimed("sample", 0.5, 1e-5, "add_remove", "model_recipients")
    told = membership("client/0", 0.6, 0.55, rate=0.02)
    seen = {("l", "client/0"): ThreatModel("D", "release")}
    line = lines_of(report_of(told, claims=(claim,), threats=seen))["membership"]
    assert line.caps["tpr_at_.01"] == pytest.approx(0.01 * 2.718281828**0.5 + 1e-5)
    rows = {("l", "client/0"): ThreatModel("D", "rows")}
    bare = lines_of(report_of(told, claims=(claim,), threats=rows))["membership"]
    assert not bare.caps
    assert bare.claim.startswith("none against it")


@pytest.mark.parametrize(
    ("against", "colluders", "who", "holds"),
    [
        ("model_recipients", 0, ThreatModel("D", "release"), True),
        ("model_recipients", 0, ThreatModel("D", "sum"), False),
        ("server", 0, ThreatModel("D", "sum"), True),
        ("server", 0, ThreatModel("D", "rows"), False),
        ("server", 0, ThreatModel("D", "sum", own=1), False),
        ("server_and_clients", 2, ThreatModel("D", "sum", own=2), True),
        ("server", 0, ThreatModel("G", "sum", active=True), False),
    ],
)
def test_a_claim_holds_against_those_only_for_whom_it_was_made(against, colluders, who, holds):
    claim = Claimed("client", 1.0, 1e-5, "zero_out", against, colluders)
    assert claim.holds_against(who) is holds


def test_a_run_with_private_training_has_its_claim_beside_the_measurement():
    private = {
        "training": {
            "name": "sgd",
            "lr": 0.1,
            "batch_size": 16,
            "steps": 2,
            "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 2.0},
        },
        "executor": "sequential",
    }
    line = lines_of(audited(private))["membership"]
    assert line.claim.startswith("epsilon ")
    assert 0.01 < line.caps["tpr_at_.01"] < 1


def test_what_leaks_says_what_to_change_from_what_the_adversary_sees():
    plain = lines_of(audited())["samples"]
    assert plain.verdict == "leaks"
    assert "secagg" in plain.change
    assert plain.threat.sees == "rows"
    assert plain.blind["psnr"] < 30 < plain.figures["psnr"].value


def test_not_applicable_needs_a_sentence_that_proves_it():
    report = audited(adversaries=("key_holder",))
    line = lines_of(report)["samples"]
    assert line.verdict == "not applicable"
    assert "key" in line.proof
    text = lines_of(report)["text"]
    assert (text.verdict, text.proof) == (
        "not applicable",
        "the samples are numbers and no tokens of a vocabulary: no text is in them.",
    )
    assert lines_of(report)["presence"].verdict == "not asked"


def test_a_config_names_attacks_with_their_keys():
    told = named_attacks(
        [{"name": "gradient_inversion", "iterations": 7}, {"name": "loss_threshold"}]
    )
    assert told.probe[0].iterations == 7
    assert told.stream == (LossThreshold(),)
    assert not told.properties


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"name": "gradient_inversio"}, "did you mean 'gradient_inversion'"),
        ({"name": "gradient_inversion", "iteration": 3}, "did you mean 'iterations'"),
        ({"name": "selection_profile"}, "scored by no game of the audit"),
        ({"name": "sign_flip"}, "unknown audit.attacks 'sign_flip'"),
    ],
)
def test_an_attack_that_an_audit_cannot_play_is_refused_in_a_sentence(part, words):
    with pytest.raises(ConfigError, match=words):
        named_attacks([part])


def test_an_attackers_range_is_its_own_samples_and_somewhat_more():
    table = {
        "data": {
            "name": "csv",
            "path": str(Path(__file__).parents[2] / "examples" / "patients.csv"),
            "target": "sick",
            "clients": 2,
        },
        "model": "tabular",
    }
    seen = []

    class Looks(Inference):
        family = "membership"

        def infer(self, views, knowledge):
            seen.append(knowledge)
            return Scores("Looks", "server", torch.rand(knowledge.candidates.n))

    audited({**table, "executor": "sequential"}, attacks=Attacks(stream=(Looks(),)))
    (knows,) = seen
    assert isinstance(knows.forward, Forward)
    own = knows.auxiliary.x
    assert torch.tensor(knows.forward.low).lt(own.amin(dim=0) + 1e-6).all()
    assert len(knows.forward.low) == own.shape[1]


def test_text_is_asked_and_what_a_client_typed_leaks_from_its_embedding():
    rng = torch.Generator().manual_seed(0)
    sentences = torch.randint(0, 60, (160, 7), generator=rng)
    data = Dataset(sentences[:, :-1].clone(), sentences[:, 1:].clone(), 60)
    parts = [data.take(range(i, 128, 4)) for i in range(4)]
    model = torch.nn.Sequential(torch.nn.Embedding(60, 4), torch.nn.Linear(4, 60))
    federation = Federation(model, parts, data.take(range(128, 160)), rounds=1)
    report = audit(federation, adversaries=["server", "client(0)"], effort="low", lies=None)
    assert str(report) == glance(report)
    assert not [finding.undone for finding in report.findings if finding.undone]
    line = lines_of(report)["text"]
    assert line.verdict == "leaks"
    assert line.figures["right"].value > 0.9
    assert line.blind["right"] < 0.5
    assert line.counted.endswith(" different tokens")
    assert line.units < 4 * 6 * 2, "tokens of the probe's four sequences, each once"
    assert f"of {line.counted}. Asked in one round, 1 sequence a client." in top.headline(
        [line], "", report.about["probe"]
    )
    assert lines_of(report)["labels"].verdict == "not applicable"
    assert "embedding" in line.change or "single updates" in line.change


def test_a_line_that_leaks_by_the_test_against_luck_alone_says_so():
    wide = membership("server", 0.69, 0.49, luck=1e-6)
    (line,) = [one for one in card(report_of(wide)) if one.asset == "membership"]
    assert (line.verdict, line.luck) == ("leaks", 1e-6)
    assert line.evidence.endswith("as much by luck: 1 in 1,000,000")
    clear = membership("server", 0.8, 0.7, luck=1e-6)
    (line,) = [one for one in card(report_of(clear)) if one.asset == "membership"]
    assert "luck" not in line.evidence


def test_figures_say_of_what_they_are():
    few = attacks_of("low")
    report = audited(attacks=Attacks(few.probe, (), few.properties, (), presence=few.presence))
    counted = {line.asset: line.counted for line in card(report) if line.figures}
    assert counted["samples"] == "4 samples"
    assert counted["labels"] == "4 labels"
    assert counted["properties"].split()[1] in ("clients", "runs")
    assert counted["presence"].endswith(" scores of clients")
    assert {finding["unit"] for finding in record(report)["findings"]} >= {"labels", "samples"}
    assert Line("l", "samples", "leaks", units=1).counted == "1 sample"
    asked_in_the_run = Line("l", "membership", "leaks", figures={"auc": Figure(0.9)}, units=7)
    assert "Asked in" not in top.headline([asked_in_the_run], "", report.about["probe"])


def test_a_sample_beyond_an_unknown_range_is_read_off_exactly_and_not_cut():
    x = torch.full((1, 5), 7.5)
    parts = [Dataset(x, torch.zeros(1, dtype=torch.int64), 2) for _ in range(2)]
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    keep = AuditConfig(keep="all")
    run = Federation(model, parts, parts[0], rounds=1, audit=keep, executor="sequential").run()
    told = LinearLeakage().run(run.view("server", 0))
    assert torch.allclose(told.samples, x, atol=1e-3)


def test_a_brief_line_that_leaks_shows_the_figure_that_does_and_not_one_that_chance_has():
    figures = {"tpr_at_.01": Figure(0.021, 0.003, 0.071), "auc": Figure(0.59, 0.56, 0.62)}
    blind = {"tpr_at_.01": 0.01, "auc": 0.5}
    line = Line(
        "secagg", "membership", "leaks", adversaries=("server",), figures=figures, blind=blind
    )
    assert line.brief == "leaks: server, AUC .59 [.56, .62]"
    clear = replace(line, figures={**figures, "tpr_at_.01": Figure(0.3, 0.2, 0.4)})
    assert clear.brief == "leaks: server, TPR at 1 % FPR .30 [.20, .40]"
    unknown = replace(line, blind={"tpr_at_.01": None, "auc": None})
    assert unknown.brief == "leaks: server, TPR at 1 % FPR .021 [.003, .071]"


@pytest.mark.parametrize("number", [1, 3, 12, 60])
def test_a_printed_report_fits_on_a_screen_and_names_what_leaks(number):
    one = membership("server", 0.8, 0.7)
    labels = replace(one, family="inversion", metric="share of labels", attack="LabelCounts" * 30)
    names = [f"layer {k}" for k in range(number)]
    found = tuple(replace(made, layer=name) for name in names for made in (one, labels))
    report = AuditReport(found, {name: {"claims": ()} for name in names})
    shown = glance(report).splitlines()
    assert len(shown) <= 45
    assert max(map(len, shown)) <= 100
    assert shown[0].endswith(f"{2 * number} of {7 * number} lines leak.")
    assert [line for line in shown if line in names] == names[:18]
    assert sum("membership" in line and "leaks" in line for line in shown) == min(number, 18)
    assert "Worst: membership under layer 0, by server" in shown
    remedy = next(line.change for line in card(report) if line.asset == "membership")
    assert f"change: {remedy} " in " ".join(" ".join(shown).split())  # all of it
    assert "write_page(report, folder)" in shown[-1]
    assert repr(report) == (
        f"<AuditReport: {2 * number} findings, {number} layers; print it for its card>"
    )
