"""A run folder: everything about a run that a person, a report or a resumed run needs, written so
that a kill leaves it whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import safetensors.torch

from privfl.core import Charge, ConfigError, DataCorrupt, Ledger, Transcript, Vector
from privfl.engine import checkpoint
from privfl.engine.chain import (
    TRANSCRIPT,
    Growing,
    Kind,
    TranscriptChain,
    covered,
    facts_of_round,
    read_chain,
    whole_of,
)
from privfl.engine.files import (
    LOCK,
    append_synced,
    make_folder,
    refuse_full,
    said,
    sync_folder,
    write_atomically,
)
from privfl.engine.fingerprint import difference
from privfl.engine.journal import Journal
from privfl.engine.records import RoundRecord
from privfl.engine.state import RunState

JOURNAL, CONFIG, FINGERPRINT = "ledger.jsonl", "config.yaml", "fingerprint.json"
LOG, CHECKPOINT = "rounds.jsonl", "checkpoint"
PUBLIC, README = "public", "README.md"
SUMMARY, SUMMARY_DRAFT = "summary.json", ".summary.json.draft"
AT_THE_END = ("ledger.json", "model.safetensors", SUMMARY)
"""What a run that has ended leaves beside ``public/``."""
PRIVATE_README = f"""# A run that claims differential privacy

Publish `{PUBLIC}/` alone: its statement covers what it holds. It is there once the run has ended;
copy it out of this folder, which its owner alone can read (mode 0700).

Everything else here is on the private side, and no epsilon counts it. It is computed from the
clients' data without noise, or shows who took part in a round:

| file | shows |
| --- | --- |
| `rounds.jsonl` | cohort sizes, drop-outs, training losses, traffic, times, test accuracy; what \
defences made of each client that was drawn, from its row without noise |
| `summary.json`, `report.html`, `*.svg`, `*.csv` | the same, and clients' accuracies and label \
counts |
| `ledger.json`, `ledger.jsonl` | charges by round, with cohorts where a seed draws them |
| `config.yaml` | the run's seed, from which cohorts can be drawn again unless they are secret |
| `fingerprint.json` | hashes of the clients' data, from which small ones can be guessed |
| `checkpoint/` | what clients and the server remember |
| `transcript.jsonl` | who sent how much to whom, and hashes of it, from which small changes \
can be guessed; the hash of its last line says nothing of this, and may be published |
| `dp_audit.json` | what an audit found by attacking the run |
| `inspect.json`, `inspect.html` | what an inspection of the model found, with clean samples |
"""


class RunFolder:
    """``fingerprint.json``, ``config.yaml`` (where a config describes the run), ``rounds.jsonl``,
    ``ledger.jsonl`` (where there is noise), ``checkpoint/`` and ``transcript.jsonl``, a chain of
    hashes that covers them (`verify`); at the end ``ledger.json``, ``summary.json`` and
    ``model.safetensors``.

    The ``journal`` is ahead of all else: a round is charged in it before its first message. The
    folder of a run that claims privacy is readable by its owner alone, says so in ``README.md``,
    and has at the end ``public/``, all that may be published.

    One process writes to it at a time: whoever `create`s or `lock`s it, until it ends or `close`s
    it. To read it takes no lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / JOURNAL)
        self.damaged: tuple[str, ...] = ()
        self._lock: IO[bytes] | None = None
        self._about: Mapping[str, Any] = {}
        self._logged, self._log_hash = 0, hashlib.sha256()
        self.chain = TranscriptChain(path / TRANSCRIPT)
        self._spent = Growing(path / JOURNAL)
        self._step: Path | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        config: str | None,
        fingerprint: Mapping[str, str] = MappingProxyType({}),
        *,
        private: bool = False,
    ) -> RunFolder:
        """A new run folder, locked; ``config`` None where no config describes the run. A
        ``private`` one is its owner's before anything is written into it.

        Raises:
            ConfigError: the folder holds something already, another process begins a run there, or
                it cannot be kept from others.
            CannotWrite: it cannot be made or written to.
        """
        refuse_full(path, "run")
        with said(path):
            make_folder(path)
        folder = cls(path)
        folder.lock()
        try:
            refuse_full(path, "run")  # another one was faster
            if private:
                folder.keep_private()
            if config is not None:
                write_atomically(path / CONFIG, config)
            write_atomically(path / FINGERPRINT, json.dumps(dict(fingerprint), indent=1))
        except BaseException:
            folder.close()
            raise
        folder._of(fingerprint)
        return folder

    def lock(self) -> None:
        """Keep other processes from writing here.

        Raises:
            ConfigError: one does so.
            CannotWrite: nothing can be locked here.
        """
        with said(self.path / LOCK):
            file = (self.path / LOCK).open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise ConfigError(
                    f"another process is writing to '{self.path}': wait until it has ended, or end"
                    " it. One run has one writer."
                ) from None
            except BaseException:
                file.close()
                raise
        self._lock = file

    def close(self) -> None:
        """Let others write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def refuse_another(self, fingerprint: Mapping[str, str]) -> None:
        """Refuse to go on with another run than the one that began here.

        Raises:
            ConfigError: it is another one, or nobody knows which.
            DataCorrupt: the fingerprint cannot be read.
        """
        if not (self.path / FINGERPRINT).exists():
            raise ConfigError(
                f"'{self.path}' holds no {FINGERPRINT}, so nobody can tell which run began there:"
                " it was killed before it had begun, or is of an earlier version. Begin it anew in"
                " another folder."
            )
        try:
            began = dict(json.loads((self.path / FINGERPRINT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataCorrupt(f"'{self.path / FINGERPRINT}' cannot be read: {error}.") from None
        differs = difference(began, fingerprint)
        if differs:
            raise ConfigError(
                f"the run in '{self.path}' is another one, and going on with it would leave a"
                f" record of neither: {differs}. Resume it with the parts that it began with, or"
                " begin this one in a folder of its own."
            )
        self._of(fingerprint)

    def _of(self, fingerprint: Mapping[str, str]) -> None:
        whole = json.dumps(dict(fingerprint), sort_keys=True)
        self._about = {"run": hashlib.sha256(whole.encode()).hexdigest()}

    def keep_private(self) -> None:
        """Let the owner alone read the folder, and say in it what of it may be published.

        Raises:
            ConfigError: its permissions cannot be changed.
        """
        try:
            self.path.chmod(0o700)
        except OSError as error:
            raise ConfigError(
                f"the run claims privacy, and '{self.path}' cannot be kept from other readers:"
                f" {error.strerror or error}. Give --out a folder of your own."
            ) from None
        write_atomically(self.path / README, PRIVATE_README)

    def publish(self, files: Mapping[str, str | bytes]) -> None:
        """Make ``public/`` of these files, and of nothing that lay there before."""
        draft, done = self.path / f".{PUBLIC}-{os.getpid()}", self.path / PUBLIC
        with said(done):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            for name, content in files.items():
                write_atomically(draft / name, content)
            shutil.rmtree(done, ignore_errors=True)
            draft.rename(done)
            sync_folder(self.path)

    def restore(self, packages: Collection[str] = ()) -> tuple[RunState | None, list[RoundRecord]]:
        """The newest whole state and the rounds before it; rounds that were logged after it are
        forgotten and played again. Their charges are not: what was sent cannot be taken back.
        ``damaged`` then says which newer states were lost; ``packages`` are those whose states the
        run's parts leave beside privfl's.

        Raises:
            DataCorrupt: no checkpoint is whole, or the log or the transcript is not.
        """
        self.chain.catch_up()
        heads = {link.head for link in read_chain(self.chain.path)}
        fits = partial(self._why_not, heads=heads)
        found = checkpoint.load(self.path / CHECKPOINT, packages, fits)
        if found is not None and not isinstance(found.state, RunState):
            raise DataCorrupt(f"the checkpoint in '{self.path}' holds no state of a run.")
        log = self.path / LOG
        kept = int(found.about.get("log", 0)) if found is not None else 0
        content = log.read_bytes()[:kept] if log.exists() else b""
        self.journal.mend_head()
        for ended in ("ledger.json", SUMMARY, SUMMARY_DRAFT):  # of a run that ended, and goes on
            (self.path / ended).unlink(missing_ok=True)
        if log.exists():
            write_atomically(log, content)
        self._logged, self._log_hash = len(content), hashlib.sha256(content)
        if found is None:
            return None, []
        self.damaged = found.damaged
        self._step = checkpoint.step_of(self.path / CHECKPOINT, found.step)
        self.chain.add("resume", found.state.round, found.state.parameters, self._covered())
        lines = content.decode().splitlines()
        return found.state, [RoundRecord.from_json(json.loads(line)) for line in lines]

    def _why_not(self, about: Mapping[str, Any], heads: Collection[str]) -> str:
        """Why a checkpoint is not one of this run, its log and its transcript."""
        if self._about and about.get("run") != self._about["run"]:
            return "it is another run's"
        length, log = int(about.get("log", 0)), self.path / LOG
        content = log.read_bytes()[:length] if log.exists() else b""
        if len(content) < length or hashlib.sha256(content).hexdigest() != about.get("log sha256"):
            return f"the rounds before it are not in {LOG} as they were written"
        if about.get("chain") not in heads:
            return f"what was written to {TRANSCRIPT} before it is not there"
        return ""

    def begin(self, state: RunState) -> None:
        """Write the state before the first round, so that even a run that is killed in it goes on
        from where it began.
        """
        kind: Kind = "resume" if self.chain.lines else "begin"
        self.chain.add(kind, state.round, state.parameters, self._covered())
        self._save(state)

    def add(self, record: RoundRecord, state: RunState, transcript: Transcript) -> None:
        """Log a round, chain what was sent in it, and make its state the one to resume from.

        Raises:
            CannotWrite: the disk is full, say; the state before is the one to resume from.
        """
        line = (json.dumps(record.to_json()) + "\n").encode()
        append_synced(self.path / LOG, line)
        self._logged += len(line)
        self._log_hash.update(line)
        covers = self._grown() | self._step_covered()
        self.chain.add(
            "round", record.round, state.parameters, covers, **facts_of_round(transcript)
        )
        self._save(state)

    def _save(self, state: RunState) -> None:
        log = {"log": self._logged, "log sha256": self._log_hash.hexdigest()}
        about = {**self._about, **log, "chain": self.chain.head}
        self._step = checkpoint.save(self.path / CHECKPOINT, state.round, state, about)

    def finish(self, state: RunState, model: bytes, summary: Mapping[str, Any]) -> None:
        """Write the model (as `tensors_of` makes it), the ledger and the summary, which has its
        name once the `end` is chained: a run that is killed in between has not ended.
        """
        write_atomically(
            self.path / "ledger.json",
            json.dumps([charge.to_json() for charge in state.ledger.charges], indent=1),
        )
        write_atomically(self.path / "model.safetensors", model)
        write_atomically(self.path / SUMMARY_DRAFT, json.dumps(dict(summary), indent=1))

    def end(self, state: RunState) -> None:
        """TranscriptChain what the run left at its end."""
        public = self.path / PUBLIC
        left = [self.path / name for name in AT_THE_END if name != SUMMARY]
        left += sorted(path for path in public.rglob("*") if path.is_file())
        covers = {self._named(path): whole_of(path) for path in left}
        covers[SUMMARY] = whole_of(self.path / SUMMARY_DRAFT)
        self.chain.add("end", state.round, state.parameters, self._covered() | covers)
        with said(self.path / SUMMARY):
            (self.path / SUMMARY_DRAFT).replace(self.path / SUMMARY)
            sync_folder(self.path)

    # ---- what the transcript covers

    def _covered(self) -> dict[str, Mapping[str, Any]]:
        """All that is there before a round, by path."""
        fixed = (FINGERPRINT, CONFIG, README)
        there = [self.path / name for name in fixed if (self.path / name).exists()]
        whole = {self._named(path): whole_of(path) for path in there}
        return whole | self._grown() | self._step_covered()

    def _grown(self) -> dict[str, Mapping[str, Any]]:
        log = {"bytes": self._logged, "sha256": self._log_hash.hexdigest()}
        return {LOG: log, JOURNAL: self._spent.covered()}

    def _step_covered(self) -> dict[str, Mapping[str, Any]]:
        """The checkpoint that a round starts from."""
        if self._step is None:
            return {}
        with said(self._step):
            hashes = checkpoint.hashes_of(self._step)
        return {self._named(self._step / n): {"sha256": found} for n, found in hashes.items()}

    def _named(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()


def holds_run(path: Path) -> bool:
    """Whether a run began in a folder."""
    return (path / FINGERPRINT).is_file() or (path / CONFIG).is_file()


def refuse_lost_config(path: Path) -> None:
    """Refuse a run folder whose config is gone: nothing else in it says what the run is.

    Raises:
        ConfigError: the run began with one, as its transcript has it.
    """
    if not (path / CONFIG).is_file() and covered(path / TRANSCRIPT, CONFIG):
        raise ConfigError(
            f"'{path}' has lost the {CONFIG} that its run began with: put the file back, or begin"
            " the run anew in another folder."
        )


def tensors_of(parameters: Vector, names: Mapping[str, Vector]) -> bytes:
    """A model as a file: flat as ``parameters``, and by name."""
    tensors = {"parameters": parameters.contiguous()} | {
        name: tensor.clone().contiguous() for name, tensor in names.items()
    }
    return safetensors.torch.save(tensors)


def read_ledger(path: Path) -> Ledger:
    """The ledger of a run folder; of one whose run did not end, all that was charged so far."""
    if not (path / "ledger.json").exists():
        return Journal(path / JOURNAL).ledger()
    return Ledger(
        tuple(
            Charge.from_json(item)
            for item in json.loads((path / "ledger.json").read_text(encoding="utf-8"))
        )
    )


def start_ledger(path: Path) -> Ledger:
    """All that was charged for the model of a run folder, by the ledger whose lines are chained;
    the one that the run wrote at its end must agree with it.

    Raises:
        DataCorrupt: it does not, or a chain is broken: charges were changed or taken out.
    """
    whole = Journal(path / JOURNAL).ledger()
    if (path / "ledger.json").exists():
        told, chained = (Counter(map(repr, one.charges)) for one in (read_ledger(path), whole))
        if told != chained:
            raise DataCorrupt(
                f"'{JOURNAL}' and 'ledger.json' in '{path}' do not agree on what the run charged:"
                " one of them was changed. Put the right files back; what they held stays spent."
            )
    return whole
