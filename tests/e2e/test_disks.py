"""Runs on disks that lose power, fill up, or may only be read."""

import contextlib
import os
import resource
import shutil
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import CannotWrite, ConfigError, Dataset, Faults, LocalPlan, SeededNoise
from privfl.dp import Clip, Gaussian
from privfl.engine import read_ledger
from privfl.training import LocalSGD


def federation(**parts):
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    held = [
        Dataset(torch.randn(8, 4, generator=rng), torch.arange(8) % 2, classes=2) for _ in range(3)
    ]
    parts = {
        "training": LocalSGD(lr=0.1, plan=LocalPlan(4, steps=1), weighting="uniform"),
        "rounds": 3,
        "executor": "sequential",
        **parts,
    }
    return Federation(nn.Linear(4, 2), held, held[0], **parts)


NOISY = {
    "bound": Clip(1.0),
    "aggregator": Mean(weighted=False),
    "mechanism": Gaussian(1.0),
    "noise": SeededNoise(3),
}


def same(one, other):
    return torch.equal(one.parameters.view(torch.int32), other.parameters.view(torch.int32))


# ---- power


class Disk:
    """What a disk has kept at every moment at which the power could fail: the content of a file as
    it was last synced, and the names in a folder as these were (``late``: at once, as disks may
    do them before any content).
    """

    def __init__(self, root, monkeypatch):
        self.root, self.kept, self.trees, self.begun = Path(root), {}, [], 0
        self.open = []  # so that no other file gets the number of one that is gone
        fsync = os.fsync

        def synced(descriptor):
            self.fails()
            fsync(descriptor)
            self.keep(descriptor)
            self.fails()

        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self.watched(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", synced)

    def watched(self, change):
        def changed(*names, **more):
            self.fails()
            change(*names, **more)
            self.fails()

        return changed

    def keep(self, descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        self.open.append(os.open(path, os.O_RDONLY))  # a copy would hold on to its lock
        inode = os.fstat(descriptor)
        if stat.S_ISDIR(inode.st_mode):
            self.kept[inode.st_ino] = {e.name: (e.inode(), e.is_dir()) for e in os.scandir(path)}
        else:
            self.kept[inode.st_ino] = path.read_bytes()

    def fails(self):
        """The power fails now: two things may be left."""
        for tree in (self.strictly(self.root.stat().st_ino), self.lately(self.root)):
            if all(tree != known for _, known in self.trees[-4:]):
                self.trees.append((self.begun, tree))

    def close(self):
        for descriptor in self.open:
            os.close(descriptor)

    def strictly(self, inode):
        return {
            name: self.strictly(at) if folder else self.kept.get(at, b"")
            for name, (at, folder) in self.kept.get(inode, {}).items()
        }

    def lately(self, folder):
        return {
            e.name: self.lately(e.path) if e.is_dir() else self.kept.get(e.inode(), b"")
            for e in os.scandir(folder)
        }


def written(tree, folder):
    folder.mkdir()
    for name, held in tree.items():
        if isinstance(held, dict):
            written(held, folder / name)
        else:
            (folder / name).write_bytes(held)


@dataclass
class Notes:
    """A party whose first step in a round says that the round's messages have begun."""

    honest: Any
    disk: Any

    def step(self, mail):
        self.disk.begun = self.disk.played + 1
        return self.honest.step(mail)


def test_no_loss_of_power_loses_a_charge_of_a_round_whose_messages_had_begun(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    disk.played = 0

    def progress(record, rounds):
        disk.played += 1

    faults = Faults(byzantine={"client/0": lambda honest: Notes(honest, disk)})
    federation(**NOISY).run(tmp_path / "disk" / "run", progress=progress, faults=faults)
    monkeypatch.undo()
    disk.close()
    assert {begun for begun, _ in disk.trees} == {0, 1, 2, 3}
    for number, (begun, tree) in enumerate(disk.trees):
        written(tree, tmp_path / str(number))
        run = tmp_path / str(number) / "run"
        charges = read_ledger(run).charges if (run / "ledger.jsonl").exists() else ()
        assert {charge.round for charge in charges} >= set(range(begun)), number
        shutil.rmtree(tmp_path / str(number))


def test_a_run_goes_on_from_whatever_a_loss_of_power_leaves(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    whole = federation().run(tmp_path / "disk" / "run")
    monkeypatch.undo()
    disk.close()
    assert len(disk.trees) > 40
    began = 0
    for number, (_, tree) in enumerate(disk.trees):
        written(tree, tmp_path / str(number))
        run = tmp_path / str(number) / "run"
        if (run / "fingerprint.json").exists():
            began += 1
            again = federation().run(run, resume=True)
        else:  # nothing had begun: what is left is no run, and is said to be none
            with pytest.raises(ConfigError, match=r"holds no"):
                federation().run(run, resume=True)
            shutil.rmtree(run, ignore_errors=True)
            again = federation().run(run)
        assert same(again, whole), number
        assert len(again.history) == 3
        shutil.rmtree(tmp_path / str(number))
    assert began > 30


# ---- full and read-only disks


@contextlib.contextmanager
def at_most(size):
    """No file grows beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [0, 200, 800, 1500, 2500])
def test_a_full_disk_ends_a_run_in_a_sentence_and_it_goes_on_when_there_is_room(tmp_path, size):
    whole = federation(rounds=6).run()
    with at_most(size), pytest.raises(CannotWrite, match=r"cannot write '.*File too large"):
        federation(rounds=6).run(tmp_path / "run")
    assert not list(tmp_path.rglob("*draft*"))
    if not (tmp_path / "run" / "fingerprint.json").exists():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        assert same(federation(rounds=6).run(tmp_path / "run"), whole)
    else:
        assert same(federation(rounds=6).run(tmp_path / "run", resume=True), whole)


def test_a_ledger_that_cannot_be_written_ends_a_run_before_its_messages(tmp_path):
    def full(record, rounds):
        resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.stat().st_size + 5, hard))

    ledger = tmp_path / "run" / "ledger.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with at_most(1 << 20), pytest.raises(ConfigError, match="no round may begin"):
        federation(**NOISY).run(tmp_path / "run", progress=full)
    run = federation(**NOISY).run(tmp_path / "run", resume=True)
    assert [charge.round for charge in run.ledger.charges] == [0, 1, 2]
    assert soft == resource.getrlimit(resource.RLIMIT_FSIZE)[0]


@pytest.fixture
def powerless():
    """A folder of somebody else's, for a user who may only read it."""
    folder = Path(tempfile.mkdtemp(prefix="privfl-test-"))
    folder.chmod(0o755)
    (folder / "mine").mkdir(mode=0o555)
    (folder / "mine").chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder / "mine"
    if root:
        os.seteuid(0)
    (folder / "mine").chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_may_only_be_read_is_refused_in_a_sentence(powerless):
    for out in (powerless, powerless / "run"):
        with pytest.raises(CannotWrite, match="Permission denied"):
            federation().run(out)
    assert not list(powerless.iterdir())


def test_a_file_in_the_place_of_a_folder_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        federation().run(tmp_path / "file")
    with pytest.raises(CannotWrite, match="File exists"):
        federation().run(tmp_path / "file" / "run")
