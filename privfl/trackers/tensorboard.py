"""TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from privfl.core import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(eq=False)
class TensorBoard:
    """Writes every round's figures as scalars, the settings as text, and the run's end, to event
    files in ``folder``, which ``tensorboard --logdir FOLDER`` shows.

    Args:
        folder: of the event files; a resumed run goes on in the same one, and what it had written
            of rounds that are played again is left out.
        private: whether the folder is as well kept as the run folder. If not, it gets of a run that
            claims privacy the recipe and the statement's figures, once it has ended.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    folder: Path | str
    private: bool = False
    _writer: SummaryWriter | None = field(default=None, repr=False)
    _last: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorBoard is not installed: pip install 'privfl[trackers]', or pip install"
                " tensorboard."
            )

    def begin(self, facts: Mapping[str, str | int | float | bool], first: int) -> None:
        """A run begins."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=first if first else None)
        rows = "".join(f"    {key}: {value}\n" for key, value in facts.items())
        self._writer.add_text("settings", rows, first)
        self._last = first

    def round(self, number: int, figures: Mapping[str, float]) -> None:
        """A round's figures, at the step of its number."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, number)
            self._last = number

    def end(self, figures: Mapping[str, float], how: Literal["finished", "failed"]) -> None:
        """The run's figures, at the step of its last round, under ``end/``."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"end/{name}", value, self._last)
            self._writer.add_text("ended", how, self._last)
            self._writer.close()
            self._writer = None
