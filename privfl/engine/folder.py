"""A run folder: everything about a run that a person, a report or a resumed run needs, written so
that a kill leaves it whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from privfl.core import Charge, ConfigError, Ledger, Vector
from privfl.engine import checkpoint
from privfl.engine.checkpoint import write_atomically
from privfl.engine.journal import Journal
from privfl.engine.records import RoundRecord
from privfl.engine.state import RunState

JOURNAL = "ledger.jsonl"


class RunFolder:
    """``config.yaml``, ``rounds.jsonl``, ``ledger.jsonl`` (where there is noise), ``checkpoint/``;
    at the end ``ledger.json``, ``summary.json`` and ``model.safetensors``.

    The ``journal`` is ahead of all else: a round is charged in it before its first message.
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

    def finish(
        self, state: RunState, names: Mapping[str, Vector], summary: Mapping[str, Any]
    ) -> None:
        """Write the model (flat as ``parameters``, and by name), the ledger and the summary."""
        write_atomically(
            self.path / "ledger.json",
            json.dumps([charge.to_json() for charge in state.ledger.charges], indent=1),
        )
        tensors = {"parameters": state.parameters.contiguous()} | {
            name: tensor.clone().contiguous() for name, tensor in names.items()
        }
        write_atomically(self.path / "model.safetensors", safetensors.torch.save(tensors))
        write_atomically(self.path / "summary.json", json.dumps(dict(summary), indent=1))


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
