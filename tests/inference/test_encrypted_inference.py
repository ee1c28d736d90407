"""A model's owner answers about samples that it cannot read; messages that are not honest are
refused or, where nothing can prove them wrong, said to be unproved.
"""

import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from privfl import Federation
from privfl.cli.app import made
from privfl.core import BadUpdate, ConfigError, SecretsStay, UnsupportedModel
from privfl.crypto.he.lattice import frames, switching
from privfl.crypto.he.wire import Refused
from privfl.inference import EncryptedModel, EncryptedQuerier, InferenceCircuit, infer_encrypted
from privfl.inference.circuit import PackedMap
from privfl.inference.diagonals import diagonals, packed_bias, packed_input
from privfl.inference.network import affine_stages, balanced
from privfl.models import Square, square_cnn


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), Square(), nn.Linear(5, 3))


class Rectified(nn.Linear):
    """A subclass of an affine layer that is not affine."""

    def forward(self, input):
        return super().forward(input).relu()


def zeroed(layer):
    nn.init.zeros_(layer.weight)


@pytest.fixture(scope="module")
def x():
    return torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def owner(x):
    return EncryptedModel(small(), (2, 3), calibration=x)


@pytest.fixture(scope="module")
def client(owner):
    return EncryptedQuerier(owner.circuit)


@pytest.fixture(scope="module")
def sent(client):
    return client.keys()


@pytest.fixture(scope="module")
def keys(owner, sent):
    return owner.keys(sent)


def test_answers_are_the_networks_own(owner, client, keys, x):
    for sample in x:
        logits = client.logits(owner.answer(keys, client.query(sample)))
        torch.testing.assert_close(logits, small()(sample[None])[0], rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((1, 8, 8), [nn.Conv2d(1, 2, 3, stride=2), Square(), nn.Flatten(), nn.Linear(18, 4)]),
        ((3,), [nn.Linear(3, 9), Square(), nn.Linear(9, 2), Square(), nn.Linear(2, 7)]),
        ((5,), [nn.Linear(5, 1)]),
        ((8, 4), [nn.AvgPool1d(2), nn.Flatten(), nn.BatchNorm1d(16), Square(), nn.Linear(16, 2)]),
    ],
)
def test_products_with_diagonals_are_the_networks_maps(shape, layers):
    torch.manual_seed(0)
    net = nn.Sequential(*layers).eval()
    sample = torch.randn(1, *shape)
    slots, values = 64, None
    network = balanced(affine_stages(net, shape), sample)
    circuit = InferenceCircuit(
        (sample.numel(), *(len(stage.bias) for stage in network.stages)),
    )
    for number, (stage, affine) in enumerate(zip(circuit.stages, network.stages, strict=True)):
        if values is None:
            values = packed_input(stage, sample.double().reshape(-1).numpy(), slots)
        values = values * values if number else values
        whole = np.zeros(slots)
        for index, diagonal in enumerate(diagonals(stage, affine.weight, slots)):
            if diagonal is not None:
                giant, baby = divmod(index, stage.baby)
                whole += np.roll(np.roll(values, -baby) * diagonal, -giant * stage.baby)
        for step in stage.folds:
            whole = whole + np.roll(whole, -step)
        values = whole + packed_bias(stage, affine, slots)
    found = torch.from_numpy(values[: circuit.widths[-1]]).float()
    torch.testing.assert_close(found, net(sample)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (784, 256), (10, 64), (7, 7), (4096, 2)])
def test_steps_cover_every_diagonal_and_every_rotation_has_a_key(inputs, outputs):
    stage = PackedMap(inputs, outputs)
    assert stage.baby * stage.giant == stage.rows >= outputs
    assert stage.period >= inputs
    assert stage.rows << len(stage.folds) == stage.period
    assert all(0 < step < stage.period for step in stage.rotations)


def test_a_queries_ciphertext_says_nothing_of_its_sample_without_the_key(client, owner, x):
    twice = [client.query(x[0]) for _ in range(2)]
    assert twice[0] != twice[1]
    other = EncryptedQuerier(owner.circuit)
    foreign = owner.answer(owner.keys(other.keys()), client.query(x[0]))
    with pytest.raises(Refused):  # another key reads noise, which fills the modulus
        client.logits(foreign)
    with pytest.raises(Refused):
        other.logits(foreign)


def test_the_owners_keys_hold_no_part_of_the_secret(client, owner, sent):
    lattice = owner.circuit.lattice
    words = frames.secret_words(lattice, client._secret)
    count = 1 + len(owner.circuit.rotations)
    code = frames.residues(lattice, key=True)
    pairs = code.unpacked(sent[24:], 2 * (len(lattice.primes) - 1) * count)
    assert not any((pair == words[0]).all() for pair in pairs)
    assert client._secret not in sent


def test_secrets_stay(client):
    with pytest.raises(SecretsStay):
        pickle.dumps(client)
    assert repr(client) == "<EncryptedQuerier: holds secrets>"


def test_foreign_bytes_are_refused_in_words(owner, client, keys, sent, x):
    query = client.query(x[0])
    answer = owner.answer(keys, query)
    other = InferenceCircuit((6, 5, 4))
    for read, honest in (
        (owner.keys, sent),
        (lambda data: owner.answer(keys, data), query),
        (client.logits, answer),
    ):
        for data in (
            b"",
            honest[:20],
            honest[:-1],
            honest + b"\0",
            b"PFIN\x02" + honest[5:],
            honest[:5] + b"\x07" + honest[6:],
            honest[:8] + other.digest + honest[24:],
            honest[:24] + b"\xff" * 8 + honest[32:],  # a residue over its prime
            query if honest is not query else answer,
        ):
            with pytest.raises(Refused):
                read(data)


def test_an_answer_that_hides_nothing_is_refused(owner, client, keys, x):
    answer = owner.answer(keys, client.query(x[0]))
    with pytest.raises(Refused, match="hides nothing"):
        client.logits(answer[:24] + bytes(len(answer) - 24))


def test_a_lying_owners_answer_is_read_as_if_it_were_honest(client, keys, x):
    """What the docstring says aloud: nothing proves the answer."""
    liar = EncryptedModel(small(seed=9), (2, 3), calibration=x)
    logits = client.logits(liar.answer(keys, client.query(x[0])))
    torch.testing.assert_close(logits, small(seed=9)(x[:1])[0], rtol=0, atol=5e-3)
    assert (logits - small()(x[:1])[0]).abs().max() > 0.1


def test_a_keys_bit_that_was_flipped_spoils_answers_and_shows(owner, client, sent, x):
    at = 24 + switching.key_bytes(owner.circuit.lattice) + 3  # in the first rotation's key
    changed = sent[:at] + bytes([sent[at] ^ 1]) + sent[at + 1 :]
    with pytest.raises(Refused):
        client.logits(owner.answer(owner.keys(changed), client.query(x[0])))


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_an_answer_that_overflows_is_refused_and_never_another_number(outputs):
    """2^11 is what wraps around: a single output of 3000 used to be read as 952."""
    net = nn.Sequential(nn.Linear(1, outputs))
    with torch.no_grad():
        net[0].weight[:, 0] = torch.tensor([1.0, -0.5, 0.25])[:outputs]
    net[0].bias.data.fill_(0.5)
    owner = EncryptedModel(net, (1,), calibration=torch.ones(1, 1))
    net[0].weight.data.mul_(1000)
    beyond = EncryptedModel(net, (1,), calibration=torch.ones(1, 1) / 100)
    client = EncryptedQuerier(owner.circuit)
    keys = owner.keys(client.keys())
    for value in (-1000.0, 700.0, 1000.0):
        answer = owner.answer(keys, client.query(torch.tensor([value])))
        due = torch.tensor([1.0, -0.5, 0.25])[:outputs] * value + 0.5
        torch.testing.assert_close(client.logits(answer), due, rtol=0, atol=1e-3)
    for value in (-4.5, 2.0, 2.048, 3.0, 4.096, 40.96, 1000.0):
        answer = beyond.answer(keys, client.query(torch.tensor([value])))
        with pytest.raises(Refused, match="far from those"):
            client.logits(answer)


def test_keys_that_would_make_an_answer_hide_nothing_are_refused(owner, client, sent, x):
    """SEAL throws in the middle of the evaluation."""
    size = switching.key_bytes(owner.circuit.lattice)
    for first, count in ((0, len(sent) // size), (1, 1)):
        at = 24 + first * size
        hollow = sent[:at] + bytes(count * size) + sent[at + count * size :]
        with pytest.raises(Refused, match="cannot be evaluated"):
            owner.answer(owner.keys(hollow), client.query(x[0]))


def test_mutated_messages_are_refused_or_read_and_nothing_else(owner, client, keys, sent, x):
    query = client.query(x[0])
    answer = owner.answer(keys, query)
    draw, refused = np.random.default_rng(0), {"query": 0, "answer": 0, "keys": 0}
    for what, honest, read in (
        ("query", query, lambda data: client.logits(owner.answer(keys, data))),
        ("answer", answer, client.logits),
        ("keys", sent, owner.keys),
    ):
        for _ in range(10):
            data, at = bytearray(honest), int(draw.integers(24, len(honest) - 64))
            data[at : at + 64] = draw.bytes(64) if draw.random() < 0.5 else bytes(64)
            try:
                read(bytes(data[: draw.integers(1, len(data))] if draw.random() < 0.3 else data))
            except Refused:
                refused[what] += 1
    assert refused["query"] == refused["answer"] == 10  # nobody's words in the middle of ours
    assert refused["keys"] > 0  # others are keys of somebody, and spoil answers


@pytest.mark.parametrize("depth", range(1, 8))
def test_the_whole_modulus_is_within_the_standards_bound_for_128_bits(depth):
    """Albrecht et al. 2018, table 1, ternary secrets; the special prime counts."""
    lattice = InferenceCircuit((4,) * (depth + 1)).lattice
    assert sum(lattice.primes) <= {8192: 218, 16384: 438}[lattice.degree]


def test_samples_that_cannot_be_are_refused(client):
    for sample in (
        torch.zeros(5),
        torch.full((6,), torch.nan),
        torch.full((6,), torch.inf),
        torch.full((6,), 1e30),
    ):
        with pytest.raises(BadUpdate, match="finite values"):
            client.query(sample)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), "a ReLU cannot"),
        (nn.Sequential(nn.Linear(2, 2), Square()), "begins and ends"),
        (nn.Sequential(nn.Linear(2, 2), Square(), Square(), nn.Linear(2, 2)), "begins and ends"),
        (nn.Linear(2, 2), "only an nn.Sequential"),
        (nn.Sequential(nn.Linear(2, 2).apply(zeroed)), "zero weights"),
        (nn.Sequential(Rectified(2, 2)), "another function than an affine one"),
        (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)), "cannot evaluate one sample"),
        (nn.Sequential(nn.Linear(3, 2)), r"cannot evaluate one sample of shape \(2,\)"),
    ],
)
def test_other_networks_are_refused_in_words(net, said):
    with pytest.raises(UnsupportedModel, match=said):
        EncryptedModel(net, (2,), calibration=torch.ones(1, 2))


def test_values_that_the_modulus_does_not_hold_are_refused_before_anybody_asks():
    net = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(net[0].weight, 1e3)
    with pytest.raises(ConfigError, match="logits reach"):
        EncryptedModel(net, (2,), calibration=torch.ones(1, 2))
    with pytest.raises(ConfigError, match="not finite"):
        EncryptedModel(net, (2,), calibration=torch.full((1, 2), torch.nan))
    with pytest.raises(ConfigError, match="samples of 2 values"):
        EncryptedModel(net, (2,), calibration=torch.ones(0, 2))
    bare = nn.Sequential(nn.Linear(2, 2, bias=False), Square(), nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="nothing is left"):
        EncryptedModel(bare, (2,), calibration=torch.full((1, 2), 1e-30))
    with pytest.raises(ConfigError, match="does not hold them"):
        EncryptedModel(bare, (2,), calibration=torch.full((1, 2), 1e-200, dtype=torch.float64))
    with pytest.raises(ConfigError, match="too deep or too wide"):
        InferenceCircuit((2, *[2] * 9))
    with pytest.raises(ConfigError, match="too deep or too wide"):
        InferenceCircuit((9000, 2))


def test_activations_that_squares_blow_up_are_scaled_back():
    net = nn.Sequential(nn.Linear(2, 2), Square(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.fill_(500.0)
        net[2].weight.fill_(1e-5)
    x = torch.tensor([[1.0, -0.5]])
    found = infer_encrypted(net, x, calibration=x)
    assert found.error < 5e-2


def test_a_runs_model_is_asked_from_the_command_line(tmp_path):
    config = {
        "data": {"name": "digits", "clients": 3},
        "model": {"name": "square_cnn", "hidden": 4},
        "training": {"name": "sgd", "lr": 0.02, "epochs": 1},
        "rounds": 2,
    }
    Federation.from_config(config).run(out=tmp_path / "run")
    words = ["infer", str(tmp_path / "run"), "--samples", "2", "--json"]
    shown = CliRunner().invoke(made(words), words)
    assert shown.exit_code == 0, shown.output
    rows = {row["what"]: row["figure"] for row in json.loads(shown.stdout)}
    assert rows["samples"] == 2
    assert rows["largest error of a logit"] < 5e-2


def test_square_cnn_is_what_its_docstring_says():
    net = square_cnn((1, 28, 28), 10)
    assert [stage.weight.shape for stage in affine_stages(net, (1, 28, 28))] == [
        (256, 784),
        (64, 256),
        (10, 64),
    ]
