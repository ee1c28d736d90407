"""`privfl audit` of data that are too few, or none: a refusal like every other, before anything
trains, and no red gate.
"""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import LossThreshold
from privfl.audit import audit, named_attacks
from privfl.core import ConfigError
from privfl.data import load

PATIENTS = "data: {name: csv, path: few.csv, target: sick, client_column: ward}\nrounds: 1\n"
LAYERS = "audit: {layers: {a: {}, b: {bound: {name: clip, l2: 1.0}, channel: additive_sharing}}}\n"


def table(folder, rows):
    lines = [f"{'abc'[i % 3]},{20 + i},{('no', 'yes')[i % 2]}" for i in range(rows)]
    (folder / "few.csv").write_text("\n".join(["ward,age,sick", *lines]) + "\n")


@pytest.mark.parametrize("jobs", [1, 2])
def test_too_few_samples_are_no_red_gate_and_the_sentence_says_how_many_are_needed(
    privfl, config, tmp_path, jobs
):
    table(tmp_path, 24)
    done = privfl("audit", config(PATIENTS + LAYERS), "--jobs", jobs)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "privfl: an audit needs at least 30 samples outside of training, the test samples among"
        " them, and at held_out 0.5 there are 12, at 0.9 no more than 21: there are too few samples"
        " to audit. Give at least 9 more (of clients, or test samples).\n"
    )


def test_a_table_that_cannot_be_read_is_no_red_gate(privfl, config, tmp_path):
    table(tmp_path, 10)
    done = privfl("audit", config(PATIENTS))
    assert (done.returncode, done.stdout) == (2, "")
    assert "leaves no rows to test with" in done.stderr


@pytest.mark.filterwarnings("default")
def test_a_warning_is_said_as_a_command_says_things(privfl, config, tmp_path):
    table(tmp_path, 24)
    weak = "bound: {name: clip, l2: 1.0}\nchannel: {name: paillier, key_bits: 2048}\n"
    done = privfl("audit", config(PATIENTS + weak))
    first, second = done.stderr.splitlines()
    assert first.startswith("privfl: a Paillier modulus of 2048 bits is under 128-bit security")
    assert second.startswith("privfl: an audit needs at least 30 samples")


def few(clients, test):
    data = {"name": "digits", "clients": 3, "partition": "iid"}
    made = Federation.from_config({"data": data, "executor": "sequential", "rounds": 1})
    scenario = made.scenario
    kept = {client: index[:clients] for client, index in scenario.clients.items()}
    return made.with_scenario(replace(scenario, clients=kept, test=scenario.test.take(range(test))))


@pytest.mark.parametrize(
    ("clients", "test", "held_out", "way_out"),
    [
        (10, 8, 0.5, r"there are 23: raise held_out \(0\.9 leaves 35\)"),
        (4, 40, 0.1, r"none of them does: raise held_out"),
        (1, 40, 0.5, "none of them does: give a client two samples or more"),
        (4, 2, 0.5, r"there are 8, at 0\.9 no more than 11: .* at least 19 more"),
    ],
)
def test_what_is_advised_helps(clients, test, held_out, way_out):
    told = []
    layers = {"enough": few(40, 40), "few": few(clients, test)}
    with pytest.raises(ConfigError, match=way_out):
        audit(layers, held_out=held_out, progress=told.append)
    assert told == []


def four(x, y, test):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    parts = [(x[i::4], y[i::4]) for i in range(4)]
    return Federation(net, parts, test, rounds=1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"effort": "lo"}, "unknown effort 'lo'; did you mean 'low'? Known: default, high, low."),
        ({"adversaries": ["server", "servr"]}, "no adversary is called 'servr'"),
        (
            {"adversaries": ["server", "colluders(server, client(4))"]},
            "adversaries: 'colluders(server, client(4))' needs the party 'client/4', which no layer"
            " has: beside outsider, server and key_holder there are client(0) to client(3), and no"
            " helpers.",
        ),
        ({"adversaries": ["server/1"]}, "needs the party 'server/1', which no layer has"),
        ({"probe": ["linear_leakage"]}, "probe holds 'linear_leakage', which is no attack"),
        ({"stream": [LossThreshold]}, "stream holds <class 'privfl.attacks"),
    ],
)
def test_a_misspelt_argument_is_refused_before_anything_trains(unchecked, asked, said):
    digits = load("digits")
    federation = four(digits.train.x, digits.train.y, digits.test)
    told = []
    with pytest.raises(ConfigError) as refused:
        audit(federation, progress=told.append, **asked)
    assert said in str(refused.value)
    assert told == []


def test_a_party_of_one_layer_alone_may_be_named_and_one_of_none_is_no_green_gate(
    privfl, config, tmp_path
):
    short = "data: {name: digits, clients: 4}\nrounds: 1\nexecutor: sequential\n"
    told = "audit: {adversaries: ['ASKED'], attacks: [linear_leakage]}\n"
    gate = ("--fail-over", "samples.recognised=.01", "--out", tmp_path / "out")
    done = privfl("audit", config(short + told.replace("ASKED", "client(9)")), *gate)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'client(9)' needs the party 'client/9'" in done.stderr
    assert not (tmp_path / "out").exists()
    done = privfl("audit", config(short + told.replace("ASKED", "key_holder")), *gate)
    assert done.returncode == 3
    assert "nobody looked: key_holder had no view in any layer" in " ".join(done.stdout.split())


def test_samples_that_are_no_numbers_are_refused_by_client_before_anything_trains():
    digits = load("digits")
    x = digits.train.x.clone()
    x[5, ..., 0] = torch.nan
    told = []
    with pytest.raises(ConfigError) as refused:
        audit(four(x, digits.train.y, digits.test), progress=told.append)
    assert str(refused.value).startswith(
        "client 1 of layer 'as configured' holds NaN or infinite values, first in its sample 1:"
    )
    assert told == []


def test_a_misspelt_attack_is_told_of_the_generator_among_the_known_ones():
    with pytest.raises(ConfigError, match=r"did you mean 'client_gan'.*Known: .*client_gan.*spear"):
        named_attacks([{"name": "client_gn"}])
    known = named_attacks([{"name": "client_gan", "wanted": 3, "labelled": 0}])
    assert known.representatives[0].wanted == 3


STOPPED = """
import os, signal, time
from pathlib import Path
import torch

STOP = signal.Signals[os.environ["STOP"]]

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(64, 10)

    def forward(self, x):
        if Path("out").is_dir():
            os.kill(os.getpid(), STOP)
            time.sleep(60)
        return super().forward(x.flatten(1))
"""
OWN = (
    "data: {name: digits, clients: 4, partition: iid}\nmodel: {name: 'net_that_stops:Net'}\n"
    "rounds: 1\nexecutor: sequential\naudit: {adversaries: [server], attacks: [loss_threshold]}\n"
)


@pytest.mark.parametrize(("stop", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_audit_that_is_stopped_leaves_no_empty_folder_of_its_own(
    privfl, config, tmp_path, monkeypatch, stop, code
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "net_that_stops", raising=False)
    monkeypatch.setenv("STOP", stop)
    handled = signal.getsignal(signal.SIGTERM)
    (tmp_path / "net_that_stops.py").write_text(STOPPED)
    source, out = config(OWN), tmp_path / "out"
    done = privfl("audit", source, "--out", "out", "--jobs", 1)
    assert (done.returncode, done.stdout) == (code, "")
    assert not out.exists(), "it was made, or nothing would have stopped the audit"
    out.mkdir()
    assert privfl("audit", source, "--out", "out", "--jobs", 1).returncode == code
    assert list(out.iterdir()) == [], "an empty folder that was there before stays"
    assert signal.getsignal(signal.SIGTERM) is handled


def test_an_audit_that_fails_at_its_page_takes_back_what_it_wrote(
    privfl, config, tmp_path, monkeypatch
):
    quick = OWN.replace("{name: 'net_that_stops:Net'}", "softmax")
    real = Path.replace

    def full(draft, target):
        if Path(target).name == "audit.json":
            raise OSError(28, "No space left on device")
        return real(draft, target)

    monkeypatch.setattr(Path, "replace", full)
    done = privfl("audit", config(quick), "--out", "out", "--jobs", 1)
    assert done.returncode == 2
    assert "audit.json': No space left on device" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("instead", [("--dp",), ("--protocol", 4)])
@pytest.mark.parametrize(
    "gate",
    [
        ("--fail-over", "samples.recognised=.01"),
        ("--against", "old.json"),
        ("--effort", "low"),
        ("--budget", "3s"),
    ],
)
def test_what_another_audit_would_pass_over_is_refused(privfl, config, tmp_path, instead, gate):
    words = ("--set", "channel=secagg", "--set", "data.clients=4", *instead, *gate)
    done = privfl("audit", config("rounds: 1\n"), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"privfl: {gate[0]} is for attacks on what is seen, and {instead[0]} audits something else,"
        f" which would pass over it: leave one of them out.\n"
    )


def test_two_other_audits_at_once_are_refused(privfl, config):
    done = privfl("audit", config("channel: secagg\n"), "--dp", "--protocol", 4)
    assert done.returncode == 2
    assert done.stderr == "privfl: --dp and --protocol are two audits: ask for one at a time.\n"


@pytest.mark.parametrize("given", [{"data": {"name": "digits"}}, {"plain": None}, "exp.yaml", {}])
def test_layers_that_are_no_federations_are_refused_with_the_way_to_make_one(unchecked, given):
    with pytest.raises(ConfigError, match=r"layer") as refused:
        audit(given)
    assert given == {} or "Federation.from_config" in str(refused.value)


SUMS = "data: {name: digits, clients: 4}\nrounds: 1\nbound: {name: clip, l2: 1.0}\n"


def test_liars_that_open_too_much_are_named_with_a_way_out(privfl, config):
    done = privfl("audit", config(SUMS + "channel: secagg\n"), "--protocol", 4)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("privfl: red: 1 of 19 attacks opens what an honest round does not:")
    assert "'server: the same round twice' (two sums of one round)" in said
    assert said.endswith("set channel.mode: active.")
    told = privfl("audit", config(SUMS + "channel: secagg\n"), "--protocol", 4, "--json")
    broken = [row["attack"] for row in json.loads(told.stdout) if row["broken"]]
    assert broken == ["server: the same round twice"]
    assert (told.returncode, told.stderr) == (1, done.stderr)


def test_liars_who_open_nothing_leave_no_complaint(privfl, config):
    active = "channel: {name: secagg, mode: active}\n"
    done = privfl("audit", config(SUMS + active), "--protocol", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert "server: the same round twice" in done.stdout


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_clients_for_liars_are_refused_by_the_option(privfl, config, n):
    done = privfl("audit", config(SUMS + "channel: secagg\n"), "--protocol", n)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'--protocol'" in done.stderr
    assert "3" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--protocol", 3, "--out", "x"), "--out is of no use beside --protocol"),
        (("--protocol", 3, "--jobs", 2), "--jobs is of no use beside --protocol"),
        (("--protocol", 3, "--pairs", 9), "--pairs is of no use without --dp"),
        (("--dp", "--jobs", 2), "--jobs is of no use beside --dp"),
        (("--canaries", 9), "--canaries is of no use without --dp"),
        (("--values", 40000), "--values is of no use without --dp"),
    ],
)
def test_an_option_that_this_audit_would_pass_over_is_refused(privfl, config, words, said):
    done = privfl("audit", config(SUMS + "channel: secagg\n"), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"privfl: {said}: leave it out.\n"


def test_a_gate_or_a_layer_that_cannot_be_is_named(privfl, config):
    gate = privfl("audit", config(SUMS), "--fail-over", "membership.tpr=.05")
    assert gate.returncode == 2
    assert gate.stderr.startswith("privfl: --fail-over membership.tpr=.05: unknown figure 'tpr'")
    layers = "audit: {layers: {plain: {}, sums: {chanel: secagg}}}\n"
    layer = privfl("audit", config(SUMS + layers))
    assert layer.returncode == 2
    assert layer.stderr.startswith(
        "privfl: audit.layers 'sums': unknown key 'chanel'; did you mean 'channel'?"
    )


CLAIMS = SUMS + "mechanism: {name: gaussian, noise_multiplier: 1.0}\n"


@pytest.mark.parametrize("out", ["taken", "taken/inside"])
def test_a_folder_that_cannot_be_is_refused_before_claims_are_audited(
    privfl, config, tmp_path, out
):
    (tmp_path / "taken").write_text("")
    done = privfl("audit", config(CLAIMS), "--dp", "--out", out)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert f"'{out}'" in said


FAULTY = """
import torch

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(64, 10)

    def forward(self, x):
        return super().forward(x.flatten(1))

    def train(self, mode=True):
        if not mode:
            raise RuntimeError("no mode but one")
        return super().train(mode)
"""


def test_an_audit_that_breaks_off_by_a_foreign_error_is_no_red_gate(
    privfl, config, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "net_at_fault.py").write_text(FAULTY)
    source = config(OWN.replace("net_that_stops", "net_at_fault"))
    done = privfl("audit", source, "--out", "out", "--jobs", 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert "RuntimeError: no mode but one" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("privfl: the audit broke off")
    assert not (tmp_path / "out").exists()


def test_a_page_names_its_config_data_and_what_each_layer_changes(privfl, config, tmp_path):
    quick = OWN.replace("{name: 'net_that_stops:Net'}", "softmax").replace(
        "adversaries: [server]",
        "adversaries: [server], layers: {a: {}, b: {bound: {name: clip, l2: 2}}}",
    )
    words = ("--out", "out", "--jobs", 1, "--set", "rounds=2")
    assert privfl("audit", config(quick, "mine.yaml"), *words).returncode == 0
    held = json.loads((tmp_path / "out/audit.json").read_text())
    assert held["about"]["config"] == "mine.yaml with rounds=2"
    assert held["about"]["data"].startswith("digits, 1,")
    changes = "{bound: {name: clip, l2: 2}}"
    assert [one.get("config") for one in held["layers"]] == [None, changes]
    page = (tmp_path / "out/audit.html").read_text()
    assert "audit of mine.yaml with rounds=2" in page[: page.index("<style>")]
    assert f"{changes}; test accuracy" in page


@pytest.mark.parametrize("name", ["client(99)", "colluders(server, client(99))"])
def test_an_adversary_that_is_no_client_is_refused_before_anything_trains(
    privfl, config, tmp_path, name
):
    """It had no view, every line was not applicable, and the command said nothing of it."""
    quick = OWN.replace("{name: 'net_that_stops:Net'}", "softmax")
    quick = quick.replace("[server]", f"[server, '{name}']")
    done = privfl("audit", config(quick), "--out", "out", "--jobs", 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"privfl: adversaries: '{name}' needs the party 'client/99', which no layer has: beside"
        " outsider, server and key_holder there are client(0) to client(3), and no helpers.\n"
    )
    assert not (tmp_path / "out").exists()


def test_names_of_layers_are_no_markup(privfl, config, tmp_path):
    quick = OWN.replace("{name: 'net_that_stops:Net'}", "softmax").replace(
        "adversaries: [server]",
        "adversaries: [server], layers: {'[/bold]': {}, '[red]b': {}}",
    )
    gate = ("--fail-over", "membership.auc=.999")
    done = privfl("audit", config(quick), "--out", "out", "--jobs", 1, *gate)
    assert done.returncode in (0, 3), done.stderr
    assert "[/bold]" in done.stdout
    assert "[red]b" in done.stdout
