"""A run folder: everything about a run that a person, a report or a resumed run needs, written so
that a kill leaves it whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from privfl.core import Charge, ConfigError, DataCorrupt, Ledger, Vector
from privfl.engine import checkpoint
from privfl.engine.checkpoint import write_atomically
from privfl.engine.journal import Journal
from privfl.engine.records import RoundRecord
from privfl.engine.state import RunState

JOURNAL = "ledger.jsonl"
PUBLIC = "public"
PRIVATE_README = f"""# A run that claims differential privacy

Publish `{PUBLIC}/` alone: its statement covers what it holds. It is there once the run has ended;
copy it out of this folder, which its owner alone can read (mode 0700).

Everything else here is on the private side, and no epsilon counts it. It is computed from the
clients' data without noise, or shows who took part in a round:

| file | shows |
| --- | --- |
| `rounds.jsonl` | cohort sizes, drop-outs, training losses, traffic, times, test accuracy; what \
defences made of each client that was drawn, from its row without noise |
| `summary.json`, `report.html`, `*.png` | the same, and clients' accuracies and label counts |
| `ledger.json`, `ledger.jsonl` | charges by round, with cohorts where a seed draws them |
| `config.yaml` | the run's seed, from which cohorts can be drawn again unless they are secret |
| `checkpoint/` | what clients and the server remember |
| `dp_audit.json` | what an audit found by attacking the run |
"""


class RunFolder:
    """``config.yaml``, ``rounds.jsonl``, ``ledger.jsonl`` (where there is noise), ``checkpoint/``;
    at the end ``ledger.json``, ``summary.json`` and ``model.safetensors``.

    The ``journal`` is ahead of all else: a round is charged in it before its first message. The
    folder of a run that claims privacy is readable by its owner alone, says so in ``README.md``,
    and has at the end ``public/``, all that may be published.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / JOURNAL)

    @classmethod
    def create(cls, path: Path, config: str) -> RunFolder:
        """A new run folder.

        Raises:
            ConfigError: the folder holds something already, or cannot be made.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ConfigError(
                    f"'{path}' is not empty: give --out a new folder, or go on with the run in it"
                    " by --resume."
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the folder '{path}': {error.strerror}.") from None
        write_atomically(path / "config.yaml", config)
        return cls(path)

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
                f" {error.strerror}. Give --out a folder of your own."
            ) from None
        write_atomically(self.path / "README.md", PRIVATE_README)

    def publish(self, files: Mapping[str, str | bytes]) -> None:
        """Make ``public/`` of these files, and of nothing that lay there before."""
        draft, done = self.path / f".{PUBLIC}-{os.getpid()}", self.path / PUBLIC
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for name, content in files.items():
            write_atomically(draft / name, content)
        shutil.rmtree(done, ignore_errors=True)
        draft.rename(done)

    def restore(self) -> tuple[RunState | None, list[RoundRecord]]:
        """The newest state and the rounds before it; rounds that were logged after it are forgotten
        and played again. Their charges are not: what was sent cannot be taken back.

        Raises:
            DataCorrupt: the checkpoint is damaged.
        """
        (self.path / "ledger.json").unlink(missing_ok=True)  # of a run that ended, and goes on
        state = checkpoint.load(self.path / "checkpoint")
        if state is None:
            (self.path / "rounds.jsonl").unlink(missing_ok=True)
            return None, []
        lines = (self.path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()[: state.round]
        write_atomically(self.path / "rounds.jsonl", "".join(line + "\n" for line in lines))
        return state, [RoundRecord.from_json(json.loads(line)) for line in lines]

    def add(self, record: RoundRecord, state: RunState) -> None:
        """Log a round and make its state the one to resume from."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(record.to_json()) + "\n")
        checkpoint.save(self.path / "checkpoint", state.round, state)

    def finish(self, state: RunState, model: bytes, summary: Mapping[str, Any]) -> None:
        """Write the model (as `tensors_of` makes it), the ledger and the summary."""
        write_atomically(
            self.path / "ledger.json",
            json.dumps([charge.to_json() for charge in state.ledger.charges], indent=1),
        )
        write_atomically(self.path / "model.safetensors", model)
        write_atomically(self.path / "summary.json", json.dumps(dict(summary), indent=1))


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
