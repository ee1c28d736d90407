"""What defences made of clients is data, whole, and from the log of a run alone one sees whether
they accused the right ones.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from privfl import Federation
from privfl.aggregators import CosineFilter, Krum, Verdict
from privfl.audit.detection import Confusion, clients_of, detections, roc, wilson
from privfl.core import Judgement, Rows
from privfl.engine import RoundRecord
from privfl.engine.judging import judged
from privfl.report import play_honest, write_report
from privfl.report.folder import read_run
from privfl.report.honest import honest_rounds

BASE = {
    "data": {"name": "digits", "clients": 10, "root": 40},
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.3, "steps": 2, "batch_size": 16},
    "rounds": 3,
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 9},
}
FLIP = {"name": "sign_flip", "scale": 8.0, "clients": [1, 2]}


def played(tmp_path=None, **changes):
    out = None if tmp_path is None else tmp_path / "run"
    return Federation.from_config({**BASE, **changes}).run(out)


def of(records, seat):
    (found,) = [one for one in detections(records) if one.seat == seat]
    return found


# ---- from the rounds to the log


def test_the_log_alone_redraws_what_was_found_and_names_fifty_of_fifty(tmp_path):
    liars = list(range(20))
    run = played(
        tmp_path,
        data={"name": "digits", "clients": 50},
        aggregator="sign_guard",
        attacks=[{**FLIP, "clients": liars}],
        rounds=2,
    )
    _, records, _ = read_run(tmp_path / "run")
    assert records == list(run.history)
    log = [json.loads(line) for line in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    counts, pairs = np.zeros(4), []
    for row in log:
        (one,) = row["judgements"]
        assert one["ids"] == [[client] for client in range(50)]
        assert row["liars"] == liars
        lied = np.isin(np.arange(50), row["liars"])
        kept = np.asarray(one["kept"])
        counts += [(lied & ~kept).sum(), lied.sum(), (~lied & ~kept).sum(), (~lied).sum()]
        pairs.append(roc_auc_score(lied, one["suspicion"]))
    found = of(records, "SignGuard")
    assert found.tpr.value == counts[0] / counts[1]
    assert found.fpr.value == counts[2] / counts[3]
    assert found.auc.value == pytest.approx(np.mean(pairs))
    assert len(clients_of(found)) == 50


def test_a_liar_that_is_dropped_is_a_true_positive_and_the_history_of_clients_says_so():
    found = of(played(aggregator="cosine_filter", attacks=[FLIP]).history, "CosineFilter")
    assert found.accuses
    assert found.tpr.value == 1.0
    assert found.auc.value == 1.0
    assert found.null_fpr is None
    history = {one.client: one for one in clients_of(found)}
    for one in (history[1], history[2]):
        assert (one.seen, one.dropped, one.lied) == (3, 3, 3)
    assert min(history[c].rank for c in (1, 2)) > max(
        one.rank for one in history.values() if not one.lied
    )


def test_where_nobody_lies_there_is_no_rate_of_true_positives_and_the_null_rate_is_said():
    found = of(played(aggregator="sign_guard").history, "SignGuard")
    assert (found.tpr, found.fpr, found.precision, found.auc, found.among_kept) == (None,) * 5
    assert 0 <= found.null_fpr.value <= 1
    assert found.null_fpr.high < 1
    assert roc(found) is None


def test_only_rounds_in_which_an_attacker_acts_have_liars():
    run = played(aggregator="cosine_filter", attacks=[{**FLIP, "first": 2}])
    assert [record.liars for record in run.history] == [(), (), (1, 2)]
    found = of(run.history, "CosineFilter")
    assert found.counts.tp + found.counts.fn == 2
    assert found.honest.fp + found.honest.tn == 20


def test_an_attack_that_stands_idle_has_no_liars():
    run = played(
        sampler={"name": "fixed_size", "size": 2},
        attacks=[{"name": "alie", "clients": list(range(9))}],
        rounds=4,
    )
    idle = [any("stood idle" in said for said in record.fired.values()) for record in run.history]
    assert any(idle)
    assert all(not record.liars for record, stood in zip(run.history, idle, strict=True) if stood)


def test_a_server_that_sends_another_model_makes_no_liars_of_its_victims():
    run = played(
        attacks=[{"name": "fishing", "features": 64, "classes": 10, "clients": [3]}], rounds=1
    )
    assert run.history[0].liars == ()


def test_a_rule_that_selects_a_fixed_number_accuses_nobody():
    rule = {"name": "krum", "f": 2, "m": 8}
    found = of(played(aggregator=rule, attacks=[FLIP]).history, "Krum")
    assert not found.accuses
    assert found.told_f
    assert (found.tpr, found.fpr, found.precision) == (None, None, None)
    assert found.auc.value == 1.0
    assert found.among_kept.value == 0.0


def test_a_row_that_is_not_finite_is_the_most_suspicious_and_survives_the_log():
    values = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    values[4, 1] = torch.nan
    rule = Krum(f=2)
    one = judged(rule, rule.judge(Rows.of(values)), tuple((i,) for i in range(7)), "delta")
    assert one.suspicion[4] == np.inf
    assert not one.kept[4]
    back = Judgement.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert back.suspicion == one.suspicion
    assert np.isnan(back.scores["score"][4])


def test_a_row_that_the_server_refuses_reaches_no_rule_and_is_an_incident():
    lies = [{"name": "not_finite", "clients": [4]}]
    (record,) = played(aggregator={"name": "krum", "f": 2}, attacks=lies, rounds=1).history
    assert (4,) not in record.judgements[0].ids
    assert any("client/4" in incident for incident in record.incidents)


def test_a_seat_before_the_rule_and_the_rule_after_it_are_judged_each_on_the_rows_it_saw():
    run = played(
        defences=[{"name": "anomaly_score", "k": 1.2}],
        aggregator="cosine_filter",
        attacks=[{**FLIP, "scale": 500.0}],
    )
    for record in run.history:
        before, rule = record.judgements
        kept = tuple(ids for ids, stays in zip(before.ids, before.kept, strict=True) if stays)
        assert rule.ids == kept
    assert of(run.history, "AnomalyScore").tpr.value == 1.0


def test_two_seats_of_one_class_are_two_and_no_client_is_seen_more_often_than_there_are_rounds():
    follow = [{"name": "flanders", "f": 1, "forecast": how} for how in ("last", "global")]
    run = played(defences=follow, attacks=[FLIP])
    found = {one.seat: one for one in detections(run.history)}
    assert list(found) == ["FLANDERS", "FLANDERS 2"]
    for one, rows in zip(found.values(), (10, 9), strict=True):
        assert [len(judged.lied) for judged in one.rounds] == [rows] * 3
        assert max(client.seen for client in clients_of(one)) == 3
    assert found["FLANDERS"].tpr.value == 0.5
    assert found["FLANDERS 2"].tpr.value == 1.0
    assert {"FLANDERS", "FLANDERS 2"} <= set(run.history[0].fired)


def test_a_round_whose_liars_were_dropped_before_a_seat_is_no_honest_round_of_that_seat():
    run = played(
        defences=[{"name": "anomaly_score", "k": 1.2}],
        aggregator="cosine_filter",
        attacks=[{**FLIP, "scale": 500.0}],
    )
    assert of(run.history, "AnomalyScore").tpr.value == 1.0
    behind = of(run.history, "CosineFilter")
    assert behind.null_fpr is None
    assert behind.counts.fp + behind.counts.tn == sum(len(one.lied) for one in behind.rounds)
    assert (behind.tpr, behind.precision, behind.auc) == (None, None, None)


def test_a_suspicion_that_is_no_number_is_the_worst_and_leaves_an_auc():
    verdict = Verdict(torch.zeros(1), suspicion=torch.tensor([0.5, torch.nan, -torch.inf]))
    one = judged(Krum(f=2), verdict, ((4,), (5,), (9,)), "delta")
    assert one.suspicion == (0.5, np.inf, -np.inf)
    (found,) = detections([record(0, one, (5,))])
    assert found.auc.value == 1.0


def test_of_groups_a_group_with_a_liar_is_guilty_and_the_channel_says_who_is_in_it():
    run = played(
        data={"name": "digits", "clients": 18},
        channel={"name": "bucketed_secagg", "size": 3},
        bound={"name": "clip", "l2": 2.0},
        aggregator={"name": "krum", "f": 1},
        attacks=[{**FLIP, "clients": [5]}],
    )
    for record in run.history:
        (one,) = record.judgements
        assert sorted(client for group in one.ids for client in group) == list(range(18))
        assert {len(group) for group in one.ids} == {3}
    found = of(run.history, "Krum")
    assert found.counts.tp + found.counts.fn == 3
    assert sum(found.rounds[0].lied) == 1


def test_buckets_before_the_rule_are_groups_as_well():
    run = played(
        defences=[{"name": "bucketing", "size": 2}],
        aggregator={"name": "krum", "f": 1},
        attacks=[{**FLIP, "clients": [5]}],
    )
    (one,) = run.history[0].judgements
    assert sorted(one.ids, key=min) != [(i, i + 1) for i in range(0, 10, 2)]
    assert sorted(client for group in one.ids for client in group) == list(range(10))
    assert sum(of(run.history, "Krum").rounds[0].lied) == 1


@pytest.mark.parametrize("reveal", ["scores", "selection"])
@pytest.mark.parametrize("name", ["krum", "fltrust"])
def test_what_two_servers_disclose_is_judged_as_the_rule_in_the_open_judges_it(name, reveal):
    rule = {"name": "krum", "f": 2, "m": 6} if name == "krum" else {"name": name}
    changes = {
        "aggregator": rule,
        "bound": {"name": "clip", "l2": 2.0},
        "training": {**BASE["training"], "weighting": "uniform"},
        "attacks": [FLIP],
        "rounds": 1,
    }
    (hidden,) = played(channel={"name": "two_server", "reveal": reveal}, **changes).history
    (plain,) = played(**changes).history
    (inside,), (open_one,) = hidden.judgements, plain.judgements
    assert inside.seat == f"{open_one.seat} inside the channel"
    assert (inside.ids, inside.kept, inside.accuses) == (
        open_one.ids,
        open_one.kept,
        open_one.accuses,
    )
    if reveal == "scores":
        order = [np.argsort(one.suspicion).tolist()[-3:] for one in (inside, open_one)]
        assert order[0] == order[1]


def test_servers_that_open_nothing_but_the_aggregate_judge_nobody():
    changes = {"bound": {"name": "clip", "l2": 2.0}, "aggregator": "mean", "rounds": 1}
    run = played(channel={"name": "two_server", "reveal": "aggregate"}, **changes)
    assert run.history[0].judgements == ()


def test_the_rule_never_sees_who_lies(monkeypatch):
    """A rule that looks for the truth in all that it is given finds nothing of it."""
    seen = []
    honest = CosineFilter._decide

    def looks(self, rows, lost, state, context):
        plan = replace(context.plan, session=b"")
        seen.append(repr((rows.ids, rows.weights, state, plan, context.released)))
        return honest(self, rows, lost, state, context)

    monkeypatch.setattr(CosineFilter, "_decide", looks)
    played(aggregator="cosine_filter", attacks=[FLIP], rounds=1)
    played(aggregator="cosine_filter", attacks=[{**FLIP, "clients": [7, 8]}], rounds=1)
    assert seen[0] == seen[1]


# ---- under a claim of privacy


def test_under_a_claim_judgements_stay_on_the_private_side_and_the_statement_says_so(tmp_path):
    played(
        tmp_path,
        aggregator={"name": "krum", "f": 2},
        bound={"name": "clip", "l2": 0.5},
        mechanism={"name": "gaussian", "noise_multiplier": 2.0},
        rounds=1,
    )
    folder = tmp_path / "run"
    assert "judgements" in (folder / "rounds.jsonl").read_text()
    assert "made of each client" in (folder / "README.md").read_text()
    published = {path.name: path.read_bytes() for path in (folder / "public").iterdir()}
    assert not [name for name, text in published.items() if b"suspicion" in text]
    assert b"judgements of single clients" in published["statement.json"]


# ---- the scorer


def test_wilsons_interval_is_scipys():
    for hits, n in ((0, 7), (1, 7), (5, 19), (19, 19), (300, 1000)):
        theirs = binomtest(hits, n).proportion_ci(method="wilson")
        ours = wilson(hits, n)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def judgement(kept, suspicion):
    ids = tuple((client,) for client in range(len(kept)))
    return Judgement("Rule", "delta", ids, True, False, kept, None, suspicion)


def record(number, one, liars):
    return RoundRecord(number, 4, 4, None, None, (), 0, {}, judgements=(one,), liars=liars)


def test_an_auc_compares_rows_of_one_round_only_and_counts_ties_half():
    low = judgement((True,) * 4, (1.0, 1.0, 2.0, 3.0))
    high = judgement((True,) * 4, (101.0, 102.0, 104.0, 103.0))
    (found,) = detections([record(0, low, (0,)), record(1, high, (2,))])
    assert found.auc.value == pytest.approx((0.5 + 3) / 6)
    assert found.counts == Confusion(tp=0, fn=2, fp=0, tn=6)


def test_a_perfect_and_a_reversed_order_are_the_corners_of_the_roc():
    right = judgement((True, True, True, False), (1.0, 2.0, 3.0, 9.0))
    (found,) = detections([record(0, right, (3,))])
    false, true = roc(found)
    assert true[false == 0].max() == 1.0
    (wrong,) = detections([record(0, right, (0,))])
    assert wrong.auc.value == 0.0
    assert wrong.precision.value == 0.0


# ---- the page


def test_the_page_names_fifty_clients_their_rates_and_the_null_rate_of_the_honest_run(tmp_path):
    federation = Federation.from_config(
        {
            **BASE,
            "data": {"name": "digits", "clients": 50},
            "aggregator": "sign_guard",
            "attacks": [{**FLIP, "clients": 20}],
            "rounds": 2,
        }
    )
    federation.run(tmp_path / "run")
    bare = write_report(tmp_path / "run").read_text()
    assert "Whom the defences accused" in bare
    table = bare[bare.index("Clients under SignGuard") :]
    assert all(f"<tr><td>{client}</td><td>2</td>" in table for client in range(50))
    for name in ("detection", "detection_rates", "detection_scores"):
        assert (tmp_path / "run" / f"{name}.svg").stat().st_size > 5_000
    play_honest(federation, tmp_path / "run")
    (null,) = detections(honest_rounds(tmp_path / "run"))
    assert null.tpr is None
    assert null.honest.fp + null.honest.tn == 100
    assert str(null.null_fpr) not in bare
    assert str(null.null_fpr) in write_report(tmp_path / "run").read_text()


def test_a_run_whose_defences_judge_nobody_has_no_such_section(tmp_path):
    played(tmp_path, rounds=1)
    assert "Whom the defences accused" not in write_report(tmp_path / "run").read_text()
    assert not (tmp_path / "run" / "detection.svg").exists()
