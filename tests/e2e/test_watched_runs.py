"""Who watches a run: trackers, what each is told, metrics of somebody's own, and early ends."""

import math
import os
import socket

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from privfl import Federation
from privfl.core import CannotWrite, ConfigError
from privfl.engine import EarlyStopping
from privfl.trackers import MLflow, TensorBoard

BASE = {
    "data": {"name": "digits", "clients": 4, "partition": "iid", "validation": 0.1},
    "training": {"name": "sgd", "lr": 0.3},
    "rounds": 3,
    "executor": "sequential",
}
NOISY = {
    **BASE,
    "bound": {"name": "clip", "l2": 1.0},
    "mechanism": {"name": "gaussian", "noise_multiplier": 2.0},
    "start": "public",
    "seed": 5,
}


class Noting:
    def __init__(self, private):
        self.private, self.told = private, []

    def begin(self, facts, first):
        self.told.append(("begin", facts, first))

    def round(self, number, figures):
        self.told.append(("round", figures, number))

    def end(self, figures, how):
        self.told.append(("end", figures, how))


def least(module, dataset):
    """The share of samples of class 0."""
    return float((dataset.y == 0).float().mean())


def no_number(module, dataset):
    return "high"


def test_a_tracker_sees_settings_rounds_and_the_end():
    tracker = Noting(private=False)
    run = Federation.from_config(BASE).run(trackers=[tracker])
    kinds = [kind for kind, *_ in tracker.told]
    assert kinds == ["begin", "round", "round", "round", "end"]
    assert tracker.told[0][1]["data.clients"] == 4
    assert [what["accuracy"] for _, what, _ in tracker.told[1:4]] == [
        record.accuracy for record in run.history
    ]
    assert tracker.told[-1][1]["accuracy"] == run.accuracy


@pytest.mark.parametrize("config", [NOISY, {**NOISY, "sampler": {"name": "poisson", "rate": 0.5}}])
def test_of_a_private_run_a_tracker_that_is_not_gets_the_public_side_alone(config):
    public, private = Noting(private=False), Noting(private=True)
    again = Noting(private=False)
    run = Federation.from_config(config).run(trackers=[public, private])
    assert [kind for kind, *_ in public.told] == ["begin", "end"]
    assert [kind for kind, *_ in private.told] == ["begin", "round", "round", "round", "end"]
    facts, figures = public.told[0][1], dict(public.told[1][1])
    assert "seed" not in facts
    assert "noise_seed" not in facts
    assert private.told[0][1]["seed"] == 5
    (line,) = run.summary["privacy"]
    drawn = figures.pop("epsilon_seed_known/client", None)
    assert figures == {"epsilon/client": line["epsilon"], "delta/client": 1e-5}
    assert figures["epsilon/client"] > 0
    assert (drawn is None) == ("sampler" not in config), "a seed that is known amplifies nothing"
    assert drawn is None or drawn >= line["as_drawn"] > line["epsilon"]
    # other data at a client change nothing of what is told
    neighbour = Federation.from_config(config)
    with torch.no_grad():
        neighbour.scenario.workload.data.x[neighbour.scenario.clients[0]] = 0.0
    neighbour.run(trackers=[again])
    assert again.told == public.told
    assert run.summary["accuracy"] is not None


def test_a_run_that_fails_is_told_as_failed():
    class Refusing(Noting):
        def round(self, number, figures):
            raise OSError("no room")

    refusing, other = Refusing(private=True), Noting(private=True)
    with pytest.raises(OSError, match="no room"):
        Federation.from_config(BASE).run(trackers=[other, refusing])
    assert other.told[-1] == ("end", {}, "failed")


def test_a_tracker_that_cannot_begin_is_named_and_is_told_of_no_end():
    class Unreached(Noting):
        def begin(self, facts, first):
            raise ConnectionError("nobody answers")

        def end(self, figures, how):
            raise AttributeError("it never began")

    unreached, other = Unreached(private=True), Noting(private=True)
    with pytest.raises(CannotWrite, match=r"tracker Unreached failed.*nobody answers"):
        Federation.from_config(BASE).run(trackers=[other, unreached])
    assert other.told[-1] == ("end", {}, "failed")


def test_an_mlflow_server_that_is_not_there_is_said_before_anybody_trains():
    with socket.socket() as held:  # a port that is taken, and at which nobody listens
        held.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ConfigError, match="no MLflow server answers"):
            MLflow(uri)


def test_tensorboard_reads_back_what_a_run_wrote_and_a_resumed_one_goes_on(tmp_path):
    def killed(record, rounds):
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Federation.from_config(BASE).run(
            tmp_path / "run", progress=killed, trackers=[TensorBoard(tmp_path / "events")]
        )
    run = Federation.from_config(BASE).run(
        tmp_path / "run", resume=True, trackers=[TensorBoard(tmp_path / "events")]
    )
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    found = {point.step: point.value for point in events.Scalars("accuracy")}
    shown = {r.round: r.accuracy for r in run.history if r.round in found}
    assert set(found) >= {0, 2}
    assert found == pytest.approx(shown)
    assert events.Scalars("end/accuracy")[-1].value == pytest.approx(run.accuracy)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_mlflow_reads_back_what_a_run_wrote(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setitem(os.environ, "MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    uri = f"file://{tmp_path / 'store'}"
    tracker = MLflow(uri, name="first")
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    told = {**BASE, "metrics": {"zeros (%) é": "test_watched_runs:least"}}
    run = Federation.from_config(told).run(trackers=[tracker])
    client = MlflowClient(tracking_uri=uri)
    kept = client.get_run(tracker.run)
    assert kept.info.status == "FINISHED"
    assert kept.data.params["training.lr"] == "0.3"
    assert [point.value for point in client.get_metric_history(tracker.run, "accuracy")] == [
        record.accuracy for record in run.history
    ]
    assert kept.data.metrics["end/accuracy"] == run.accuracy


def test_metrics_of_a_config_are_measured_with_each_round(monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    config = {**BASE, "metrics": {"zeros": "test_watched_runs:least"}}
    federation = Federation.from_config(config)
    run = federation.run()
    zeros = least(None, federation.scenario.validation)
    assert [record.measures["zeros"] for record in run.history] == [zeros] * 3


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"f1": "f1_score"}, "module:function"),
        ({"f1": "math:pi"}, "no class or function"),
        ({"f1": "math:nothing"}, "no 'nothing'"),
    ],
)
def test_metrics_that_are_no_functions_are_refused(metrics, said):
    with pytest.raises(ConfigError, match=said):
        Federation.from_config({**BASE, "metrics": metrics})


def failing(module, dataset):
    raise ZeroDivisionError("no class 11")


def without_arguments():
    return 1.0


@pytest.mark.parametrize("metric", [failing, without_arguments])
def test_a_metric_that_fails_is_named(metric):
    federation = Federation.from_config(BASE)
    object.__setattr__(federation.scenario, "metrics", {"mood": metric})
    with pytest.raises(ConfigError, match=r"metric 'mood' failed with .*metric\(module, dataset\)"):
        federation.run()


def test_a_metric_that_gives_no_number_is_named():
    federation = Federation.from_config(BASE)
    federation = federation.with_scenario(federation.scenario)
    object.__setattr__(federation.scenario, "metrics", {"mood": no_number})
    with pytest.raises(ConfigError, match="metric 'mood' gave a str"):
        federation.run()


DP_SGD = {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0}
STOPPING = {**BASE, "rounds": 12, "early_stopping": {"patience": 2, "least": 0.02}}


def test_a_run_ends_where_the_validation_samples_gain_no_more_and_says_so(tmp_path):
    run = Federation.from_config(STOPPING).run(tmp_path / "run")
    accuracies = [record.accuracy for record in run.history]
    assert len(accuracies) < 12
    rule = EarlyStopping(patience=2, least=0.02)
    assert rule.ends(accuracies)
    assert not rule.ends(accuracies[:-1])
    (said,) = [line for line in run.summary["warnings"] if "early_stopping" in line]
    assert f"after round {len(accuracies)} of 12" in said
    assert run.summary["rounds"] == len(accuracies)


def test_a_killed_run_ends_early_at_the_same_round(tmp_path):
    whole = Federation.from_config(STOPPING).run(tmp_path / "whole")

    def killed(record, rounds):
        if record.round == len(whole.history) - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Federation.from_config(STOPPING).run(tmp_path / "cut", progress=killed)
    resumed = Federation.from_config(STOPPING).run(tmp_path / "cut", resume=True)
    assert torch.equal(resumed.parameters, whole.parameters)
    assert [r.accuracy for r in resumed.history] == [r.accuracy for r in whole.history]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "digits", "clients": 4}}, "data.validation"),
        ({k: v for k, v in NOISY.items() if k in ("bound", "mechanism")}, "no epsilon counts"),
        (
            {
                "training": {
                    "name": "sgd",
                    "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0},
                }
            },
            "no epsilon counts",
        ),
    ],
)
def test_an_end_that_would_be_chosen_on_other_data_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        Federation.from_config({**STOPPING, **changes})


@pytest.mark.parametrize(("patience", "least_"), [(0, 0.0), (1, -0.1), (1, math.nan)])
def test_stopping_that_cannot_be_is_refused(patience, least_):
    with pytest.raises(ConfigError, match="early_stopping"):
        EarlyStopping(patience, least_)


def test_the_command_writes_events_draws_metrics_and_ends_early(tmp_path, privfl, config):
    told = {**STOPPING, "metrics": {"zeros": f"{__name__}:least"}}
    out = tmp_path / "run"
    done = privfl("run", config(yaml.safe_dump(told)), "--out", out, "--tensorboard", "events")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "events").glob("events*"))
    page = (out / "report.html").read_text()
    assert "early_stopping" in page
    assert "metrics that were asked for" in page


def test_of_a_private_run_the_command_tells_trackers_all_only_when_it_is_told_to(
    tmp_path, privfl, config
):
    path = config(yaml.safe_dump(NOISY))
    seen = {}
    for name, more in (("public", ()), ("private", ("--private-trackers",))):
        words = ("--out", tmp_path / name, "--tensorboard", tmp_path / f"{name}-events", *more)
        assert privfl("run", path, *words).returncode == 0
        events = EventAccumulator(str(tmp_path / f"{name}-events"))
        events.Reload()
        seen[name] = set(events.Tags()["scalars"])
    assert seen["public"] == {"end/epsilon/client", "end/delta/client"}
    assert {"accuracy", "loss", "end/accuracy"} <= seen["private"]
