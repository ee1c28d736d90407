"""The files of a run folder, read as what anybody may have damaged since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from privfl.core import ConfigError, PrivflError
from privfl.engine.records import RoundRecord


def damaged(path: Path, why: str) -> ConfigError:
    """That a file of a run folder is not as the run wrote it.

    >>> str(damaged(Path("r/summary.json"), "it is cut"))
    "'r/summary.json' is damaged: it is cut. Take the folder's copy, or play the run again."
    """
    return ConfigError(
        f"'{path}' is damaged: {why}. Take the folder's copy, or play the run again."
    )


@contextmanager
def as_written(folder: Path) -> Iterator[None]:
    """What is read inside from a run folder holds what a run writes.

    Raises:
        ConfigError: it does not: a key is missing, or holds something of another kind.
    """
    try:
        yield
    except PrivflError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        why = f"its files do not hold what a run writes ({type(error).__name__}: {error})"
        raise damaged(folder, why) from error


def object_in(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    held: dict[str, Any] = _json_in(path, dict)
    return held


def list_in(path: Path) -> list[Any]:
    """The JSON array in a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    held: list[Any] = _json_in(path, list)
    return held


def _json_in(path: Path, kind: type) -> Any:
    try:
        held = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise damaged(path, "it is no JSON") from None
    if not isinstance(held, kind):
        raise damaged(path, f"it holds a {type(held).__name__}, and a {kind.__name__} is expected")
    return held


def rounds_in(path: Path) -> list[RoundRecord]:
    """The rounds in a log, one JSON object a line; none where there is no log. A last line that a
    kill cut is left out.

    Raises:
        ConfigError: it cannot be read, or another line is no round.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror or error}.") from None
    records = []
    for i, line in enumerate(lines[:-1] if lines and not lines[-1].endswith(b"}") else lines):
        try:
            records.append(RoundRecord.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise damaged(path, f"line {i + 1} is no round") from None
    return records
