"""The folder that a run writes to, new or with a run in it that goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from privfl.config import AuditConfig, Config
from privfl.core import ConfigError
from privfl.engine import (
    RoundRecord,
    RunFolder,
    RunState,
    Scenario,
    holds_run,
    refuse_lost_config,
    tensors_by_name,
    tensors_of,
)
from privfl.federation.public import claims_privacy, public_files


def opened(
    out: Path | str | None,
    config: Config | None,
    fingerprint: Mapping[str, str],
    packages: Collection[str],
    *,
    resume: bool,
    private: bool,
) -> tuple[RunFolder | None, RunState | None, list[RoundRecord]]:
    """A run's folder, locked, with the state and the records that it holds; ``private`` where the
    run claims privacy, so that its folder is kept from others. Without ``out`` there is none.

    Raises:
        ConfigError: it is not empty, another process writes to it, or a run is to be resumed and
            there is none in it, another one (`engine.fingerprint`), or one without its config.
        DataCorrupt: what it holds is damaged.
        CannotWrite: it cannot be made or written to.
    """
    if out is None:
        if resume:
            raise ConfigError("resume needs the folder of the run.")
        return None, None, []
    if not resume:
        text = None if config is None else config.to_yaml()
        return RunFolder.create(Path(out), text, fingerprint, private=private), None, []
    folder = RunFolder(Path(out))
    if not holds_run(folder.path):
        raise ConfigError(f"'{out}' holds no run to resume.")
    folder.lock()
    try:
        refuse_lost_config(folder.path)
        folder.refuse_another(fingerprint)
        if private:
            folder.keep_private()
        state, records = folder.restore(packages)
    except BaseException:
        folder.close()
        raise
    return folder, state, records


def leave(
    folder: RunFolder,
    scenario: Scenario,
    audit: AuditConfig,
    config: Config | None,
    state: RunState,
    summary: dict[str, Any],
    ended: str,
) -> None:
    """Write what a run leaves once it has ended, and what of it may be published where it claims
    privacy; ``ended`` is the warning in its summary that a budget ended it early.

    Raises:
        CannotWrite: the operating system refuses.
    """
    model = tensors_of(state.parameters, tensors_by_name(scenario.workload, state))
    files: Mapping[str, str | bytes] = {}
    if claims_privacy(scenario):
        files = public_files(scenario, audit, config, state.ledger, summary, model, ended)
    summary["warnings"] += [
        f"{lost}. The run went on from the one before it." for lost in folder.damaged
    ]
    folder.finish(state, model, summary)
    if files:
        folder.publish(files)
    folder.end(state)
