"""The folder that a run writes to, new or with a run in it that goes on."""

from __future__ import annotations

from pathlib import Path

from privfl.config import Config
from privfl.core import ConfigError
from privfl.engine import RoundRecord, RunFolder, RunState


def opened(
    out: Path | str | None, config: Config | None, *, resume: bool, private: bool
) -> tuple[RunFolder | None, RunState | None, list[RoundRecord]]:
    """A run's folder, with the state and the records that it holds; ``private`` where the run
    claims privacy, so that its folder is kept from others. Without ``out`` there is none.

    Raises:
        ConfigError: it is not empty, or a run is to be resumed and there is none in it.
    """
    if out is None:
        if resume:
            raise ConfigError("resume needs the folder of the run.")
        return None, None, []
    if not resume:
        text = config.to_yaml() if config is not None else "# this run was put together in Python\n"
        folder = RunFolder.create(Path(out), text)
        if private:
            folder.keep_private()
        return folder, None, []
    folder = RunFolder(Path(out))
    if not (folder.path / "config.yaml").exists():
        raise ConfigError(f"'{out}' holds no run to resume.")
    if private:
        folder.keep_private()
    state, records = folder.restore()
    return folder, state, records
