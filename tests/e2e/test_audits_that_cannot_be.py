"""`privfl audit` of data that are too few, or none: a refusal like every other, before anything
trains, and no red gate.
"""

from dataclasses import replace

import pytest

from privfl import Federation
from privfl.audit import audit
from privfl.core import ConfigError

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
