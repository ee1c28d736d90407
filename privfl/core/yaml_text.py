"""YAML as configs are written in it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from privfl.core.errors import ConfigError

_READ_ANEW = ("bool", "int", "float", "timestamp")


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key which stands twice, where YAML takes the last one, and reads
    yes, no, on, off, 007, 1:30 and days as words: they are labels of tables, and in YAML 1.2
    truths are true and false alone, and numbers have no colon.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name is PyYAML's
        first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] not in _READ_ANEW]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key of it once."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    "a key is a word, and this one is a list or a mapping",
                    key.start_mark,
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{name}' stands there twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile("^[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _read(text: str) -> Any:
    """What a text says.

    Raises:
        yaml.YAMLError: it is no YAML, or has a number that Python does not read.
        RecursionError: it is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except ValueError as error:
        raise yaml.YAMLError(str(error).partition(";")[0]) from None


def value_of(text: str, override: str) -> Any:
    """What stands behind the equals sign of an override ``a.b=c``.

    Raises:
        ConfigError: it is no YAML.

    >>> value_of("no", "labels.a=no"), value_of("[1, 2]", "rounds=[1, 2]")
    ('no', [1, 2])
    """
    try:
        return _read(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"'{override}': '{text}' is no YAML value.") from None


def mapping_in(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML file; an empty file is an empty one.

    Raises:
        ConfigError: it cannot be read, is no YAML, is nested too deeply, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config '{path}': {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"'{path}' is no YAML: byte {error.start} is no text in UTF-8. Save it as UTF-8."
        ) from None
    try:
        raw = _read(text)
    except yaml.YAMLError as error:
        first = str(error).splitlines()
        raise ConfigError(
            f"'{path}' is no YAML: {' '.join(line.strip() for line in first)}"
        ) from None
    except RecursionError:
        raise ConfigError(
            f"'{path}' is no config: its lists and mappings are nested too deeply to be read."
        ) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"'{path}' holds a {type(raw).__name__}, and a config is a mapping of keys, as in"
            " rounds: 5."
        )
    return raw
