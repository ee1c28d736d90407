"""Whole runs over the homomorphic channels: what each adversary's view really reads, and what the
report says aloud.
"""

import json

import pytest
import torch

from privfl import Federation
from privfl.core import NotVisible, Rows, Total
from privfl.report import write_report

SMALL = {"name": "paillier", "key_bits": 512, "insecure_for_tests": True}
CHANNELS = {
    "paillier": SMALL,
    "paillier-threshold": {**SMALL, "keys": "threshold"},
    "bfv": {"name": "bfv"},
    "bfv-unverified": {"name": "bfv", "verify_sum": False},
    "bfv-shared": {"name": "bfv", "keys": "shared", "encryption": "seeded"},
    "ckks": {"name": "ckks"},
    "ckks-shared": {"name": "ckks", "keys": "shared"},
    "mp-rlwe": {"name": "mp_rlwe"},
    "one-time-rlwe": {"name": "one_time_rlwe"},
}
JOINT = ("mp-rlwe", "one-time-rlwe")
ALONE = {
    "decryptor/0": "rows",
    "key_holder": "rows",
    "colluders(server, decryptor/0)": "rows",
    "colluders(server, client(0))": "total",
}
SHARED = {
    "key_holder": "total",
    "client(0)": "total",
    "client(3)": None,
    "colluders(server, client(3))": "rows",
}
FEW = {
    "decryptor/0": None,
    "colluders(server, decryptor/0)": "total",
    "colluders(server, decryptor/0, client(0))": "total",
    "colluders(server, decryptor/1, decryptor/2)": "rows",
}
READS = {
    "paillier": ALONE,
    "bfv": ALONE,
    "ckks": ALONE,
    "bfv-unverified": {
        "decryptor/0": "total",
        "key_holder": "total",
        "colluders(server, decryptor/0)": "rows",
    },
    "bfv-shared": SHARED,
    "ckks-shared": SHARED,
    "paillier-threshold": {
        **FEW,
        "key_holder": "rows",
        "colluders(decryptor/0, decryptor/1)": "rows",
    },
    "one-time-rlwe": {
        **FEW,
        "key_holder": None,
        "colluders(decryptor/0, decryptor/1, decryptor/2)": None,
    },
    "mp-rlwe": {
        **FEW,
        "key_holder": None,
        "colluders(decryptor/0, decryptor/1, decryptor/2)": None,
    },
}
"""What each adversary reads: decryptors that are handed every ciphertext read rows if they hold the
key; readers of a sum read the sum.
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    done = {}

    def run(name):
        if name not in done:
            config = {
                "data": {"name": "digits", "clients": 4},
                "bound": {"name": "clip", "l2": 1.0},
                "channel": CHANNELS[name],
                "training": {"name": "sgd", "weighting": "uniform"},
                "rounds": 1,
                "executor": "sequential",
                "audit": {"keep": "all"},
            }
            folder = tmp_path_factory.mktemp("runs") / name
            done[name] = Federation.from_config(config).run(folder), folder
        return done[name]

    return run


@pytest.mark.parametrize("name", CHANNELS)
def test_a_view_reads_what_its_coalition_can_decrypt_and_nothing_else(runs, name):
    run, _ = runs(name)
    transcript = run.transcript(0)
    truth = torch.stack([transcript.updates[i].delta for i in range(4)])
    for adversary, reads in {
        "outsider": None,
        "server": "total",
        "client(1)": None,
        **READS[name],
    }.items():
        if name.endswith("shared") and adversary == "client(1)":
            reads = "total"  # one of the three that are asked to open the sum
        view = run.view(adversary, round=0)
        seen = view.opened.get("delta")
        assert type(seen) is {"rows": Rows, "total": Total, None: type(None)}[reads], adversary
        if reads == "rows":
            order = sorted(range(4), key=seen.ids.__getitem__)
            assert (view.rows.values[order] - truth).abs().max() < 1e-4
        elif reads == "total":
            assert (view.total.value - truth.sum(dim=0)).abs().max() < 3e-4
            with pytest.raises(NotVisible, match="only their sum"):
                _ = view.rows
        else:
            with pytest.raises(NotVisible, match="can read nothing"):
                _ = view.total


@pytest.mark.parametrize("name", CHANNELS)
def test_an_outsider_sees_bytes_in_which_no_update_lies_in_clear(runs, name):
    run, _ = runs(name)
    transcript = run.transcript(0)
    tapped = [message.body for message in run.view("outsider", round=0).wire]
    assert sum(map(len, tapped)) == transcript.bytes_sent
    for update in transcript.updates.values():
        biases = update.delta[-4:].numpy()
        assert biases.all()
        assert not any(biases.tobytes() in body for body in tapped)


@pytest.mark.parametrize("name", CHANNELS)
def test_the_report_says_aloud_who_holds_the_key_and_what_the_channel_adds(runs, name):
    _, folder = runs(name)
    page = write_report(folder).read_text()
    warnings = json.loads((folder / "summary.json").read_text())["warnings"]
    kind = CHANNELS[name].get("keys", "joint" if name in JOINT else "authority")
    with_server = "server with " if name == "bfv-unverified" else ""
    readers = {
        "shared": "server with any client",
        "threshold": "any 2 of 3 decryptors",
        "joint": "server with any 2 of 3 decryptors",
        "authority": f"{with_server}decryptor/0",
    }[kind]
    assert f"<td>{readers}</td><td>follows the protocol, and looks</td>" in page
    assert bool(warnings) == (name != "paillier")
    assert page.count('<div class="warn">') == len(warnings)
    if kind == "shared":
        assert "any client together with the server reads everyone" in warnings[0]
    if name in ("bfv", "ckks"):
        assert "One client that lies can have the opened sum show the secret key" in warnings[0]
    if kind == "threshold":
        assert "A dealer makes the key and splits it" in warnings[0]
    assert ("noise of standard deviation" in page) == name.startswith("ckks")


def test_the_error_that_the_report_names_is_the_error_that_the_sum_has(runs):
    run, folder = runs("ckks")
    transcript = run.transcript(0)
    stated = transcript.channel.error(transcript.plan)
    assert (
        f"standard deviation {stated:.2g} in each value of the weighted sum of 4 updates"
        in (folder / "summary.json").read_text()
    )
    exact = sum(update.delta.double() for update in transcript.updates.values())
    error = transcript.carried.opened["delta"].what.value.double() - exact
    assert (
        0.8 < float(error.std()) / stated < 1.2
    )  # 650 values: seven standard deviations of the estimate
