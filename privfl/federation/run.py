"""What a run left, for people and for audits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from privfl.core import Ledger, NotVisible, Transcript, Vector, View
from privfl.engine import RoundRecord, RunState


@dataclass(frozen=True)
class Run:
    """What a run left: the records of its rounds, the model, the transcripts that were kept, and
    the ledger.

    ``model`` is the module that was given, trained in place: of several runs of one module it is
    that of the last, and ``parameters`` are each run's own.
    """

    history: tuple[RoundRecord, ...]
    state: RunState = field(repr=False)
    model: nn.Module = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    transcripts: Mapping[int, Transcript] = field(repr=False)
    folder: Path | None = None

    @property
    def parameters(self) -> Vector:
        """The final model [d]."""
        return self.state.parameters

    @property
    def ledger(self) -> Ledger:
        """Everything that was charged."""
        return self.state.ledger

    @property
    def accuracy(self) -> float:
        """The final model's accuracy on the test set."""
        return float(self.summary["accuracy"])

    def transcript(self, round: int) -> Transcript:
        """A round's transcript.

        Raises:
            NotVisible: no such round, or it was not kept.
        """
        if round not in self.transcripts:
            kept = ", ".join(map(str, sorted(self.transcripts))) or "none"
            raise NotVisible(
                f"round {round} was not kept (kept: {kept}): set audit.keep to a list with it, or"
                " to 'all'."
            )
        return self.transcripts[round]

    def view(self, adversary: str, round: int) -> View:
        """Exactly what an adversary saw of a round.

        Raises:
            NotVisible: the round was not kept, or there is no such party.
            ConfigError: no such adversary.
        """
        return self.transcript(round).view(adversary)
