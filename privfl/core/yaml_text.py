"""YAML as configs are written in it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from privfl.core.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key which stands twice, where YAML takes the last one, and reads
    yes, no, on and off as words: they are labels of tables, and YAML 1.2 has true and false alone.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name is PyYAML's
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:bool"]
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


def value_of(text: str, override: str) -> Any:
    """What stands behind the equals sign of an override ``a.b=c``.

    Raises:
        ConfigError: it is no YAML.

    >>> value_of("no", "labels.a=no"), value_of("[1, 2]", "rounds=[1, 2]")
    ('no', [1, 2])
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
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
        raw = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
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
