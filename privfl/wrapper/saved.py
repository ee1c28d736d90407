"""A layer in a file: what it has spent, whom it knows, and where it has got to. No keys: the next
round sets up a new session.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from privfl.core import ConfigError, DataCorrupt
from privfl.engine.files import write_atomically

_FORMAT = "privfl/1/layer"
_WHERE = re.compile(r" at 0x[0-9a-f]+")


def words(part: Any) -> str:
    """A part of a layer in words that are the same in every process."""
    plain = part is None or isinstance(part, str | int | float)
    said = repr(part) if plain or is_dataclass(part) else type(part).__qualname__
    return _WHERE.sub("", said)


def write(path: Path, body: Mapping[str, Any]) -> None:
    """Replace the file as a whole.

    Raises:
        ConfigError: it cannot be written.
    """
    text = json.dumps(dict(body))
    try:
        write_atomically(path, json.dumps({"format": _FORMAT, "sha256": _hash(text), "body": text}))
    except OSError as error:
        raise ConfigError(
            f"cannot write the layer to '{path}': {error.strerror or error}."
        ) from None


def read(path: Path, parts: Mapping[str, str]) -> Mapping[str, Any]:
    """What `write` wrote, of a layer of these ``parts``.

    Raises:
        ConfigError: it cannot be read, or is of a layer with other parts.
        DataCorrupt: it is damaged, or no layer's.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        known, text, said = whole["format"], whole["body"], whole["sha256"]
        body: Mapping[str, Any] = json.loads(text)
        own = body["parts"]
    except OSError as error:
        raise ConfigError(
            f"cannot read the layer in '{path}': {error.strerror or error}."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataCorrupt(
            f"'{path}' is no whole layer: it was cut, or is something else."
        ) from None
    if known != _FORMAT or said != _hash(text):
        raise DataCorrupt(f"'{path}' was changed since it was written: put the right file back.")
    for name, value in parts.items():
        if own.get(name) != value:
            raise ConfigError(
                f"the layer in '{path}' has {name} {own.get(name)}, and this one has {value}: make"
                " it as it was, or begin a new one with the ledger file of the old."
            )
    return body


def _hash(text: str) -> str:
    return hashlib.sha256(f"{_FORMAT}\n{text}".encode()).hexdigest()
