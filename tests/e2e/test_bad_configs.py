"""What people write by mistake is refused in one sentence that names the key and the value, before
anybody trains, and never by a traceback.
"""

import pytest

from privfl import Federation
from privfl.core import PrivflError, mapping_in
from privfl.engine import Engine

DIGITS = "data: {name: digits, clients: 4}\nrounds: 1\n"
CLIP = "bound: {name: clip, l2: 1}\n"
NOISE = CLIP + "mechanism: {name: gaussian, noise_multiplier: 1}\n"
OWN = "data: {name: csv, path: own.csv, target: y, client_column: h"
PARTS = """
import numpy as np

class Plain:
    pass

def fails():
    raise ValueError("no disk")

def nothing():
    return None

def empty():
    none = np.zeros((0, 4), dtype="float32"), np.zeros(0, dtype="int64")
    return none, none
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a table and a module of somebody's own, where nobody trains."""

    def play(self, state, **kept):
        raise RuntimeError("a round was played")

    monkeypatch.setattr(Engine, "play", play)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rows = "".join(f"{i},{i % 2},{'xyz'[i % 3]}\n" for i in range(30))
    (tmp_path / "own.csv").write_text("a,y,h\n" + rows)
    (tmp_path / "head.csv").write_text("a,y\n")
    (tmp_path / "twice.csv").write_text("a,a,y\n1,2,0\n")
    (tmp_path / "ragged.csv").write_text("a,y\n1,0\n1,2,3\n")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "badly_made.py").write_text(PARTS)
    (tmp_path / "no_python.py").write_text("def (:\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # what is no config
        ("- a\n- b\n", "holds a list"),
        ("5\n", "a mapping of keys"),
        ("a:\n\tb: 1\n", "is no YAML"),
        ("rounds: 1\nrounds: 2\n", "'rounds' stands there twice"),
        ("data: {name: digits\n", "is no YAML"),
        ("rounds: 1\n---\nrounds: 2\n", "a single document"),
        ("1: 2\n", "keys of a config are words"),
        ("? [1, 2]\n: 3\n", "a key is a word"),
        ("? {a: 1}\n: 3\n", "a key is a word"),
        ("a: " + "[" * 600 + "]" * 600, "nested too deeply"),
        ("rounds: !!python/object/apply:os.system [x]\n", "is no YAML"),
        ("clinets: 3\n", "unknown key 'clinets'"),
        # whole numbers
        ("rounds: 0\n", "'rounds' must be greater than or equal to 1 (it is 0)"),
        ("rounds: 1.5\n", "'rounds' must be a whole number"),
        ("rounds: ten\n", "(it is 'ten')"),
        ("rounds: .inf\n", "a finite number"),
        ("rounds: [1]\n", "'rounds' must be a whole number"),
        ("rounds: 2020-01-01\n", "'rounds' must be a whole number"),
        ("seed: yes\n", "'seed' must be a whole number (it is 'yes')"),
        ("threads: 0\n", "'threads'"),
        ("noise_seed: x\n", "'noise_seed' must be a whole number or none"),
        # data
        ("data: 5\n", "'data' must be a mapping of keys"),
        ("data: [digits]\n", "'data' must be a mapping of keys"),
        ("data: nope\n", "unknown data set 'nope'"),
        ("data: {name: digits, clients: 0}\n", "'data.clients'"),
        ("data: {name: digits, clients: many}\n", "'data.clients' must be a whole number or none"),
        ("data: {name: digits, clients: 1000000}\n", "ask for fewer clients"),
        ("data: {name: digits, clients: 3, nested: {a: 1}}\n", "unknown key 'nested'"),
        ("data: {name: digits, clients: 3, validation: 1.0}\n", "'data.validation'"),
        ("data: {name: digits, clients: 3, validation: .nan}\n", "'data.validation'"),
        ("data: {name: digits, clients: 3, validation: 1.0e-9}\n", "data.validation is 1e-09"),
        ("data: {name: digits, clients: 3, partition: nope}\n", "unknown partition 'nope'"),
        (
            "data: {name: digits, clients: 3, partition: {name: dirichlet, alpha: .nan}}\n",
            "alpha must be above 0",
        ),
        ("data: {name: csv, path: folder.csv, target: y}\n", "cannot read 'folder.csv'"),
        ("data: {name: csv, path: none.csv, target: y}\n", "cannot read 'none.csv'"),
        ("data: {name: csv, path: empty.csv, target: y}\n", "a first line of column names"),
        ("data: {name: csv, path: head.csv, target: y}\n", "two classes at least"),
        ("data: {name: csv, path: twice.csv, target: y}\n", "'a' stands there twice"),
        ("data: {name: csv, path: ragged.csv, target: y}\n", "line 3: 3 fields where 2"),
        ("data: {name: csv, path: bytes.csv, target: y}\n", "no whole CSV file"),
        ("data: {name: csv, path: own.csv}\n", "needs the key 'target'"),
        ("data: {name: csv, path: own.csv, target: z}\n", "unknown column 'z'"),
        ("data: {name: csv, path: 5, target: y}\n", "'path' must be text"),
        (OWN + ", bounds: {a: [5, 1]}}\n", "the lower first"),
        (OWN + ", bounds: {a: [0, .inf]}}\n", "bounds of 'a' are two numbers"),
        (OWN + ", bounds: [a]}\n", "'bounds' must be a mapping"),
        (OWN + ", bounds: {q: [0, 1]}}\n", "unknown column 'q'"),
        (OWN + ", classes: 5}\n", "'classes' must be a list"),
        (OWN + ", categories: {a: []}}\n", "categories of 'a'"),
        (OWN + ", test_every: 1}\n", "test_every must be at least 2"),
        ("data: 'badly_made:fails'\n", "'badly_made:fails' failed with ValueError: no disk"),
        ("data: 'badly_made:nothing'\n", "gave a NoneType"),
        ("data: 'badly_made:empty'\n", "gave no training samples"),
        ("data: 'badly_made:nope'\n", "has no 'nope'"),
        ("data: 'no_python:load'\n", "cannot be imported: SyntaxError"),
        ("data: 'nobody_has_this:load'\n", "ModuleNotFoundError"),
        # model and training
        (DIGITS + "model: 3\n", "'model' must be a name, or a mapping"),
        (DIGITS + "model: {name: mlp, hidden: [0]}\n", "hidden must be at least 1"),
        (DIGITS + "model: {name: mlp, hidden: 5}\n", "'hidden' must be a list"),
        (DIGITS + "model: 'badly_made:Plain'\n", "must be a torch.nn.Module"),
        (DIGITS + "training: {name: sgd, lr: .inf}\n", "lr must be a finite number"),
        (DIGITS + "training: {name: sgd, lr: fast}\n", "'lr' must be a number (it is 'fast')"),
        (DIGITS + "training: {name: sgd, epochs: 0}\n", "epochs must be at least 1"),
        (DIGITS + "training: {name: sgd, weighting: heavy}\n", "'weighting' must be 'samples'"),
        (DIGITS + "server_optimizer: {name: fedadam, lr: -1}\n", "lr must be above 0"),
        # layers
        (DIGITS + "bound: {name: clip, l2: .nan}\n", "l2 must be above 0"),
        (DIGITS + "bound: [clip]\n", "'bound' must be a name"),
        (DIGITS + "channel: 7\n", "'channel' must be a name"),
        (DIGITS + CLIP + "channel: {name: secagg, fidelity: perfect}\n", "'real' or 'ideal'"),
        (DIGITS + CLIP + "channel: {name: additive_sharing, servers: 1}\n", "servers must be at"),
        (DIGITS + CLIP + "mechanism: gaussian\n", "needs the key 'noise_multiplier'"),
        (DIGITS + CLIP + "mechanism: {name: gaussian, epsilon: -3}\n", "must be above 0"),
        (DIGITS + "aggregator: {name: krum, f: 1.5}\n", "'f' must be a whole number"),
        (DIGITS + "defences: [5]\n", "'defences' must be a name"),
        (DIGITS + "sampler: {name: poisson, rate: .nan}\n", "sampler.rate must lie in (0, 1]"),
        (DIGITS + "sampler: {name: fixed_size, size: 99}\n", "there are only 4 clients"),
        (DIGITS + "mail: pigeon\n", "'bare' or 'signed'"),
        (DIGITS + "threat: none\n", "'threat' must be a mapping of keys"),
        (DIGITS + "attacks: [{name: sign_flip, clients: [99]}]\n", "there is no client 99"),
        (DIGITS + "attacks: [{name: sign_flip, clients: [0.5]}]\n", "there is no client 0.5"),
        (DIGITS + "attacks: [{clients: [0]}]\n", "needs a 'name'"),
        (DIGITS + "attacks: [{name: sign_flip, fraction: .nan}]\n", "must lie in (0, 1]"),
        # groups of keys that may be left out
        (DIGITS + "early_stopping: 3\n", "'early_stopping' must be a mapping of keys or none"),
        (DIGITS + "early_stopping: {patience: 0}\n", "'early_stopping.patience' must be greater"),
        (DIGITS + "early_stopping: {patience: 1.5}\n", "'early_stopping.patience' must be a whole"),
        (DIGITS + "early_stopping: {least: .nan}\n", "'early_stopping.least'"),
        (DIGITS + "early_stopping: {least: x}\n", "'early_stopping.least' must be a number"),
        (DIGITS + "early_stopping: {patients: 3}\n", "did you mean 'early_stopping.patience'"),
        (DIGITS + "metrics: [a]\n", "'metrics' must be a mapping of keys"),
        (DIGITS + "metrics: {a: 5}\n", "'metrics.a' must be text (it is 5)"),
        (DIGITS + "metrics: {a: null}\n", "'metrics.a' must be text"),
        (DIGITS + "metrics: {a: 'badly_made:nope'}\n", "has no 'nope'"),
        (DIGITS + "users: 5\n", "'users' must be a mapping of keys or none (it is 5)"),
        (DIGITS + "users: {per_client: 3}\n", "'users.ids' is missing"),
        (DIGITS + "budget: 5\n", "'budget' must be a mapping of keys or none (it is 5)"),
        (DIGITS + NOISE + "budget: {epsilon: -1, ledger: x}\n", "'budget.epsilon' must be greater"),
        (DIGITS + NOISE + "budget: {epsilon: many, ledger: x}\n", "'budget.epsilon' must be a num"),
        (DIGITS + NOISE + "budget: {epsilon: 1}\n", "'budget.ledger' is missing"),
        (DIGITS + "audit: {delta: .nan}\n", "'audit.delta'"),
        (DIGITS + "audit: {keep: some}\n", "'audit.keep' must be 'auto', 'all', 'none'"),
        (DIGITS + "audit: {evaluate_every: 0}\n", "'audit.evaluate_every'"),
        (DIGITS + "start: own.csv\n", "'own.csv' holds no model"),
        (DIGITS + "device: tpu\n", "cannot use 'tpu'"),
        # what YAML and Python take for numbers, and people do not
        (f"rounds: 1{'0' * 5000}\n", "is no YAML: Exceeds the limit"),
        ("rounds: true\n", "'rounds' must be a whole number (it is True)"),
        ("rounds: 1:30\n", "'rounds' must be a whole number (it is '1:30')"),
        ("seed: 2024-01-01\n", "(it is '2024-01-01')"),
        ("audit: {keep: [0, true]}\n", "'audit.keep' must be 'auto', 'all', 'none' or a list"),
        (DIGITS + "model: {name: mlp, hidden: [true]}\n", "'hidden' must be a list of whole"),
        (DIGITS + CLIP + "mechanism: {name: gaussian, noise_multiplier: 1.0e+300}\n", "1e+30]"),
        (DIGITS + CLIP + "mechanism: {name: gaussian, noise_multiplier: 1.0e-320}\n", "1e+30]"),
        # a table that is tested with what it was trained on
        (OWN + ", test: ./own.csv}\n", "whose rows are trained on"),
        (OWN + ", classes: '01'}\n", "classes are a list"),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(here, text, said):
    path = here / "exp.yaml"
    path.write_text(text)
    with pytest.raises(PrivflError) as refused:
        Federation.from_config(path)
    words = str(refused.value)
    assert said in words
    assert "\n" not in words


def test_words_of_a_config_stay_as_they_are_written(here):
    """Post codes, times of day and days are labels, and numbers are numbers still."""
    (here / "exp.yaml").write_text(
        "a: [007, 010, 1:30, 2024-01-01, 0, -3, 1_000, 0x1f, .5, 1.0e-5]"
    )
    read = mapping_in(here / "exp.yaml")["a"]
    assert read == ["007", "010", "1:30", "2024-01-01", 0, -3, 1000, 31, 0.5, 1e-5]
