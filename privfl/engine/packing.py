"""State as JSON and tensors, and back: dataclasses, mappings, sequences, numbers, bytes, tensors.

Keys and other secrets never get here: whatever inherits `KeepsSecrets` is refused. A resumed run
sets up a new session.

To read imports nothing and calls nothing: a file may name dataclasses of privfl and of the packages
that the run's own parts come from, which are there already, and these are made without their
constructors.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping
from typing import Any

import torch

from privfl.core import DataCorrupt, KeepsSecrets, SecretsStay
from privfl.core.field_values import field_values

_PLAIN = (str, bool, int, float, type(None))
_SEQUENCES: Mapping[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
OWN = "privfl"


def pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A value as JSON can hold it; tensors go into ``tensors``, by a name of theirs.

    Raises:
        SecretsStay: it holds secrets.
        TypeError: it holds something that is no data, or of a class that nobody finds again.

    >>> pack((1, {"a": None}), {})
    {'tuple': [1, {'dict': [['a', None]]}]}
    """
    if isinstance(value, KeepsSecrets):
        raise SecretsStay(
            f"{type(value).__name__} holds secrets and does not go into a checkpoint."
        )
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if type(value) in _SEQUENCES.values():
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return {type(value).__name__: [pack(item, tensors) for item in items]}
    if isinstance(value, Mapping):
        return {"dict": [[pack(key, tensors), pack(item, tensors)] for key, item in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {name: pack(held, tensors) for name, held in field_values(value).items()}
        if "<locals>" in kind.__qualname__:
            raise TypeError(
                f"a {kind.__name__} cannot be checkpointed: it is defined inside of a function,"
                " where nobody finds it again. Define it at the top of its module."
            )
        return {"dataclass": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    raise TypeError(
        f"a {type(value).__name__} cannot be checkpointed: make the state of dataclasses, mappings,"
        " numbers and tensors."
    )


def unpack(packed: Any, tensors: Mapping[str, torch.Tensor], packages: Collection[str] = ()) -> Any:
    """What `pack` was given; ``packages`` beside privfl whose dataclasses it may hold.

    Raises:
        DataCorrupt: it names something else than a dataclass of these packages, with its fields.
        ValueError, KeyError, TypeError, AttributeError: it is nothing that `pack` makes.

    >>> unpack({"tuple": [1, {"dict": [["a", None]]}]}, {})
    (1, {'a': None})
    """
    if isinstance(packed, _PLAIN):
        return packed
    if "tensor" in packed:
        return tensors[packed["tensor"]]
    if "bytes" in packed:
        return bytes.fromhex(packed["bytes"])
    if "dict" in packed:
        return {
            unpack(key, tensors, packages): unpack(item, tensors, packages)
            for key, item in packed["dict"]
        }
    if "dataclass" in packed:
        kind = _dataclass(str(packed["dataclass"]), packages)
        known = {field.name for field in dataclasses.fields(kind)}
        if packed["fields"].keys() != known:
            raise DataCorrupt(f"it holds a {kind.__name__} with other fields than that has")
        state: object = object.__new__(kind)  # as it was: no checks, no defaults, no side effects
        for field, value in packed["fields"].items():
            object.__setattr__(state, field, unpack(value, tensors, packages))
        return state
    ((name, items),) = packed.items()
    return _SEQUENCES[name](unpack(item, tensors, packages) for item in items)


def _dataclass(named: str, packages: Collection[str]) -> type:
    """The dataclass of that name, among those of known packages that are there."""
    where, _, name = named.partition(":")
    if where.partition(".")[0] not in (OWN, *packages):
        raise DataCorrupt(f"it names '{named}', which is no part of this run")
    if where not in sys.modules:
        raise DataCorrupt(f"it names '{named}', of a module that this run does not use")
    kind: Any = sys.modules[where]
    for step in name.split("."):
        kind = vars(kind).get(step)
        if not isinstance(kind, type) or kind.__module__ != where:
            break
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise DataCorrupt(f"it names '{named}', which is no dataclass")
    if (kind.__module__, kind.__qualname__) != (where, name) or issubclass(kind, KeepsSecrets):
        raise DataCorrupt(f"it names '{named}', which is no state of a run")
    return kind
