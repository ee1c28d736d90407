"""A run goes on as the run that it was, or not at all: other parts, other data, another writer,
damaged files and files that name code are refused in a sentence.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean, Median
from privfl.attacks import Foretold
from privfl.core import ConfigError, DataCorrupt, Dataset, Faults, LocalPlan, SeededNoise
from privfl.dp import Clip, Gaussian
from privfl.engine import Attacker, RunFolder, checkpoint
from privfl.training import LocalSGD


class Killed(BaseException):
    """The process ends here."""


def data(seed, n=12):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.randn(n, 4, generator=rng), torch.arange(n) % 2, classes=2)


def federation(clients=4, first=0, model_seed=0, hidden=0, **parts):
    torch.manual_seed(model_seed)
    layers = [nn.Linear(4, hidden), nn.Linear(hidden, 2)] if hidden else [nn.Linear(4, 2)]
    parts = {
        "training": LocalSGD(lr=0.1, plan=LocalPlan(4, steps=1)),
        "rounds": 5,
        "executor": "sequential",
        **parts,
    }
    held = [data(first + i) for i in range(clients)]
    return Federation(nn.Sequential(*layers), held, data(99), **parts)


def after(round):
    def progress(record, rounds):
        if record.round == round:
            raise Killed

    return progress


def cut(folder, round=1, **parts):
    """A run folder whose run was killed after this round."""
    faults = parts.pop("faults", None)
    with pytest.raises(Killed):
        federation(**parts).run(folder, progress=after(round), faults=faults)
    return folder


def same(one, other):
    return torch.equal(one.parameters.view(torch.int32), other.parameters.view(torch.int32))


NOISY = {
    "bound": Clip(1.0),
    "training": LocalSGD(lr=0.1, plan=LocalPlan(4, steps=1), weighting="uniform"),
    "aggregator": Mean(weighted=False),
    "mechanism": Gaussian(1.0),
    "noise": SeededNoise(3),
}


# ---- another run


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"training": LocalSGD(lr=0.2, plan=LocalPlan(4, steps=1))}, r"training\.lr is 0\.1 there"),
        ({"aggregator": Median()}, r"aggregator is privfl\.aggregators\.mean:Mean there"),
        ({"aggregator": Mean(weighted=False)}, r"aggregator\.weighted is True there"),
        ({"first": 1}, r"data\.x is float32 \[48, 4\]"),
        ({"clients": 5}, r"clients is mapping of 0, 1, 2, 3 there"),
        ({"hidden": 3}, r"model is torch\.nn\S+ \S+ there"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"rounds": 6}, "rounds is 5 there and 6 here"),
        ({"bound": Clip(1.0)}, r"bound is privfl\.dp\.\w+:NoBound there"),
        ({"loss": lambda logits, y: logits.sum()}, r"loss is privfl\.\w+"),
        ({"threads": 2}, "threads is 1 there and 2 here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_run_is_not_resumed_with_other_parts(tmp_path, other, words):
    cut(tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=words):
        federation(**other).run(tmp_path / "run", resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_is_not_resumed_with_other_faults_on_the_wire(tmp_path):
    cut(tmp_path / "run", faults=Faults(silent_from={"client/1": 0}))
    with pytest.raises(ConfigError, match=r"faults\.silent_from"):
        federation().run(tmp_path / "run", resume=True)
    federation().run(tmp_path / "run", resume=True, faults=Faults(silent_from={"client/1": 0}))


def test_a_run_is_not_resumed_by_other_versions(tmp_path):
    path = cut(tmp_path / "run") / "fingerprint.json"
    path.write_text(path.read_text().replace(torch.__version__, "1.0.0"))
    with pytest.raises(ConfigError, match=r"versions\.torch is '1\.0\.0' there"):
        federation().run(tmp_path / "run", resume=True)


def test_the_same_parts_made_again_go_on_to_the_same_numbers(tmp_path):
    cut(tmp_path / "run", **NOISY)
    resumed = federation(**NOISY).run(tmp_path / "run", resume=True)
    whole = federation(**NOISY).run(tmp_path / "whole")
    assert same(resumed, whole)
    assert [r.round for r in resumed.history] == list(range(5))
    assert resumed.ledger == whole.ledger


def test_a_lie_that_remembers_models_and_rows_goes_on_after_a_kill(tmp_path):
    """Also in the round in which the first pair of changes is half made."""
    parts = {"attackers": [Attacker("f", Foretold(window=2), frozenset({0}))], "rounds": 6}
    whole = federation(**parts).run()
    assert not same(whole, federation(rounds=6).run())
    for round in (0, 1, 3):
        folder = cut(tmp_path / str(round), round, **parts)
        assert same(federation(**parts).run(folder, resume=True), whole)


def test_a_resumed_run_starts_from_its_own_model_whatever_the_one_it_is_given_holds(tmp_path):
    cut(tmp_path / "run", 0)
    for step in steps(tmp_path / "run")[1:]:
        (step / "state.json").unlink()  # back to before the first round
    resumed = federation(model_seed=7).run(tmp_path / "run", resume=True)
    assert same(resumed, federation().run())


@pytest.mark.parametrize("round", [0, 2])
def test_the_same_federation_goes_on_with_the_run_that_it_began(tmp_path, round):
    made = federation()
    with pytest.raises(Killed):
        made.run(tmp_path / "run", progress=after(round))
    assert same(made.run(tmp_path / "run", resume=True), federation().run())


def test_a_run_that_was_put_together_in_python_is_not_resumed_by_the_command(privfl, tmp_path):
    """It trained the default config in its place once."""
    cut(tmp_path / "run")
    for verb in (["run", "--resume"], ["audit"]):
        done = privfl(*verb, tmp_path / "run")
        assert done.returncode == 2
        assert "put together in Python" in done.stderr
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 2


def test_a_rule_whose_code_is_another_one_is_another_rule(tmp_path):
    class First(Mean):
        def __call__(self, opened):
            return 1.0 * super().__call__(opened)

    first = First
    cut(tmp_path / "run", aggregator=first())

    class First(Mean):
        def __call__(self, opened):
            return 2.0 * super().__call__(opened)

    with pytest.raises(ConfigError, match="First"):
        federation(aggregator=First()).run(tmp_path / "run", resume=True)
    federation(aggregator=first()).run(tmp_path / "run", resume=True)


class Plainly:
    """A loss that is an object of a class of its own."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, module, x, y):
        return self.factor * nn.functional.cross_entropy(module(x), y)


def test_what_a_loss_of_ones_own_holds_is_part_of_the_run(tmp_path):
    cut(tmp_path / "run", loss=Plainly(1.0))
    with pytest.raises(ConfigError, match=r"loss\.factor is 1\.0 there and 2\.0 here"):
        federation(loss=Plainly(2.0)).run(tmp_path / "run", resume=True)
    federation(loss=Plainly(1.0)).run(tmp_path / "run", resume=True)


# ---- one writer


def test_two_do_not_write_to_one_run(tmp_path):
    asked = []

    def second(record, rounds):
        with pytest.raises(ConfigError, match="another process is writing"):
            federation().run(tmp_path / "run", resume=True)
        with pytest.raises(ConfigError, match="not empty"):
            federation().run(tmp_path / "run")
        asked.append(record.round)

    federation(rounds=2).run(tmp_path / "run", progress=second)
    assert asked == [0, 1]
    federation(rounds=2).run(tmp_path / "run", resume=True)  # it has ended, and let go


def test_a_new_folder_that_another_one_just_took_is_left_alone(tmp_path):
    taken = RunFolder.create(tmp_path / "run", None)
    (tmp_path / "run" / "fingerprint.json").unlink()  # as before its first file
    with pytest.raises(ConfigError, match="another process is writing"):
        federation().run(tmp_path / "run")
    taken.close()


# ---- damaged files


def steps(folder):
    return sorted((folder / "checkpoint").glob("step-*"))


def test_two_generations_are_kept(tmp_path):
    assert [path.name for path in steps(cut(tmp_path / "run", 3))] == [
        "step-00000003",
        "step-00000004",
    ]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "gone"])
def test_the_checkpoint_before_a_damaged_one_is_used_and_the_run_says_so(tmp_path, name, harm):
    cut(tmp_path / "run", 2, **NOISY)
    path = steps(tmp_path / "run")[-1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    harmed = {"flipped": bytes(content), "cut": bytes(content[:-5]), "empty": b""}
    path.unlink() if harm == "gone" else path.write_bytes(harmed[harm])
    run = federation(**NOISY).run(tmp_path / "run", resume=True)
    assert same(run, federation(**NOISY).run())
    said = [line for line in run.summary["warnings"] if "damaged" in line]
    assert len(said) == 1
    assert name in said[0]
    assert [r.round for r in run.history] == list(range(5))
    assert [charge.round for charge in run.ledger.charges].count(2) in (1, 2)
    assert not any(
        "damaged" in line
        for line in json.loads((tmp_path / "run" / "public" / "statement.json").read_text())[
            "warnings"
        ]
    )


def test_where_no_checkpoint_is_whole_it_is_said_in_a_sentence(tmp_path, privfl, config):
    cut(tmp_path / "run")
    for step in steps(tmp_path / "run"):
        (step / "state.json").write_bytes(b"{}")
    with pytest.raises(DataCorrupt, match=r"state\.json is not what was.*begin the run anew"):
        federation().run(tmp_path / "run", resume=True)


def test_a_log_that_lost_a_round_is_noticed(tmp_path):
    log = cut(tmp_path / "run", 2) / "rounds.jsonl"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))  # the last one never got to disk
    run = federation().run(tmp_path / "run", resume=True)
    assert [r.round for r in run.history] == list(range(5))
    assert any("rounds.jsonl" in line for line in run.summary["warnings"])


def test_a_log_with_a_line_of_another_run_is_refused(tmp_path):
    log = cut(tmp_path / "run", 2) / "rounds.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"cohort": 4', b'"cohort": 3'))
    with pytest.raises(DataCorrupt, match=r"rounds\.jsonl"):
        federation().run(tmp_path / "run", resume=True)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    cut(tmp_path / "run")
    cut(tmp_path / "other", seed=1)
    for step in steps(tmp_path / "run"):
        for file in step.iterdir():
            file.write_bytes(
                (tmp_path / "other" / "checkpoint" / step.name / file.name).read_bytes()
            )
    with pytest.raises(DataCorrupt, match="another run's"):
        federation().run(tmp_path / "run", resume=True)


def test_what_was_logged_and_not_yet_checkpointed_is_played_again(tmp_path):
    folder = cut(tmp_path / "run", 2)
    for path in steps(folder)[-1].iterdir():
        path.unlink()
    steps(folder)[-1].rmdir()
    with (folder / "rounds.jsonl").open("ab") as log:
        log.write(b'{"round": 3, "coh')  # killed in the middle of a line
    run = federation().run(folder, resume=True)
    assert same(run, federation().run())
    assert [r.round for r in run.history] == list(range(5))


# ---- no code from a checkpoint


def planted(folder, named, fields):
    """A whole checkpoint whose JSON names something: hashes and all, as an attacker makes it."""
    cut(folder)
    state = {"dataclass": named, "fields": fields}
    about = json.loads((steps(folder)[-1] / "manifest.json").read_text())["about"]
    packed = json.dumps(state).encode()
    for step in steps(folder):
        number = int(step.name.split("-")[1])
        checkpoint.save(folder / "checkpoint", number, None, about)
    path = steps(folder)[-1]
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "state.json").write_bytes(packed)
    manifest["files"]["state.json"] = hashlib.sha256(packed).hexdigest()
    manifest.pop("sha256")
    body = {key: manifest[key] for key in ("step", "about", "files")}
    (path / "manifest.json").write_bytes(checkpoint._manifest(body))
    for old in steps(folder)[:-1]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()


def test_a_checkpoint_imports_no_module_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "planted_code.py").write_text(
        "from pathlib import Path\nfrom dataclasses import dataclass\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n@dataclass\nclass State:\n    x: int = 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    planted(tmp_path / "run", "planted_code:State", {"x": 1})
    with pytest.raises(DataCorrupt, match="no part of this run"):
        federation().run(tmp_path / "run", resume=True)
    assert not (tmp_path / "ran").exists()
    assert "planted_code" not in sys.modules


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("privfl.cli.__main__:State", {}),
        ("privfl.core.randomness:os.path", {}),
        ("privfl.engine.folder:Path", {}),
        ("privfl.core:nothing", {}),
        ("privfl.core.update:Bounded.limit", {}),
        ("privfl.core.privacy:Sampling", {"__class__": 3}),
        ("privfl.core.privacy:Sampling", {"scheme": "all"}),
        ("privfl.core.sealed_state:StateKey", {}),
        ("subprocess:Popen", {"args": "touch x"}),
        ("", {}),
    ],
)
def test_a_checkpoint_makes_dataclasses_of_this_run_and_nothing_else(tmp_path, named, fields):
    planted(tmp_path / "run", named, fields)
    loaded = set(sys.modules)
    with pytest.raises(DataCorrupt, match="damaged"):
        federation().run(tmp_path / "run", resume=True)
    assert set(sys.modules) == loaded


class Pair(NamedTuple):
    one: int
    other: int


def test_what_would_not_come_back_as_it_was_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(TypeError, match="Pair cannot be checkpointed"):
        checkpoint.save(tmp_path, 1, {"rule": Pair(1, 2)})
    assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize("edit", [{"files": 5}, {"about": None}, {"step": "x"}, {"step": 7}])
def test_a_manifest_that_was_written_anew_is_a_damaged_one(tmp_path, edit):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    path = tmp_path / "step-00000002" / "manifest.json"
    told = {**json.loads(path.read_text()), **edit}
    del told["sha256"]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**told, "sha256": digest}))
    found = checkpoint.load(tmp_path)
    assert (found.state, len(found.damaged)) == ({"step": 1}, 1)


def test_a_whole_checkpoint_that_holds_no_state_of_a_run_is_refused(tmp_path):
    planted(tmp_path / "run", "privfl.core.privacy:Neighbours", {"unit": "client", "relation": "x"})
    with pytest.raises(DataCorrupt, match="no state of a run"):
        federation().run(tmp_path / "run", resume=True)


def test_the_folder_of_a_run_in_python_has_no_config(tmp_path):
    folder = Path(cut(tmp_path / "run"))
    assert not (folder / "config.yaml").exists()
    assert (folder / "fingerprint.json").exists()
