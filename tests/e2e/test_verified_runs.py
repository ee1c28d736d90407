"""`privfl verify`: the first round and file in which a run folder is not what its transcript says,
and what a transcript without a published head cannot show.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import ConfigError, DataCorrupt, Dataset, LocalPlan, SeededNoise
from privfl.dp import Clip, Gaussian
from privfl.engine import TRANSCRIPT, RunFolder, journal, read_chain, verify
from privfl.training import LocalSGD

ROUNDS = 4


class Killed(BaseException):
    """The process ends here."""


def data(seed, n=12):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.randn(n, 4, generator=rng), torch.arange(n) % 2, classes=2)


def federation(**parts):
    """A private run: it has every class of file but a config."""
    torch.manual_seed(0)
    noisy = {
        "bound": Clip(1.0),
        "training": LocalSGD(lr=0.1, plan=LocalPlan(4, steps=1), weighting="uniform"),
        "aggregator": Mean(weighted=False),
        "mechanism": Gaussian(1.0),
        "noise": SeededNoise(3),
    }
    made = {"rounds": ROUNDS, "executor": "sequential", **noisy, **parts}
    return Federation(nn.Linear(4, 2), [data(i) for i in range(4)], data(99), **made)


def killed(folder, round, **parts):
    def progress(record, rounds):
        if record.round == round:
            raise Killed

    with pytest.raises(Killed):
        federation(**parts).run(folder, progress=progress)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified") / "run"
    federation().run(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def lines_of(run):
    return (run / TRANSCRIPT).read_bytes().splitlines(keepends=True)


def test_a_run_as_it_was_written_is_whole_and_every_file_but_the_lock_is_covered(run):
    found = verify(run)
    assert found.whole, found.breaks
    assert (found.rounds, found.lines, found.ended) == (ROUNDS, ROUNDS + 2, True)
    assert found.uncovered == found.notes == ()
    assert found.head == read_chain(run / TRANSCRIPT)[-1].head


def test_a_flipped_bit_in_any_byte_of_any_file_is_found_and_its_file_is_named(run):
    files = [path for path in run.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 15  # every class: two checkpoints, ledgers, model, summary, public/
    for path in files:
        whole, name = path.read_bytes(), path.relative_to(run).as_posix()
        for at in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            torn = bytearray(whole)
            torn[at] ^= 4
            path.write_bytes(torn)
            broken = verify(run).breaks
            assert broken, f"{name}: byte {at}"
            assert name in {one.file for one in broken}, f"{name}: byte {at}: {broken}"
        path.write_bytes(whole)
    assert verify(run).whole


@pytest.mark.parametrize("name", ["rounds.jsonl", "ledger.jsonl", TRANSCRIPT])
@pytest.mark.parametrize("change", ["flip", "remove", "swap", "cut"])
def test_the_first_round_whose_line_was_touched_is_named(run, name, change):
    path, touched = run / name, 2
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if f'"round": {touched}'.encode() in line)
    if change == "flip":
        lines[first] = lines[first].replace(b'"', b"'", 1)
    elif change == "remove":
        del lines[first]
    elif change == "swap":
        lines[first], lines[first + 1] = lines[first + 1], lines[first]
    else:
        lines[first:] = [lines[first][: len(lines[first]) // 2]]
    path.write_bytes(b"".join(lines))
    found = [one for one in verify(run).breaks if one.file == name]
    assert found[0].round == touched, found


def test_a_transcript_whose_end_was_cut_off_alone_is_found(run):
    for left in range(1, ROUNDS + 2):
        torn = lines_of(run)[:left]
        (run / TRANSCRIPT).write_bytes(b"".join(torn))
        assert TRANSCRIPT in {one.file for one in verify(run).breaks}, left
        (run / TRANSCRIPT).write_bytes(b"".join(torn))


def test_a_deleted_transcript_is_a_finding_and_not_an_old_run(run):
    (run / TRANSCRIPT).unlink()
    assert verify(run).breaks[0].file == TRANSCRIPT


@pytest.mark.parametrize("name", ["model.safetensors", "rounds.jsonl", "fingerprint.json"])
def test_a_deleted_file_is_named(run, name):
    (run / name).unlink()
    if name == "fingerprint.json":
        (run / "config.yaml").write_text("")  # so that it still looks like a run
    assert name in {one.file for one in verify(run).breaks}


def test_an_end_cut_off_in_every_file_is_a_shorter_run_and_only_a_published_head_shows_it(
    tmp_path,
):
    """The folder as it was after round 1, put in the place of the one after round 3."""
    early = killed(tmp_path / "run", 1)
    before = verify(early)
    shutil.copytree(early, tmp_path / "copy")
    federation().run(early, resume=True)
    published = verify(early).head
    assert verify(early, published).whole
    assert verify(early, before.head).whole  # published in the middle: more lines came
    rolled_back = tmp_path / "copy"
    assert verify(rolled_back).whole
    found = verify(rolled_back, published).breaks
    assert [one.file for one in found] == [TRANSCRIPT]
    assert "does not hold the head" in found[0].what


def test_a_transcript_written_anew_is_another_run_and_only_a_published_head_shows_it(run, tmp_path):
    federation().run(tmp_path / "anew")
    assert verify(tmp_path / "anew").whole
    assert not verify(tmp_path / "anew", verify(run).head).whole


@pytest.mark.parametrize("killed_after", [0, 2])
def test_a_run_that_was_killed_and_resumed_is_whole_and_keeps_the_lines_of_both_lives(
    tmp_path, killed_after
):
    folder = killed(tmp_path / "run", killed_after)
    assert verify(folder).whole
    assert not verify(folder).ended
    federation().run(folder, resume=True)
    found = verify(folder)
    assert found.whole, found.breaks
    assert (found.rounds, found.lines) == (ROUNDS, ROUNDS + 3)


def test_a_round_that_is_played_again_leaves_both_of_its_lines(tmp_path):
    folder = killed(tmp_path / "run", 2)
    newest = max((folder / "checkpoint").glob("step-*"))
    shutil.rmtree(newest)  # so that it goes on from the state before, and plays round 2 again
    federation().run(folder, resume=True)
    found = verify(folder)
    assert found.whole, found.breaks
    assert [link.round for link in read_chain(folder / TRANSCRIPT) if link.kind == "round"] == [
        0, 1, 2, 2, 3,
    ]  # fmt: skip


def test_a_killed_run_is_not_resumed_over_a_transcript_that_was_touched(tmp_path):
    folder = killed(tmp_path / "run", 2)
    lines = lines_of(folder)
    (folder / TRANSCRIPT).write_bytes(b"".join(lines[:-1]))
    assert any("its end was cut off" in one.what for one in verify(folder).breaks)
    (folder / TRANSCRIPT).write_bytes(lines[0] + b"".join(lines[2:]))
    with pytest.raises(DataCorrupt, match=r"transcript.jsonl' is not .* does not follow"):
        federation().run(folder, resume=True)


def test_a_line_that_a_kill_cut_short_is_dropped_and_the_round_played_again(tmp_path):
    folder = killed(tmp_path / "run", 1)
    with (folder / TRANSCRIPT).open("ab") as file:
        file.write(b'{"entry": "round", "round": 2, "mod')
    found = verify(folder)
    assert found.whole, found.breaks
    assert "line 4 does not end" in found.notes[0]
    federation().run(folder, resume=True)
    assert verify(folder).whole


@pytest.mark.parametrize(
    ("where", "name", "after"),
    [
        (RunFolder, "begin", 0),
        (journal, "write_atomically", 0),
        (journal, "write_atomically", 2),
        (RunFolder, "publish", 0),
        (Path, "replace", "summary.json"),
    ],
    ids=["before the first line", "a first charge", "a charge", "publishing", "its last name"],
)
def test_a_kill_between_two_writes_is_no_finding_and_the_run_ends_whole(
    tmp_path, monkeypatch, where, name, after
):
    """The process ends there and cleans nothing up."""
    real, calls = getattr(where, name), []

    def until(*args):
        calls.append(args)
        if after == args[-1].name if isinstance(after, str) else len(calls) > after:
            raise Killed
        return real(*args)

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(where, name, until)
        with pytest.raises(Killed):
            federation().run(folder)
    found = verify(folder)
    assert found.whole, found.breaks
    assert found.notes
    federation().run(folder, resume=True)
    found = verify(folder)
    assert found.whole, found.breaks
    assert (found.rounds, found.ended, found.notes, found.uncovered) == (ROUNDS, True, (), ())


def test_an_older_hash_beside_the_ledger_of_a_run_that_ended_is_found(run):
    lines = (run / "ledger.jsonl").read_bytes().splitlines()
    older = lines[-2].rpartition(b'"chain": "')[2].removesuffix(b'"}')
    (run / "ledger.jsonl.head").write_bytes(older)
    assert [one.file for one in verify(run).breaks] == ["ledger.jsonl.head"]


@pytest.mark.parametrize("step", [ROUNDS - 1, ROUNDS])
def test_a_checkpoint_that_was_taken_out_is_found(run, step):
    shutil.rmtree(run / "checkpoint" / f"step-{step:08d}")
    assert all(f"step-{step:08d}" in one.file for one in verify(run).breaks)
    assert not verify(run).whole


# ---- hostile folders


def _chained(run, **line):
    """A transcript of one line that hangs together and says what it likes."""
    body = json.dumps({"entry": "begin", "round": 0, "model": "", "covers": {}, **line})[:-1]
    body = body.replace('"deep"', "[" * 100_000 + "]" * 100_000)
    head = hashlib.sha256(b"\n".join((b"privfl/1/transcript", b"", body.encode()))).hexdigest()
    (run / TRANSCRIPT).write_text(f'{body}, "chain": "{head}"}}\n')


@pytest.mark.parametrize(
    "line",
    [
        {"round": float("inf")},
        {"round": -1},
        {"entry": "deep"},
        {"entry": ["begin"]},
        {"covers": {"rounds.jsonl": {"bytes": 3}}},
        {"covers": {"rounds.jsonl": {"bytes": -3, "sha256": ""}}},
        {"covers": {"rounds.jsonl": {"bytes": "x", "sha256": ""}}},
        {"covers": {"../outside": {"sha256": ""}}},
        {"covers": {"/etc/hostname": {"sha256": ""}}},
        {"covers": ["rounds.jsonl"]},
    ],
    ids=str,
)
def test_a_line_that_is_no_entry_is_a_finding_and_no_traceback(run, line):
    _chained(run, **line)
    first = verify(run).breaks[0]
    assert first.file == TRANSCRIPT
    assert "line 1 is no entry of a transcript" in first.what


@pytest.mark.parametrize(
    "name",
    [
        "rounds.jsonl", "ledger.jsonl", "ledger.jsonl.head", TRANSCRIPT, "summary.json",
        "checkpoint/step-00000004/manifest.json", "checkpoint/step-00000009/manifest.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("what", ["pipe", "folder", "zeros without end"])
def test_what_is_no_file_is_a_finding_and_nobody_waits_for_it(run, name, what):
    path = run / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert name.removesuffix("/manifest.json") in str(verify(run).breaks)


def test_strange_names_among_the_checkpoints_are_findings(run):
    (run / "checkpoint" / "step-²").mkdir()
    assert [one.file for one in verify(run).breaks] == ["checkpoint/step-²"]


def test_every_letter_that_was_delivered_is_in_its_line_with_its_hash(tmp_path):
    made = federation(rounds=1).run(tmp_path / "run")
    told = json.loads(lines_of(tmp_path / "run")[1])["letters"]
    kept = made.transcript(0).carried.messages
    assert told == [
        [m.exchange, m.sender, m.receiver, m.size, hashlib.sha256(m.body).hexdigest()] for m in kept
    ]
    assert len(told) == 4


def test_two_equal_runs_have_different_heads_so_that_a_head_gives_nothing_away(tmp_path, run):
    federation().run(tmp_path / "again")
    lines = [lines_of(tmp_path / "again")[0], lines_of(run)[0]]
    assert lines[0] != lines[1]
    assert b'"salt": "' in lines[0]


def test_without_a_folder_nothing_is_hashed():
    kept = federation(rounds=1).run().transcript(0).carried.messages
    assert {letter.digest for letter in kept} == {None}


def test_the_command_names_the_round_and_prints_the_head(run, privfl):
    done = privfl("verify", run)
    assert done.returncode == 0, done.stderr
    head = verify(run).head
    assert head in done.stderr + done.stdout
    assert "order, and not honesty" in done.stderr + done.stdout
    assert privfl("verify", run, "--head", head).returncode == 0
    assert privfl("verify", run, "--head", "0" * 64).returncode == 1
    assert privfl("verify", run, "--head", "abc").returncode == 2
    log = run / "rounds.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"round": 1', b'"round": 7'))
    done = privfl("verify", run)
    assert done.returncode == 1
    assert "round 1, rounds.jsonl: was changed" in done.stderr + done.stdout


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        verify(tmp_path)
